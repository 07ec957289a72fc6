"""A training that is killed or evicted in the middle ends as one that was left in peace."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.platform import Platform, running
from tests.support.services import wait_until
from trellis.answers import Job
from trellis.submission import ResourcesBody

TRAINING = Path(__file__).resolve().parents[2] / "examples/train_checkpointed.py"


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with running(nodes=2, TRELLIS_CPUS="4", TRELLIS_HEARTBEAT_S="1") as found:
        yield found


def train(platform: Platform, *arguments: str, **changes: Any) -> Job:
    body: dict[str, Any] = {"script": TRAINING.read_text(), "script_name": TRAINING.name, "arguments": list(arguments)}
    body |= {"checkpoint": {"every": "1h"}, "resources": {"cpus": 1}, "grace": 10}
    job = platform.client.jobs.submit(**{**body, **changes})
    assert isinstance(job, Job)
    return job


def lines(platform: Platform, job: Job, word: str) -> list[str]:
    return [line.text for line in platform.client.jobs.logs(job) if line.text.startswith(word)]


def steps(platform: Platform, job: Job) -> list[int]:
    return [one.step or 0 for one in platform.client.checkpoints.list(job)]


@pytest.fixture(scope="module")
def undisturbed(platform: Platform) -> str:
    job = train(platform, "--epochs", "60", checkpoint={"every": "1h"})
    assert platform.client.jobs.wait(job, timeout=60).state == "succeeded"
    (end,) = lines(platform, job, "ended")
    return end


def test_a_training_whose_supervisor_is_killed_goes_on_and_ends_the_same(platform: Platform, undisturbed: str) -> None:
    job = train(platform, "--epochs", "60", "--pause", "0.1")
    wait_until(lambda: max(steps(platform, job), default=0) >= 20, 60, "a checkpoint of step 20")
    platform.kill_supervisor(job)
    ended = platform.client.jobs.wait(job, timeout=90)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    assert lines(platform, job, "ended") == [undisturbed]
    first, second = lines(platform, job, "starting")
    assert first == "starting at epoch 0"
    assert int(second.rsplit(" ", 1)[1]) >= 20
    kinds = [event.kind for event in platform.client.jobs.events(job)]
    assert "checkpoint.saved" in kinds
    assert "checkpoint.restored" in kinds


def test_a_checkpoint_is_made_on_demand(platform: Platform) -> None:
    job = train(platform, "--epochs", "600", "--every", "10000", "--pause", "0.1")
    wait_until(lambda: platform.client.jobs.get(job).state == "running", 30, "it to run")
    wait_until(lambda: lines(platform, job, "starting"), 30, "its first line")
    assert steps(platform, job) == []
    platform.client.checkpoints.ask(job)
    wait_until(lambda: steps(platform, job), 30, "a checkpoint")
    (saved,) = platform.client.checkpoints.list(job)
    assert saved.reason == "asked"
    assert re.fullmatch(r"\d+", str(saved.step))
    platform.client.jobs.cancel(job)


def test_an_evicted_training_saves_first_and_ends_the_same(platform: Platform, undisturbed: str) -> None:
    policy = {"preemption": {"grace_period": 20, "min_run_time": 0}}
    key = {"Authorization": f"Bearer {platform.login['api_key']}"}
    assert httpx.put(f"{platform.url}/api/v1/scheduling/policy", json=policy, headers=key).status_code == 200
    whole: ResourcesBody = {"cpus": 4, "memory": "64MiB"}
    other = platform.client.jobs.submit(command=["sleep", "600"], resources=whole, preemptible=False)
    platform.wait_state(other, "running")
    # It saves when it is asked to, and at no other time.
    job = train(platform, "--epochs", "60", "--every", "10000", "--pause", "0.1", resources=whole)
    wait_until(lambda: lines(platform, job, "starting"), 30, "its first line")
    assert steps(platform, job) == []
    urgent = platform.client.jobs.submit(command=["true"], resources=whole, priority=900)
    assert platform.client.jobs.wait(urgent, timeout=60).state == "succeeded"
    assert len(steps(platform, job)) == 1
    ended = platform.client.jobs.wait(job, timeout=90)
    assert ended.state == "succeeded"
    assert lines(platform, job, "ended") == [undisturbed]
    first, second = lines(platform, job, "starting")
    assert (first, second) == ("starting at epoch 0", f"starting at epoch {steps(platform, job)[-1]}")
    platform.client.jobs.cancel(other)


def test_a_training_goes_on_from_a_checkpoint_of_another_job(platform: Platform, undisturbed: str) -> None:
    job = train(platform, "--epochs", "30")
    assert platform.client.jobs.wait(job, timeout=60).state == "succeeded"
    newest, *_ = platform.client.checkpoints.list(job)
    fork = train(platform, "--epochs", "60", from_checkpoint=newest.id)
    assert platform.client.jobs.wait(fork, timeout=60).state == "succeeded"
    assert lines(platform, fork, "starting") == ["starting at epoch 30"]
    assert lines(platform, fork, "ended") == [undisturbed]


def test_a_training_on_a_node_that_is_drained_moves_and_ends_the_same_and_the_node_is_quiet(
    platform: Platform, undisturbed: str
) -> None:
    # It saves when it is asked to, and at no other time.
    job = train(platform, "--epochs", "60", "--every", "10000", "--pause", "0.4")
    wait_until(lambda: lines(platform, job, "starting"), 30, "its first line")
    here = platform.client.jobs.get(job, verbose=True).attempts[0].replicas[0].node
    assert here is not None
    done = platform.run("drain", here, "--reason", "a new fan", "--wait")
    assert f"Node {here} is drained, 0 jobs left" in done.stdout, done.stdout + done.stderr
    other = platform.run_job("true")
    ended = platform.ended(job, within_s=90)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    assert lines(platform, job, "ended") == [undisturbed]
    assert here not in {one.attempts[0].replicas[0].node for one in (ended, other)}
    shown = platform.run("node-show", here).stdout
    assert "is drained: a new fan" in shown
    assert "node.drained" in shown
    assert platform.run("undrain", here).stdout == f"Node {here} is ready.\n"
