import signal
from collections.abc import Iterator, Sequence
from functools import partial

import httpx
import psutil
import pytest
from redis import Redis

from tests.support.platform import Platform, running
from tests.support.services import wait_until
from tests.support.witness import BASIC, Witness
from trellis.answers import Job


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
    ended = [platform.client.jobs.get(job) for job in jobs]
    assert [(job.state, job.attempt) for job in ended] == [("succeeded", 1)] * len(jobs)
    once = {job.name: 1 for job in jobs}
    assert witness.counts("start") == once
    assert witness.counts("end") == once


def test_a_broker_that_forgets_everything_costs_no_job_and_doubles_none(platform: Platform, witness: Witness) -> None:
    jobs = submit(platform, witness, 200, 0.1)
    redis = Redis.from_url(platform.broker_url)

    def ended(at_least: int) -> bool:
        return witness.counts("end").total() >= at_least

    for done in (1, 60, 120):
        wait_until(partial(ended, done), 60, f"{done} jobs to have ended")
        assert not ended(200)
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


def test_while_the_database_is_gone_the_api_says_so_and_the_jobs_run_on(platform: Platform, witness: Witness) -> None:
    jobs = submit(platform, witness, 4, 3.0)
    wait_until(lambda: witness.counts("start").total() == 4, 30, "the jobs to run")
    answers = []
    with platform.unattended():  # nobody starts it again
        platform.kill("postgres")
        with httpx.Client(
            base_url=f"{platform.url}/api/v1",
            headers={"Authorization": f"Bearer {platform.login['api_key']}"},
            timeout=20,
        ) as api:
            for _ in range(5):
                answers += [api.get("/jobs"), api.get(f"/jobs/{jobs[0].id}"), api.get("/auth/whoami")]
                answers += [api.post("/jobs", json={"command": ["/bin/true"]})]
                answers += [api.post("/auth/token", json={"username": "admin", "password": platform.password})]
        wait_until(lambda: witness.counts("end").total() == 4, 30, "the jobs to end by themselves")
    assert {answer.status_code for answer in answers} == {503}
    assert {answer.json()["code"] for answer in answers} == {"unavailable"}
    assert {answer.headers["content-type"] for answer in answers} == {"application/problem+json"}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers)
    assert_each_ran_once(platform, witness, jobs)


def test_two_beats_and_two_control_workers_do_no_harm(platform: Platform, witness: Witness) -> None:
    platform.twin("beat", "beat-2", "Starting")
    platform.twin("control", "control-2", " ready.")
    jobs = submit(platform, witness, 100, 0.1)
    wait_until(lambda: witness.counts("end"), 30, "a job to have ended")
    platform.replace("control")
    assert_each_ran_once(platform, witness, jobs)


def test_with_everything_killed_at_once_no_job_is_lost_or_doubled(platform: Platform, witness: Witness) -> None:
    jobs = submit(platform, witness, 40, 0.5)
    wait_until(lambda: witness.counts("start"), 30, "a job to run")
    before = platform.pids()
    for pid in before.values():
        psutil.Process(pid).send_signal(signal.SIGKILL)
    for name, pid in before.items():
        platform.wait_running(name, not_pid=pid)
    assert_each_ran_once(platform, witness, jobs)
