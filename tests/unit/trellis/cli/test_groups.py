import json
from pathlib import Path

from tests.support.command_line import CommandLine
from tests.support.fake_api import a_job_body, problem, reply

ARRAY = {
    "id": "a1",
    "kind": "array",
    "name": "sweep",
    "count": 100,
    "states": {"running": 4, "queued": 96},
    "user": "ada",
}


def test_an_array_is_one_line_of_the_list(cli: CommandLine) -> None:
    cli.api.on("GET", "/jobs", reply({"items": [a_job_body(id="j1", group=ARRAY), a_job_body(id="j2")]}))
    lines = cli.run("jobs").stdout.splitlines()
    assert lines[1].startswith("a1")
    assert "96 queued, 4 running" in lines[1]
    assert "array of 100" in lines[1]
    assert cli.api.asked[0].url.params["grouped"] == "true"
    cli.run("jobs", "--each")
    assert "grouped" not in cli.api.asked[1].url.params


def test_an_array_shows_its_states(cli: CommandLine) -> None:
    cli.api.on("GET", "/jobs/arrays/a1", reply(ARRAY))
    assert "96 queued, 4 running" in cli.run("array", "show", "a1").stdout


def test_changes_of_an_array_say_how_many_they_concern(cli: CommandLine) -> None:
    cli.api.on("PATCH", "/jobs/arrays/a1/status", reply({**ARRAY, "changed": 10}))
    for action, told in (
        ("cancel", "told to end"), ("suspend", "told to stand still"), ("resume", "told to go on"), ("retry", "submitted again")
    ):  # fmt: skip
        done = cli.run("array", action, "a1", "--elements", "0-9")
        assert done.stdout == f"10 of 100 jobs of array a1 were {told}.\n"
    bodies = cli.api.bodies("PATCH", "/jobs/arrays/a1/status")
    assert [body["action"] for body in bodies] == ["cancel", "suspend", "resume", "retry"]
    assert {body["elements"] for body in bodies} == {"0-9"}


def test_last_is_the_group_of_the_newest_job_or_a_clear_error(cli: CommandLine) -> None:
    cli.api.on("GET", "/auth/whoami", reply({"id": "u1", "name": "ada"}))
    cli.api.on("GET", "/jobs", reply({"items": [a_job_body(id="j7")]}))
    cli.api.on("GET", "/jobs/j7", reply(a_job_body(id="j7", array_id="a1")))
    cli.api.on("GET", "/jobs/arrays/a1", reply(ARRAY))
    assert json.loads(cli.run("array", "show", "last", "--json").stdout)["id"] == "a1"
    refused = cli.run("workflow", "show", "last")
    assert refused.exit_code != 0
    assert "of no workflow" in refused.stderr


def test_a_workflow_is_sent_from_a_file(cli: CommandLine, tmp_path: Path) -> None:
    flow = tmp_path / "nightly.yaml"
    flow.write_text("jobs:\n- {name: a, command: [x]}\n- {name: b, command: [y], after: [a]}\n")
    cli.api.on("POST", "/jobs/workflows", reply({"id": "w1", "kind": "workflow", "count": 2}, 201))
    assert cli.run("workflow", "submit", str(flow)).stdout == "Submitted 2 jobs as workflow w1.\n"
    (body,) = cli.api.bodies("POST", "/jobs/workflows")
    assert (body["name"], body["jobs"][1]["after"]) == ("nightly", [{"job": "a"}])


def test_what_the_server_says_of_a_circle_is_shown(cli: CommandLine, tmp_path: Path) -> None:
    flow = tmp_path / "flow.yaml"
    flow.write_text("name: x\njobs: [{name: a, command: [x], after: [a]}]\n")
    fault = {"pointer": "/jobs", "message": "wait for one another in a circle: a -> a"}
    cli.api.on("POST", "/jobs/workflows", problem(422, "invalid", errors=[fault]))
    done = cli.run("workflow", "submit", str(flow))
    assert done.exit_code != 0
    assert "a -> a" in done.stderr


def test_a_file_that_is_no_workflow_is_refused_here(cli: CommandLine, tmp_path: Path) -> None:
    flow = tmp_path / "flow.yaml"
    flow.write_text("name: x\n")
    assert "is no workflow" in cli.run("workflow", "submit", str(flow)).stderr
    assert cli.api.asked == []


def test_options_of_retrying_reach_the_server(cli: CommandLine) -> None:
    cli.api.on("POST", "/jobs", reply(a_job_body(), 201))
    cli.run(
        "submit", "--retries", "2", "--retry", "out_of_memory=1:60s", "--retry-codes", "75,76", "--backoff", "10s",
        "--on-node-lost", "wait", "--warn", "usr1@5m", "--grace", "30s", "--debug", "--", "true",
    )  # fmt: skip
    (body,) = cli.api.bodies("POST", "/jobs")
    assert body["retries"] == {
        "limit": 2, "by_cause": {"out_of_memory": {"limit": 1, "backoff_s": "60s"}}, "exit_codes": [75, 76], "backoff_s": "10s",
    }  # fmt: skip
    said = {name: body[name] for name in ("on_node_lost", "warn_signal", "warn_before", "grace", "debug")}
    assert said == {"on_node_lost": "wait", "warn_signal": "USR1", "warn_before": "5m", "grace": "30s", "debug": True}


def test_wrong_options_are_named_before_anything_is_sent(cli: CommandLine) -> None:
    for words, says in (
        (("--retry", "flu=1"), "causes are"), (("--warn", "KILL@60"), "USR1"), (("--retry-codes", "x"), "75"),
        (("--warn", "USR1@"), "USR1@60"),
    ):  # fmt: skip
        done = cli.run("submit", *words, "--", "true")
        assert done.exit_code != 0
        assert says in done.stderr
    assert cli.api.asked == []


def test_a_job_is_migrated_and_a_node_given_up(cli: CommandLine) -> None:
    cli.api.on("PATCH", "/jobs/j1/status", reply(a_job_body(id="j1", state="running")))
    assert cli.run("migrate", "j1", "--to", "n2").stdout == "Job j1 saves its state and moves.\n"
    assert cli.run("give-up", "j1").stdout == "Job j1 is running.\n"
    bodies = cli.api.bodies("PATCH", "/jobs/j1/status")
    assert bodies == [{"action": "migrate", "to": "n2"}, {"action": "give_up"}]
