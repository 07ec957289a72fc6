import signal
from concurrent.futures import ThreadPoolExecutor

import psutil

from tests.support.platform import Platform

COUNT = 150
NUMBERED = f"echo pid $$; for n in $(seq {COUNT}); do echo line $n; echo err $n >&2; sleep 0.03; done; exit 7"


def words_of(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.NoSuchProcess:
        return []


def test_a_job_outlives_its_worker_no_line_is_lost_or_doubled_and_it_ran_once(platform: Platform) -> None:
    job = platform.client.jobs.submit(command=["/bin/sh", "-c", NUMBERED])
    platform.wait_line(job, "line 10")
    shell = [process for process in platform.processes_of(job) if "seq" in " ".join(words_of(process))]
    assert shell
    platform.replace("node-1")
    assert all(process.is_running() for process in shell)
    ended = platform.ended(job)
    assert (ended.state, ended.exit_code, ended.attempt, len(ended.attempts)) == ("failed", 7, 1, 1)
    log = platform.log(job)
    assert [line.text for line in log if line.stream == "stdout"][1:] == [f"line {n + 1}" for n in range(COUNT)]
    assert [line.text for line in log if line.stream == "stderr"] == [f"err {n + 1}" for n in range(COUNT)]


def test_a_job_that_ends_while_its_worker_is_dead_is_told_by_the_next_one(platform: Platform) -> None:
    job = platform.client.jobs.submit(command=["/bin/sh", "-c", "echo begun; sleep 0.5; echo done; exit 3"])
    platform.wait_line(job, "begun")
    platform.replace("node-1")
    ended = platform.ended(job)
    assert (ended.state, ended.exit_code, ended.attempt) == ("failed", 3, 1)
    assert platform.lines(job) == ["begun", "done"]


def test_a_log_followed_across_the_death_of_the_api_has_every_line_once(platform: Platform) -> None:
    job = platform.client.jobs.submit(command=["/bin/sh", "-c", NUMBERED])
    with ThreadPoolExecutor() as pool:
        followed = pool.submit(
            lambda: [line.text for line in platform.client.jobs.logs(job, follow=True, stream="stdout")]
        )
        platform.wait_line(job, "line 20")
        platform.replace("api")
        texts = followed.result(60)
    assert texts[1:] == [f"line {n + 1}" for n in range(COUNT)]
    assert platform.client.jobs.get(job).exit_code == 7


def test_a_worker_that_is_asked_to_stop_leaves_its_job_running(platform: Platform) -> None:
    job = platform.client.jobs.submit(command=["/bin/sh", "-c", "echo begun; sleep 4; echo done"])
    platform.wait_line(job, "begun")
    before = platform.pid("node-1")
    platform.signal("node-1", signal.SIGTERM)
    platform.wait_running("node-1", not_pid=before)
    assert platform.ended(job).attempt == 1
    assert platform.lines(job) == ["begun", "done"]
