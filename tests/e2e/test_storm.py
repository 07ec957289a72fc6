"""Everything that can be killed is, again and again, while a thousand jobs run; the jobs themselves are the judge."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from tests.support.platform import Platform, running
from tests.support.services import wait_until
from tests.support.witness import BASIC, Witness
from trellis.vocabulary import ENDED_JOB_STATES, JobState

JOBS = 1000
EVERY_S = 3.0
SEED = 20
SERVICES = ("api", "control", "beat", "postgres", "valkey", "node-1", "node-2")
SUPERVISOR = "a supervisor"
WITHIN_S = 300.0
UNENDED = [state.value for state in JobState if state not in ENDED_JOB_STATES]


def supervisors(platform: Platform) -> list[psutil.Process]:
    """The processes that watch over replicas, on all nodes of the platform, and those that start them."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
        except psutil.Error:
            continue
        if "agent.launcher" in words and any(str(platform.home) in word for word in words):
            found.append(process)
    return found


@contextmanager
def storm(platform: Platform, chance: random.Random) -> Iterator[Counter[str]]:
    """While this lasts, something of the platform is killed every few seconds; what, and how often."""
    killed: Counter[str] = Counter()
    over = threading.Event()
    order = [SUPERVISOR, *SERVICES]
    watched: set[psutil.Process] = set()

    def strike() -> None:
        while not over.wait(EVERY_S):
            # One that was there at the last blow, too: a process just forked to become a job is that job's own.
            before = watched.copy()
            watched.clear()
            watched.update(supervisors(platform))
            lasting = sorted(watched & before, key=lambda one: one.pid)
            if killed.total() % len(order) == 0:
                chance.shuffle(order)
            name = order[killed.total() % len(order)]
            if name == SUPERVISOR:
                process = chance.choice(lasting) if lasting else None
            else:
                pid = platform.entry(name).pid  # none while its keeper still mends the last blow
                process = psutil.Process(pid) if pid and psutil.pid_exists(pid) else None
            if process is not None:
                process.kill()
            killed[name] += 1

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()


@pytest.mark.timeout(420)
def test_a_storm_of_kills_loses_no_job_runs_none_twice_in_one_attempt_and_shares_no_device() -> None:
    with running(nodes=2, profile="h100x8", TRELLIS_HEARTBEAT_S="1", **BASIC) as platform:
        witness = Witness(platform.folder / "storm.witness")
        witness.prepare()
        locks = platform.folder / "devices"
        locks.mkdir()
        locks.chmod(0o777)
        bodies = [
            {"name": f"job-{number}", "command": witness.guarding(f"job-{number}", locks, 0.05),
             "resources": {"cpus": 0.5, "gpus": 1}}
            for number in range(JOBS)
        ]  # fmt: skip
        with storm(platform, random.Random(SEED)) as killed:
            jobs = platform.client.jobs
            for first in range(0, JOBS, 100):
                last = jobs.submit_batch(bodies[first : first + 100])[-1]  # type: ignore[arg-type]
            jobs.wait(last, timeout=WITHIN_S)
            wait_until(lambda: not any(jobs.list(state=UNENDED, limit=1)), WITHIN_S, "all jobs to have ended")
        assert killed.total() >= 5
        ended = {job.name: job for job in platform.client.jobs.list(limit=500)}
        assert [
            (job.name, job.state, job.cause, job.message) for job in ended.values() if job.state != "succeeded"
        ] == []
        marks = witness.marks()
        assert {mark.name for mark in marks if mark.verb == "end"} == set(ended)
        starts = Counter((mark.name, mark.attempt, mark.fence) for mark in marks if mark.verb == "start")
        assert set(starts.values()) == {1}
        assert not [mark for mark in marks if mark.verb == "shared"]
