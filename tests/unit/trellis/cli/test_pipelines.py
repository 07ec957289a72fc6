import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.command_line import CommandLine
from tests.support.fake_api import problem, reply

PIPELINE = {"id": "p1", "name": "nightly", "number": 2, "changed": True, "definition": {"stages": [{}, {}]}}
STAGES = [
    {"name": "a", "after": [], "state": "succeeded", "job_id": "j1", "job_state": "succeeded"},
    {"name": "b", "after": ["a"], "state": "failed", "message": "its job exited with 3"},
    {"name": "c", "after": ["a", "b"], "state": "blocked", "message": "b ended failed", "elements": {"failed": 1, "running": 2}},
]  # fmt: skip
RUN = {
    "id": "r1",
    "pipeline": "nightly",
    "number": 2,
    "state": "failed",
    "message": "b did not succeed",
    "stages": STAGES,
}
FLOW = """
from trellis.flows import Pipeline, program, stage

@stage(resources={"cpus": 2}, cache=True)
def first(day): ...

@stage(over=first, retries={"limit": 1})
def each(item): ...

last = program("last", command=["./x"], after=[each], only_if=(first, ["a"]), when="all_done")
flow = Pipeline("nightly", [first, each, last], concurrency=2)
"""


def test_a_run_is_drawn_as_a_tree_of_its_stages(cli: CommandLine) -> None:
    cli.api.on("GET", "/pipelines", reply({"items": [PIPELINE]}))
    cli.api.on("GET", "/pipelines/p1/runs", reply({"items": [RUN]}))
    cli.api.on("GET", "/pipelines/runs/r1", reply(RUN))
    lines = cli.run("pipeline", "show", "nightly").stdout.splitlines()
    assert lines[0].startswith("nightly failed  3/3 stages")
    assert "+ a  succeeded" in lines[1]
    assert "x b  failed" in lines[2]
    assert "after a too" in lines[3]
    assert "1/3" in lines[3]
    assert lines[-1] == "b did not succeed"


def test_a_run_is_waited_for_and_its_end_is_the_exit_code(cli: CommandLine) -> None:
    cli.api.on("GET", "/pipelines", reply({"items": [PIPELINE]}))
    cli.api.on("POST", "/pipelines/p1/runs", reply({**RUN, "state": "queued", "stages": []}, 201))
    cli.api.on("GET", "/pipelines/runs/r1", reply(RUN))
    said = ("--parameter", "n=3", "--parameter", "day=2026-01-31", "--from", "a", "--fresh")
    assert cli.run("pipeline", "run", "nightly", *said).exit_code == 1
    assert cli.api.bodies("POST", "/pipelines/p1/runs") == [
        {"parameters": {"n": 3, "day": "2026-01-31"}, "from": ["a"], "fresh": True}
    ]
    assert cli.run("pipeline", "run", "nightly", "--detach").stdout == "Started run r1.\n"


@pytest.mark.parametrize("suffix", ["yaml", "json"])
def test_a_definition_is_sent_as_it_stands(cli: CommandLine, tmp_path: Path, suffix: str) -> None:
    body: dict[str, Any] = {"stages": [{"name": "a", "with": {"command": ["true"]}}]}
    file = tmp_path / f"nightly.{suffix}"
    file.write_text(json.dumps(body))
    cli.api.on("POST", "/pipelines", reply(PIPELINE, 201))
    assert cli.run("pipeline", "apply", str(file)).stdout == "Applied pipeline nightly, version 2, of 2 stages.\n"
    assert cli.api.bodies("POST", "/pipelines") == [{**body, "name": "nightly"}]


def test_a_python_file_is_read_here_and_sent_as_a_definition(cli: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "flow.py"
    file.write_text(FLOW)
    cli.api.on("POST", "/pipelines", reply({**PIPELINE, "changed": False}))
    done = cli.run("pipeline", "apply", str(file), "--dry-run")
    assert "It is good: pipeline nightly" in done.stdout
    (sent,) = cli.api.bodies("POST", "/pipelines")
    assert (sent["name"], sent["concurrency"], sent["dry_run"]) == ("nightly", 2, True)
    first, each, last = sent["stages"]
    assert first == {
        "name": "first", "kind": "custom", "resources": {"cpus": 2}, "cache": True,
        "with": {"command": ["python", "-m", "trellis.flows", "flow.py", "first"]},
    }  # fmt: skip
    assert (each["map"], each["retries"]) == ({"over": {"stage": "first"}}, {"limit": 1})
    assert (last["after"], last["only_if"], last["when"]) == (["each"], {"stage": "first", "equals": ["a"]}, "all_done")
    assert last["with"] == {"command": ["./x"]}


def test_a_python_file_without_a_pipeline_is_refused(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "none.py").write_text("x = 1\n")
    done = cli.run("pipeline", "apply", str(tmp_path / "none.py"))
    assert done.exit_code == 2
    assert "must hold one Pipeline" in done.stderr


def test_a_name_that_is_not_there_is_said(cli: CommandLine) -> None:
    cli.api.on("GET", "/pipelines", reply({"items": []}))
    done = cli.run("pipeline", "run", "nowhere")
    assert done.exit_code == 1
    assert "there is no pipeline 'nowhere'" in done.stderr
    wrong = cli.run("pipeline", "run", "nightly", "--parameter", "novalue")
    assert "NAME=VALUE" in wrong.stderr


def test_changes_of_a_schedule_and_the_past_are_asked_for(cli: CommandLine) -> None:
    cli.api.on("GET", "/pipelines", reply({"items": [PIPELINE]}))
    cli.api.on("PATCH", "/pipelines/p1/schedule", reply({"paused_at": None, "fires_at": "2026-01-31T01:30:00Z"}))
    assert cli.run("pipeline", "pause", "nightly").exit_code == 0
    assert "runs next at" in cli.run("pipeline", "resume", "nightly").stdout
    assert cli.api.bodies("PATCH", "/pipelines/p1/schedule") == [{"paused": True}, {"paused": False}]
    cli.api.on("POST", "/pipelines/p1/backfills", reply({"count": 2, "times": ["2026-01-01T00:00:00Z"]}))
    done = cli.run("pipeline", "backfill", "nightly", "--from", "2026-01-01", "--until", "2026-01-03", "--dry-run")
    assert done.stdout.startswith("It would run for 2 times.")


def test_a_refusal_names_each_stage(cli: CommandLine, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text("stages: []")
    errors = [{"pointer": "/stages/0/after", "message": "circle"}, {"pointer": "/stages/1/with", "message": "odd"}]
    cli.api.on("POST", "/pipelines", problem(422, "invalid", "no", errors=errors))
    done = cli.run("pipeline", "apply", str(tmp_path / "x.yaml"))
    assert done.exit_code == 2
    assert "stages.0.after circle" in done.stderr
