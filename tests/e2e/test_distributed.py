"""Four processes on two nodes train together: evicted in the middle, they end as those that were left in peace."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.platform import Platform, running
from tests.support.services import wait_until
from trellis.answers import Job

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
needs_torch = pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed; it is no dependency")
BY = ["train_distributed.py", pytest.param("train_torch.py", marks=needs_torch)]
SIZE = 4


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with running(nodes=2, TRELLIS_CPUS="2", TRELLIS_HEARTBEAT_S="1") as found:
        policy = {"preemption": {"grace_period": 20, "min_run_time": 0}, "restart_cost": 0}
        key = {"Authorization": f"Bearer {found.login['api_key']}"}
        assert httpx.put(f"{found.url}/api/v1/scheduling/policy", json=policy, headers=key).status_code == 200
        yield found


def train(platform: Platform, example: str, *arguments: str, **changes: Any) -> Job:
    file = EXAMPLES / example
    body: dict[str, Any] = {"script": file.read_text(), "script_name": example, "arguments": list(arguments)}
    body |= {"checkpoint": {"every": "1h"}, "resources": {"cpus": 1, "memory": "1GiB"}, "network": "host", "grace": 10}
    if not changes.keys() & {"max_replicas"}:
        body["replicas"] = SIZE
    job = platform.client.jobs.submit(**{**body, **changes})
    assert isinstance(job, Job)
    return job


def lines(platform: Platform, job: Job, word: str) -> list[str]:
    return [line.text for line in platform.client.jobs.logs(job) if line.text.startswith(word)]


def steps(platform: Platform, job: Job) -> list[int]:
    return [one.step or 0 for one in platform.client.checkpoints.list(job)]


@pytest.mark.parametrize("example", BY)
def test_a_gang_on_two_nodes_that_is_evicted_in_the_middle_ends_with_the_same_loss(
    platform: Platform, example: str
) -> None:
    undisturbed = train(platform, example, "--epochs", "40")
    assert platform.client.jobs.wait(undisturbed, timeout=120).state == "succeeded"
    shown = platform.client.jobs.get(undisturbed, verbose=True).attempts[0].replicas
    assert sorted(one.node or "" for one in shown) == [one.node for one in shown]  # neighbours in rank share a node
    assert len({one.node for one in shown}) == 2
    assert sorted(lines(platform, undisturbed, "starting")) == [
        f"starting at epoch 0 as rank {rank} of {SIZE}" for rank in range(SIZE)
    ]

    job = train(platform, example, "--epochs", "40", "--every", "10000", "--pause", "0.25")
    wait_until(lambda: len(lines(platform, job, "starting")) == SIZE, 60, "all of them to begin")
    assert steps(platform, job) == []
    urgent = platform.client.jobs.submit(
        command=["true"], replicas=SIZE, resources={"cpus": 1, "memory": "64MiB"}, priority=900
    )
    assert platform.client.jobs.wait(urgent, timeout=90).state == "succeeded"
    ended = platform.client.jobs.wait(job, timeout=120)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    (saved,) = steps(platform, job)
    assert 0 < saved < 40
    assert sorted(lines(platform, job, f"starting at epoch {saved} ")) == [
        f"starting at epoch {saved} as rank {rank} of {SIZE}" for rank in range(SIZE)
    ]
    assert lines(platform, job, "ended") == lines(platform, undisturbed, "ended")


@needs_torch
def test_torchrun_finds_the_others_by_itself(platform: Platform) -> None:
    training = (EXAMPLES / "train_torch.py").read_text()
    script = f"cat > train.py <<'END'\n{training}\nEND\nexec python -m torch.distributed.run train.py --epochs 5\n"
    job = train(platform, "train_distributed.py", script=script, script_name="torchrun", arguments=[])
    ended = platform.client.jobs.wait(job, timeout=120)
    assert ended.state == "succeeded", platform.client.jobs.get(job).message
    assert sorted(lines(platform, job, "starting")) == [
        f"starting at epoch 0 as rank {rank} of {SIZE}" for rank in range(SIZE)
    ]


def test_one_replica_that_fails_ends_the_others_and_is_named(platform: Platform) -> None:
    script = "[ $RANK = 2 ] && exit 7; sleep 600"
    fails = platform.client.jobs.submit(
        command=["/bin/sh", "-c", script], replicas=SIZE, resources={"cpus": 1, "memory": "64MiB"}, grace=2
    )
    ended = platform.client.jobs.wait(fails, timeout=60)
    node = platform.client.jobs.get(fails, verbose=True).attempts[0].replicas[2].node
    assert (ended.state, ended.exit_code, ended.message) == (
        "failed", 7, f"replica 2 on {node}: ended with exit code 7",
    )  # fmt: skip


def test_a_gang_goes_on_with_one_replica_less_and_grows_again_into_what_becomes_free(platform: Platform) -> None:
    holder = platform.client.jobs.submit(
        command=["sleep", "600"], resources={"cpus": 1, "memory": "64MiB"}, preemptible=False
    )
    platform.wait_state(holder, "running")
    job = train(
        platform, "train_distributed.py", "--epochs", "150", "--pause", "0.1", min_replicas=2, max_replicas=4,
        on_replica_failure="shrink",
    )  # fmt: skip
    wait_until(lambda: len(lines(platform, job, "starting")) == 3, 60, "three of them to begin")
    wait_until(lambda: steps(platform, job), 30, "a checkpoint")
    platform.client.jobs.cancel(holder)  # it grows: all begin again, four of them
    wait_until(lambda: len(lines(platform, job, "starting")) == 7, 60, "four of them to begin")
    assert lines(platform, job, "starting")[-1].endswith("of 4")
    ended = platform.client.jobs.wait(job, timeout=120)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    later = {line.split()[3] for line in lines(platform, job, "starting") if line.endswith("of 4")}
    assert len(later) == 1
    assert int(later.pop()) > 0
