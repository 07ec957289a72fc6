import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from tests.support.platform import Platform, a_platform
from tests.support.services import wait_until

TWICE = 'echo "attempt $TRELLIS_ATTEMPT"; test "$TRELLIS_ATTEMPT" -ge 2 || sleep 600'


@pytest.fixture
def fresh() -> Iterator[Platform]:
    with a_platform() as found:
        yield found


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def of_home(platform: Platform) -> list[psutil.Process]:
    """Every process, whoever's child it is by now, that bears the platform's folder in its words or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            words = [*process.cmdline(), *process.environ().values()]
        except (psutil.NoSuchProcess, psutil.ZombieProcess, psutil.AccessDenied):
            continue
        if any(str(platform.folder) in word for word in words):
            found.append(process)
    return found


def test_ctrl_c_ends_all_it_started_and_the_next_up_takes_up_the_jobs_again(fresh: Platform) -> None:
    fresh.start()
    job = fresh.client.jobs.submit(command=["/bin/sh", "-c", TWICE])
    waiting = fresh.client.jobs.submit(command=["/bin/true"], depends_on=[{"job": job.id, "kind": "after_success"}])
    fresh.wait_line(job, "attempt 1")
    jobs_own = fresh.processes_of(job)
    supervisors = [process for process in of_home(fresh) if "agent.launcher" in process.cmdline()]
    everything = {process for pid in fresh.pids().values() for process in family(pid)} | {*jobs_own, *supervisors}
    assert len(supervisors) >= 2  # the launcher, and the job's
    assert fresh.stop(signal.SIGINT) == 0
    assert fresh.said.rstrip().endswith("Stopped.")
    assert [process for process in everything if process.is_running() and process.status() != "zombie"] == []
    assert of_home(fresh) == []

    fresh.start()
    ended = fresh.ended(job)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    assert {attempt.number: attempt.cause for attempt in ended.attempts} == {1: "node_stopped", 2: None}
    assert fresh.lines(job) == ["attempt 1", "attempt 2"]
    assert fresh.ended(waiting).state == "succeeded"


def test_after_a_kill_of_everything_the_next_up_finishes_what_was_accepted(fresh: Platform) -> None:
    fresh.start()
    job = fresh.client.jobs.submit(command=["/bin/sh", "-c", TWICE])
    queued = fresh.client.jobs.submit(command=["/bin/true"], depends_on=[{"job": job.id, "kind": "after_success"}])
    fresh.wait_line(job, "attempt 1")
    doomed = {*of_home(fresh), *(process for pid in fresh.pids().values() for process in family(pid))}
    for process in sorted(doomed, key=lambda one: one.pid):  # as when the machine loses power; `up` is the eldest
        with suppress(psutil.NoSuchProcess):
            process.kill()
    wait_until(lambda: not of_home(fresh), 30, "everything to be dead")
    fresh.start()
    ended = fresh.ended(job)
    assert (ended.state, ended.attempt) == ("succeeded", 2)
    assert fresh.ended(queued).state == "succeeded"


@pytest.mark.parametrize("option", ["--port", "--flower-port"])
def test_a_taken_port_is_a_sentence_that_says_who_has_it_and_what_to_do(fresh: Platform, option: str) -> None:
    port = fresh.port if option == "--port" else fresh.flower_port
    argv = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    holder = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: psutil.Process(holder.pid).net_connections(), 30, "the port to be taken")
        process = fresh.begin()
        assert process.wait(30) == 1
    finally:
        holder.kill()
        holder.wait()
    assert f"Port {port} is taken by python" in fresh.said
    assert f"(pid {holder.pid})" in fresh.said
    assert option in fresh.said
    assert "Traceback" not in fresh.said
