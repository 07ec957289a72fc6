"""One job at a time on an idle cluster: how long until it starts, until it is seen, until it is gone."""

import os
import random
import select
import time
from contextlib import suppress
from pathlib import Path

from benchmarks.bench import Bench
from benchmarks.stack import BenchError, Stack
from trellis import Client

WARM, SUBMITS, CANCELS = 3, 60, 25
WITHIN_S = 20.0
SEED = 7


def measure(bench: Bench) -> None:
    """Submit to the job's own first act and to the first line seen; cancel to process gone."""
    random_pause = random.Random(SEED)
    with bench.stack.client() as client:
        rounds = []
        for _ in range(WARM + SUBMITS):
            time.sleep(random_pause.uniform(0.1, 0.3))  # in no step with any timer of ours
            rounds.append(_submit(client))
        answered, started, seen = zip(*rounds[WARM:], strict=True)
        bench.printer.times("latency.submit_answered", answered)
        bench.printer.times("latency.submit_to_process", started)
        bench.printer.times("latency.submit_to_first_line", seen)
        gone = []
        for number in range(WARM + CANCELS):
            time.sleep(random_pause.uniform(0.05, 0.2))
            gone.append(_cancel(client, bench.stack, number))
        bench.printer.times("latency.cancel_to_process_gone", gone[WARM:])


def _submit(client: Client) -> tuple[float, float, float]:
    """Seconds from before the request until it was answered, the job read its clock, and its line was here."""
    began = time.time_ns()
    job = client.jobs.submit(command=["/bin/date", "+%s%N"])
    answered = time.time_ns()
    lines = client.jobs.logs(job, follow=True)
    first = next(lines)
    seen = time.time_ns()
    for _ in lines:  # until the job has ended: the next one finds the cluster idle
        pass
    return (answered - began) / 1e9, (int(first.text) - began) / 1e9, (seen - began) / 1e9


def _cancel(client: Client, stack: Stack, number: int) -> float:
    mark = f"{100_000 + number}.{stack.port}"  # nobody else sleeps for so long
    job = client.jobs.submit(script=f"exec sleep {mark}", grace=0)
    handle = _open(mark)
    try:
        began = time.monotonic()
        client.jobs.cancel(job)
        if not select.select([handle], [], [], WITHIN_S)[0]:
            raise BenchError(f"a cancelled job still ran after {WITHIN_S:.0f} s")
        return time.monotonic() - began
    finally:
        os.close(handle)
        client.jobs.wait(job, WITHIN_S)


def _open(mark: str) -> int:
    """A handle on the process that sleeps for `mark` seconds, once it does. Raises BenchError if it never does."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with suppress(OSError):
                    if (folder / "cmdline").read_bytes() == b"sleep\0" + mark.encode() + b"\0":
                        return os.pidfd_open(int(folder.name))
        time.sleep(0.02)
    raise BenchError("the job to be cancelled did not start")
