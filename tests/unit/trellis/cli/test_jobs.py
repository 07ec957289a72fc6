import json
from datetime import UTC, datetime

import pytest

from tests.support.command_line import CommandLine
from tests.support.fake_api import a_job_body, end_event, events, log_event, problem, reply

ID = "0193a7b2-1111-7222-8333-444455556666"


def test_the_list_fits_a_terminal_and_never_cuts_an_id(cli: CommandLine) -> None:
    jobs = [a_job_body(id=ID, name="a-name-that-goes-on-" * 10, state="timed_out", run_s=7800.0), a_job_body(id=ID)]
    cli.api.on("GET", "/jobs", reply({"items": jobs}))
    done = cli.run("jobs")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["ID", "NAME", "STATE", "QUEUE", "WAIT", "RUN"]
    assert all(len(line) <= 100 for line in lines)
    assert lines[1].startswith(ID)
    assert "timed out" in lines[1]
    assert "2 h 10 m" in lines[1]
    assert cli.api.asked[0].url.params["sort"] == "-submitted_at"


def test_a_name_can_neither_draw_nor_command(cli: CommandLine) -> None:
    cli.api.on("GET", "/jobs", reply({"items": [a_job_body(name="[red]x[/red] \x1b]0;title\x07")]}))
    assert "[red]x[/red] \\x1b]0;title\\x07" in cli.run("jobs").stdout


def test_filters_reach_the_server(cli: CommandLine) -> None:
    cli.api.on("GET", "/jobs", reply({"items": []}))
    done = cli.run(
        "jobs", "-s", "running", "-s", "queued", "--label", "team=a", "--submitted-after", "2026-01-31", "-n", "5"
    )
    assert done.stdout == "No job matches.\n"
    asked = cli.api.asked[0].url.params
    assert (asked.get_list("state"), asked["label"], asked["limit"]) == (["running", "queued"], "team:a", "5")
    assert asked["submitted_after"].startswith("2026-01-31T00:00:00")


def test_an_unknown_state_is_refused_with_the_known_ones(cli: CommandLine) -> None:
    done = cli.run("jobs", "--state", "sleeping")
    assert done.exit_code == 2
    assert "succeeded" in done.stderr


def test_a_list_as_json_is_a_list(cli: CommandLine) -> None:
    cli.api.on("GET", "/jobs", reply({"items": [a_job_body()]}))
    assert json.loads(cli.run("jobs", "--json").stdout) == [a_job_body()]


def test_one_job_says_why_it_waits_and_when_it_starts(cli: CommandLine) -> None:
    attempt = {"number": 1, "cause": "node_lost", "replicas": [{"index": 0, "node": "n1", "state": "lost"}]}
    body = a_job_body(
        why="waits for 2 GPUs", expected_start_at="2026-01-31T13:00:00+00:00", attempts=[attempt],
        depends_on=[{"job": "j0", "kind": "after_success"}], labels={"team": "a"},
    )  # fmt: skip
    cli.api.on("GET", "/jobs/j1", reply(body))
    shown = cli.run("job", "j1").stdout
    for part in (
        "waits for 2 GPUs",
        "about 2026-01-31",
        "2 GPU H100",
        "j0 (after success)",
        "team=a",
        "node_lost",
        "n1",
    ):
        assert part in shown
    assert cli.api.asked[0].url.params["verbose"] == "true"


def test_last_is_the_callers_newest_job(cli: CommandLine) -> None:
    cli.api.on("GET", "/auth/whoami", reply({"id": "u1", "name": "ada"}))
    cli.api.on("GET", "/jobs", reply({"items": [a_job_body(id="j7")]})).on(
        "GET", "/jobs/j7", reply(a_job_body(id="j7"))
    )
    assert json.loads(cli.run("job", "last", "--json").stdout)["id"] == "j7"
    asked = cli.api.asked[1].url.params
    assert (asked["user"], asked["sort"], asked["limit"]) == ("ada", "-submitted_at", "1")


def test_last_without_any_job_is_one_line(cli: CommandLine) -> None:
    cli.api.on("GET", "/auth/whoami", reply({"id": "u1", "name": "ada"})).on("GET", "/jobs", reply({"items": []}))
    done = cli.run("logs", "last")
    assert (done.exit_code, done.stderr) == (1, "trellis: you have not submitted a job yet\n")


def test_cancel_and_retry_say_what_became_of_it(cli: CommandLine) -> None:
    cli.api.on("PATCH", "/jobs/j1/status", reply(a_job_body(id="j1", state="cancelled")))
    assert cli.run("cancel", "j1", "--reason", "oops").stdout == "Job j1 is cancelled.\n"
    cli.api.on("PATCH", "/jobs/j1/status", reply(a_job_body(id="j2", retry_of="j1")))
    assert cli.run("retry", "j1").stdout == "Submitted job j2, a retry of j1.\n"
    bodies = cli.api.bodies("PATCH", "/jobs/j1/status")
    assert bodies == [{"action": "cancel", "reason": "oops"}, {"action": "retry"}]


