"""Jobs that are suspended on a whole platform, with real processes: where they stand, who gets their room, who dies."""

import signal
from collections.abc import Iterator

import psutil
import pytest

from tests.support.platform import Platform, running
from tests.support.services import wait_until
from trellis.answers import Job
from trellis.submission import ResourcesBody

COUNTS = ["/bin/sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"]
WHOLE: ResourcesBody = {"cpus": 1, "memory": "64MiB", "gpus": 1}


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with running(profile="gpu_type=A100,gpus=1,cpu_cores=4,memory_gb=8") as found:
        yield found


@pytest.fixture(autouse=True)
def _leave_nothing(platform: Platform) -> Iterator[None]:
    yield
    for job in platform.client.jobs.list(state=["queued", "running", "suspended"]):
        platform.client.jobs.cancel(job, force=True)
        platform.ended(job)


def count(platform: Platform, job: Job) -> int:
    return len(platform.lines(job))


def begin(platform: Platform) -> Job:
    job = platform.client.jobs.submit(command=COUNTS, resources=WHOLE)
    wait_until(lambda: count(platform, job) > 3, 60, f"{job.id} to count")
    return job


def park(platform: Platform, job: Job) -> Job:
    platform.client.jobs.suspend(job, reason="a test")
    return platform.wait_state(job, "suspended")


def device_in_use(platform: Platform) -> list[int]:
    (node,) = platform.client.nodes.list()
    return [gpu.milli_used for gpu in node.gpus]


def test_a_suspended_job_goes_on_counting_where_it_was(platform: Platform) -> None:
    job = begin(platform)
    parked = park(platform, job)
    assert {one.status() for one in platform.processes_of(job)} == {psutil.STATUS_STOPPED}
    assert device_in_use(platform) == [0]
    first = min(one.pid for one in platform.processes_of(job))
    assert platform.run("resume", job.id).stdout == f"Job {job.id} is queued.\n"
    heard = count(platform, job)
    wait_until(lambda: count(platform, job) > heard + 5, 60, "it to count on")
    again = platform.client.jobs.get(job, verbose=True)
    assert (again.state, again.attempt, again.started_at) == ("running", 1, parked.started_at)
    assert min(one.pid for one in platform.processes_of(job)) == first
    lines = platform.lines(job)
    assert lines == [str(number) for number in range(1, len(lines) + 1)]
    platform.client.jobs.cancel(job, force=True)
    assert platform.ended(job).state == "cancelled"


def test_who_gets_the_device_of_a_suspended_job_starts_when_that_is_gone(platform: Platform) -> None:
    job = begin(platform)
    park(platform, job)
    left = platform.processes_of(job)
    other = begin(platform)
    assert not [one for one in left if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
    assert platform.client.jobs.get(job).state == "suspended"
    platform.client.jobs.resume(job)
    platform.wait_state(job, "queued")
    platform.client.jobs.cancel(other, force=True)
    again = platform.wait_state(job, "running")
    assert (again.attempt, [one.cause for one in again.attempts]) == (2, [None, "suspended"])


def test_a_suspended_job_outlives_its_nodes_worker_and_goes_on(platform: Platform) -> None:
    job = begin(platform)
    park(platform, job)
    first = min(one.pid for one in platform.processes_of(job))
    platform.replace("node-1")
    platform.client.jobs.resume(job)
    heard = count(platform, job)
    wait_until(lambda: count(platform, job) > heard + 5, 60, "it to count on")
    assert platform.client.jobs.get(job).attempt == 1
    assert min(one.pid for one in platform.processes_of(job)) == first


def test_a_suspended_job_whose_processes_are_killed_begins_anew_when_resumed(platform: Platform) -> None:
    job = begin(platform)
    park(platform, job)
    supervisor = next(
        one for one in platform.processes_of(job)[0].parents() if "agent.launcher" in " ".join(one.cmdline())
    )
    supervisor.send_signal(signal.SIGKILL)
    wait_until(
        lambda: [one.state for one in platform.client.jobs.get(job, verbose=True).attempts] == ["lost"], 60, "its end"
    )
    assert platform.client.jobs.get(job).state == "suspended"
    platform.client.jobs.resume(job)
    assert platform.wait_state(job, "running").attempt == 2


def test_a_job_suspended_many_times_loses_and_doubles_nothing(platform: Platform) -> None:
    job = begin(platform)
    for _ in range(5):
        park(platform, job)
        platform.client.jobs.resume(job)
        platform.wait_state(job, "running")
    lines = platform.lines(job)
    assert lines == [str(number) for number in range(1, len(lines) + 1)]
    platform.client.jobs.cancel(job, force=True)
    assert platform.ended(job).attempt == 1
