"""Jobs that do all a job can do to its node: each ends with a clear cause, and the job beside them notices nothing."""

import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import pytest

from tests.support.platform import Platform
from tests.support.services import wait_until
from trellis.answers import Job

PRELUDE = "import ctypes, os, signal, subprocess, sys, time\n"
NEIGHBOUR = (
    PRELUDE
    + """
ends = time.monotonic() + 600
last = time.monotonic()
while time.monotonic() < ends and not os.path.exists("stop"):
    time.sleep(0.05)
    now = time.monotonic()
    print("late" if now - last > 20 else "fine", flush=True)
    last = now
"""
)


class Unruly(NamedTuple):
    """What a job does, and how it is to end."""

    program: str
    state: str
    cause: str | None
    words: str = ""
    body: Mapping[str, Any] = MappingProxyType({})


ESCAPE = """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.closerange(0, 64)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        time.sleep(600)
    os._exit(0)
os.wait()
"""
DEAF = """
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(600)
"""
HOMELESS = """
import shutil
here = os.getcwd()
shutil.rmtree(here, ignore_errors=True)
print("still here", flush=True)
"""
LINKS = """
for name, aim in (("passwd", "/etc/passwd"), ("up", ".."), ("root", "/"), ("loop", "loop")):
    os.symlink(aim, os.path.join(os.environ["TRELLIS_ARTIFACTS_DIR"], name))
open(os.path.join(os.environ["TRELLIS_ARTIFACTS_DIR"], "true.txt"), "w").write("mine")
"""
UNRULY = {
    "eats all memory": Unruly("x = bytearray(900 << 20)", "failed", "out_of_memory", "memory",
                              {"resources": {"cpus": 0.5, "memory": "256MiB"}}),
    "forks without end": Unruly(
        'os.execv("/bin/sh", ["sh", "-c", "while :; do sleep 600 & done"])', "failed", "exit_code", "was refused a process",
    ),
    "is deaf to every signal": Unruly(DEAF, "timed_out", "time_limit", "time limit", {"time_limit": 1, "grace": 1}),
    "leaves a daemon": Unruly(ESCAPE, "succeeded", None),
    "removes its own folder": Unruly(HOMELESS, "succeeded", None),
    "plants symbolic links": Unruly(LINKS, "succeeded", None),
}  # fmt: skip


@pytest.fixture(scope="module")
def neighbour(platform: Platform) -> Iterator[Job]:
    job = platform.client.jobs.submit(command=[sys.executable, "-c", NEIGHBOUR], resources={"cpus": 0.1})
    platform.wait_state(job, "running")
    yield job
    assert platform.client.jobs.get(job).state == "running"
    platform.client.jobs.cancel(job)
    ended = platform.ended(job)
    assert "late" not in platform.lines(ended)


@pytest.mark.parametrize("what", UNRULY)
def test_a_job_that(platform: Platform, neighbour: Job, what: str) -> None:
    unruly = UNRULY[what]
    body = {"resources": {"cpus": 0.5}, **unruly.body}
    job = platform.run_job(sys.executable, "-c", PRELUDE + unruly.program, name=what.replace(" ", "-"), **body)
    assert (job.state, job.cause) == (unruly.state, unruly.cause)
    (told,) = [event for event in platform.client.jobs.events(job) if event.kind == f"job.{unruly.state}"]
    assert unruly.words in (told.reason or "")
    wait_until(lambda: not platform.processes_of(job), 10, "its processes to be gone")
