from collections.abc import Iterator, Sequence

import httpx
import psutil
import pytest
from redis import Redis

from tests.support.platform import Platform, running
from tests.support.services import wait_until
from tests.support.witness import BASIC, Witness
from trellis.answers import Job

pytestmark = pytest.mark.xdist_group("kills")


@pytest.fixture(scope="module")
def platform() -> Iterator[Platform]:
    with running(nodes=2, TRELLIS_CPUS="8", TRELLIS_HEARTBEAT_S="1", **BASIC) as found:
        yield found


@pytest.fixture
def witness(platform: Platform, request: pytest.FixtureRequest) -> Witness:
    found = Witness(platform.folder / f"{request.node.name}.witness")
    found.prepare()
    return found


def submit(platform: Platform, witness: Witness, count: int, seconds: float, prefix: str = "job") -> list[Job]:
    names = [f"{prefix}-{number}" for number in range(count)]
    bodies = [{"name": name, "command": witness.brief(name, seconds), "resources": {"cpus": 0.5}} for name in names]
    return list(platform.client.jobs.submit_batch(bodies))  # type: ignore[arg-type]  # a TypedDict, spelled as a dict


def assert_each_ran_once(platform: Platform, witness: Witness, jobs: Sequence[Job], within_s: float = 60.0) -> None:
    for job in jobs:
        platform.client.jobs.wait(job, timeout=within_s)
    seen = {job.id: job for job in platform.client.jobs.list(submitted_after=jobs[0].submitted_at, limit=500)}
    ended = [seen[job.id] for job in jobs]
    assert [(job.state, job.attempt) for job in ended] == [("succeeded", 1)] * len(jobs)
    once = {job.name: 1 for job in jobs}
    assert witness.counts("start") == once
    assert witness.counts("end") == once


def test_a_broker_that_forgets_everything_costs_no_job_and_doubles_none(platform: Platform, witness: Witness) -> None:
    jobs = submit(platform, witness, 200, 0.1)
    redis = Redis.from_url(platform.broker_url)
    for done in (1, 60, 120):
        wait_until(lambda many=done: sum(witness.counts("end").values()) >= many, 60, f"{done} jobs to have ended")
        assert sum(witness.counts("end").values()) < 200
        redis.flushall()
    redis.close()
    assert_each_ran_once(platform, witness, jobs)


def test_without_a_broker_submits_are_accepted_and_run_when_it_is_back(platform: Platform, witness: Witness) -> None:
    broker = psutil.Process(platform.pid("valkey"))
    broker.suspend()
    try:
        jobs = submit(platform, witness, 5, 0.1)
        (direct,) = [
            httpx.post(
                f"{platform.url}/api/v1/jobs",
                json={"name": "raw", "command": witness.brief("raw")},
                headers={"Authorization": f"Bearer {platform.login['api_key']}"},
            )
        ]
        assert direct.status_code == 201
    finally:
        broker.kill()  # stopped for good; its keeper starts another
    platform.wait_running("valkey", not_pid=broker.pid)
    assert_each_ran_once(platform, witness, [*jobs, platform.client.jobs.get(direct.json()["id"])])


@pytest.mark.parametrize("name", ["api", "control", "beat", "postgres"])
def test_a_killed_part_loses_no_accepted_job_and_doubles_none(platform: Platform, witness: Witness, name: str) -> None:
    running_jobs = submit(platform, witness, 20, 1.5, "early")
    wait_until(lambda: witness.counts("start"), 30, "a job to run")
    before = platform.pid(name)
    platform.kill(name)
    late = submit(platform, witness, 10, 0.0, "late")
    platform.wait_running(name, not_pid=before)
    assert_each_ran_once(platform, witness, [*running_jobs, *late])
