"""Pipelines as a person runs them: from a file to a tree of what was done, kills in between included."""

import json
from datetime import UTC, datetime
from functools import partial

from tests.support.flows import a_pipeline, a_stage
from tests.support.platform import Platform
from tests.support.services import ROOT, wait_until


def test_a_pipeline_of_functions_runs_from_its_file(platform: Platform) -> None:
    file = str(ROOT / "examples" / "flow" / "houses.py")
    done = platform.run("pipeline", "apply", file)
    assert done.returncode == 0, done.stderr
    assert "Applied pipeline houses, version 1, of 5 stages." in done.stdout
    again = platform.run("pipeline", "apply", file)
    assert "Nothing has changed" in again.stdout
    ran = platform.run("pipeline", "run", "houses", "--parameter", "batches=2", "--parameter", "day=2026-01-31")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "succeeded  5/5 stages" in ran.stdout
    run = platform.client.pipelines.show(
        json.loads(platform.run("--json", "pipeline", "runs", "houses").stdout)[0]["id"]
    )
    jobs = {job.name: job for job in platform.client.jobs.list(workflow_id=run.id)}
    assert set(jobs) == {"batches", "clean[0]", "clean[1]", "judge", "report", "tidy"}
    assert platform.lines(jobs["report"]) == ["report of 2026-01-31"]
    assert platform.lines(jobs["clean[1]"])[0].startswith("batch 1: kept ")
    alone = platform.client.pipelines.wait(platform.client.pipelines.run("houses", parameters={"batches": 1}), 60)
    assert {stage.name: stage.state for stage in alone.stages}["report"] == "skipped"
    assert alone.state == "succeeded"


def test_a_run_ends_with_every_stage_done_once_though_the_control_worker_is_killed(
    platform: Platform,
) -> None:
    layers = [[f"l{depth}-{number}" for number in range(3)] for depth in range(4)]
    stages = [
        a_stage(name, *(layers[depth - 1] if depth else []), **{"with": {"command": ["/bin/sh", "-c", "sleep 0.3"]}})
        for depth, layer in enumerate(layers)
        for name in layer
    ]
    platform.client.pipelines.apply(a_pipeline(*stages, name="killed"))
    run = platform.client.pipelines.run("killed")

    def done(depth: int) -> bool:
        stages = platform.client.pipelines.show(run).stages
        return all(stage.state == "succeeded" for stage in stages if stage.name.startswith(f"l{depth}"))

    for depth in (0, 1):
        wait_until(partial(done, depth), 60, f"layer {depth} to be done")
        platform.kill("control")
    ended = platform.client.pipelines.wait(run, 90)
    assert (ended.state, {stage.state for stage in ended.stages}) == ("succeeded", {"succeeded"})
    jobs = list(platform.client.jobs.list(workflow_id=run.id))
    assert sorted(job.name for job in jobs) == sorted(name for layer in layers for name in layer)
    assert {job.attempt for job in jobs} == {1}


def test_a_schedule_fires_by_itself_and_rests_when_it_is_paused(platform: Platform) -> None:
    flow = a_pipeline(a_stage("tick"), name="ticking", schedule={"every": "10s"})
    made = platform.client.pipelines.apply(flow)
    wait_until(lambda: any(platform.client.pipelines.runs(made)), 30, "the first run")
    assert platform.run("pipeline", "pause", "ticking").returncode == 0
    (first, *_) = sorted(
        platform.client.pipelines.runs(made), key=lambda run: run.fire_at or datetime.max.replace(tzinfo=UTC)
    )
    assert platform.client.pipelines.wait(first, 60).state == "succeeded"
    assert platform.client.pipelines.get(made).schedule is not None