def test_suspend_and_resume_say_how_far_it_is(cli: CommandLine) -> None:
    states = [a_job_body(id="j1", state=state) for state in ("running", "suspended", "queued")]
    cli.api.on("PATCH", "/jobs/j1/status", *map(reply, states))
    assert cli.run("suspend", "j1", "--reason", "lunch").stdout == "Job j1 is coming to rest.\n"
    assert cli.run("suspend", "j1").stdout == "Job j1 is suspended.\n"
    assert cli.run("resume", "j1").stdout == "Job j1 is queued.\n"
    bodies = cli.api.bodies("PATCH", "/jobs/j1/status")
    assert bodies == [{"action": "suspend", "reason": "lunch"}, {"action": "suspend"}, {"action": "resume"}]


def test_lines_come_through_without_markup_or_commands(cli: CommandLine) -> None:
    texts = ["[bold]x[/bold] :smile:", "\x1b[2J\x9b31mred", "10%\r55%\r100%\r", "tab\tstays", "C:\\path"]
    cli.api.on("GET", "/jobs/j1/logs", reply({"lines": [{"text": text} for text in texts]}))
    assert cli.run("logs", "j1").stdout.splitlines() == [
        "[bold]x[/bold] :smile:",
        "\\x1b[2J\\x9b31mred",
        "100%",
        "tab\tstays",
        "C:\\path",
    ]


def test_lines_of_other_replicas_and_of_the_platform_are_marked(cli: CommandLine) -> None:
    lines = [{"text": "a", "replica": 0}, {"text": "b", "replica": 1}, {"text": "killed", "stream": "system"}]
    cli.api.on("GET", "/jobs/j1/logs", reply({"lines": lines}))
    assert cli.run("logs", "j1").stdout == "a\n[1] b\n[0] trellis: killed\n"


def test_lines_of_a_gang_bear_their_rank_and_on_request_their_time(cli: CommandLine) -> None:
    lines = [
        {"text": "b", "replica": 1, "at": "2026-01-31T12:00:00.123456+00:00"},
        {"text": "a", "replica": 0, "at": "2026-01-31T12:00:01+00:00"},
    ]
    cli.api.on("GET", "/jobs/j1/logs", reply({"lines": lines}))
    assert cli.run("logs", "j1").stdout == "[1] b\n[0] a\n"
    shown = cli.run("logs", "j1", "--timestamps").stdout.splitlines()
    assert [line.split(" ", 1)[1] for line in shown] == ["[1] b", "[0] a"]
    assert datetime.fromisoformat(shown[0].split()[0]) == datetime(2026, 1, 31, 12, 0, 0, 123_000, tzinfo=UTC)


def test_what_is_looked_for_in_a_log_is_asked_of_the_server(cli: CommandLine) -> None:
    cli.api.on("GET", "/jobs/j1/logs", reply({"lines": []}))
    cli.run("logs", "j1", "--since", "10m", "--grep", "a|b", "--stream", "err")
    asked = cli.api.asked[0].url.params
    assert (asked["since"], asked["grep"], asked["stream"]) == ("10m", "a|b", "stderr")
    assert cli.run("logs", "j1", "--since", "soon").exit_code == 2


def test_following_as_json_is_one_object_a_line(cli: CommandLine) -> None:
    cli.api.on("GET", "/jobs/j1/logs", events(log_event(1), log_event(2), end_event()))
    done = cli.run("logs", "-f", "j1", "--json", "--tail", "5", "--stream", "stderr", "--replica", "0")
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == ["line 1", "line 2"]
    asked = cli.api.asked[0].url.params
    assert (asked["follow"], asked["tail"], asked["stream"], asked["replica"]) == ("true", "5", "stderr", "0")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (problem(404, "not_found", "there is no job j1"), "trellis: there is no job j1\n"),
        (
            problem(401, "unauthenticated", "Sign in first."),
            "trellis: Sign in first; sign in with `trellis login URL`\n",
        ),
        (problem(500, "internal", "Something broke.", trace_id="t1"), "trellis: Something broke (trace t1)\n"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(cli: CommandLine, answer: object, says: str) -> None:
    cli.api.on("GET", "/jobs/j1", answer)  # type: ignore[arg-type]
    done = cli.run("job", "j1")
    assert (done.exit_code, done.stdout, done.stderr) == (1, "", says)


def test_an_error_as_json_carries_its_code(cli: CommandLine) -> None:
    cli.api.on("GET", "/jobs/j1", problem(404, "not_found", "gone"))
    error = json.loads(cli.run("job", "j1", "--json").stderr)
    assert error == {"code": "not_found", "detail": "gone", "errors": []}


def test_what_a_job_asks_of_nodes_is_shown_in_words(cli: CommandLine) -> None:
    terms = [{"label": "cores", "operator": "above", "values": ["31"]}, {"label": "spot", "operator": "absent"}]
    wish = {"label": "zone", "operator": "not_in", "values": ["a", "b"], "weight": 5}
    roles = [{"name": "worker", "min_replicas": 2, "max_replicas": 8, "resources": {"cpu_milli": 1000}}]
    job = a_job_body(constraints={"selector": terms, "prefers": [wish]}, roles=roles)
    cli.api.on("GET", "/jobs/0193-job", reply(job))
    said = " ".join(cli.run("job", "0193-job").stdout.split())
    assert "selector cores above 31 and spot absent, prefers zone not in a or b (5 points)" in said
    assert "on each of 2 replicas, up to 8" in said
