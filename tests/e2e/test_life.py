"""The life of jobs on a whole platform of two nodes: arrays, workflows, retries by cause, moves and warnings."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.platform import Platform, running
from tests.support.services import wait_until
from trellis.errors import Invalid


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with running(nodes=2, TRELLIS_CPUS="4") as found:
        yield found


def test_no_more_elements_of_an_array_run_at_once_than_it_allows(platform: Platform) -> None:
    array = platform.client.jobs.submit_array(
        command=["/bin/sh", "-c", "echo element $TRELLIS_ARRAY_INDEX; sleep 0.5"],
        resources={"cpus": 0.5, "memory": "32MiB"}, array={"indexes": "0-11", "max_parallel": 3}, name="sweep",
    )  # fmt: skip
    most = 0
    while platform.client.arrays.get(array.array_id).states.get("succeeded", 0) < 12:
        states = platform.client.arrays.get(array.array_id).states
        most = max(most, sum(states.get(state, 0) for state in ("queued", "scheduled", "starting", "running")))
    assert 1 <= most <= 3
    jobs = platform.client.jobs.list(array_id=array.array_id)
    assert sorted(line for job in jobs for line in platform.lines(job)) == sorted(f"element {i}" for i in range(12))
    shown = platform.run("jobs").stdout
    assert f"{array.array_id}" in shown
    assert "12 succeeded" in shown


def test_a_workflow_runs_from_a_file_in_its_order(platform: Platform, tmp_path: Path) -> None:
    flow = tmp_path / "flow.yaml"
    flow.write_text(
        "name: nightly\njobs:\n"
        "- {name: prepare, command: [/bin/sh, -c, sleep 0.3]}\n"
        "- {name: train, command: [/bin/false], after: [prepare]}\n"
        "- {name: report, command: [/bin/true], after: [train]}\n"
        "- {name: clean, command: [/bin/true], after: [{job: train, kind: after_any}]}\n"
    )
    said = platform.run("workflow", "submit", str(flow)).stdout
    workflow_id = said.rpartition(" ")[2].strip(".\n")
    jobs = {job.name: job for job in platform.client.jobs.list(workflow_id=workflow_id)}
    states = {name: platform.ended(job).state for name, job in jobs.items()}
    assert states == {"prepare": "succeeded", "train": "failed", "report": "cancelled", "clean": "succeeded"}
    prepare, train = (platform.client.jobs.get(jobs[name]) for name in ("prepare", "train"))
    assert prepare.ended_at
    assert train.started_at
    assert prepare.ended_at <= train.started_at


def test_a_circle_is_refused_by_its_names(platform: Platform) -> None:
    with pytest.raises(Invalid, match=r"a -> b -> a|b -> a -> b"):
        platform.client.workflows.submit(
            "x", [{"name": "a", "command": ["x"], "after": ["b"]}, {"name": "b", "command": ["x"], "after": ["a"]}]
        )


def test_only_the_exit_code_that_was_named_is_tried_again(platform: Platform) -> None:
    script = 'test "$TRELLIS_ATTEMPT" -ge 2 && exit 9; exit 75'
    job = platform.run_job(
        "/bin/sh", "-c", script, retries={"limit": 5, "backoff_s": 0, "jitter_percent": 50, "exit_codes": [75]}
    )
    assert (job.state, job.exit_code, job.attempt) == ("failed", 9, 2)


def test_a_checkpointable_job_saves_its_state_and_goes_on_on_the_other_node(platform: Platform) -> None:
    # Some shells say that what they waited for was ended, too.
    script = "exec 2>/dev/null; trap 'echo saved; exit 0' TERM; echo begun; while :; do sleep 0.05; done"
    job = platform.client.jobs.submit(command=["/bin/sh", "-c", script], checkpointable=True, grace=20)
    platform.wait_line(job, "begun")
    here = platform.client.jobs.get(job, verbose=True).attempts[0].replicas[0].node
    there = ({"node-1", "node-2"} - {here}).pop()
    assert platform.run("migrate", job.id, "--to", there).stdout == f"Job {job.id} saves its state and moves.\n"
    wait_until(lambda: platform.client.jobs.get(job).attempt == 2, 60, "the next attempt")
    moved = platform.wait_state(job, "running")
    assert [one.replicas[0].node for one in moved.attempts] == [there, here]
    assert moved.attempts[1].cause == "migrated"
    wait_until(lambda: platform.lines(job) == ["begun", "saved", "begun"], 30, "its lines")
    platform.client.jobs.cancel(job, force=True)
    assert platform.ended(job).state == "cancelled"


def test_a_job_is_warned_of_its_time_limit(platform: Platform) -> None:
    script = "trap 'echo warned' USR1; echo up; while :; do sleep 0.05; done"
    job = platform.run_job("/bin/sh", "-c", script, time_limit=3, warn_signal="USR1", warn_before=2, grace=0)
    assert (job.state, platform.lines(job)) == ("timed_out", ["up", "warned"])


def test_debug_mode_tells_more_in_the_log_alone(platform: Platform) -> None:
    job = platform.run_job("/bin/echo", "hello", debug=True)
    told = [line.text for line in platform.log(job) if line.stream == "system"]
    assert any(line.startswith("debug: isolation") for line in told)
    assert platform.lines(job) == ["hello"]
