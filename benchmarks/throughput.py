"""A thousand jobs of /bin/true over all slots: jobs a second end to end, and the CPU each part spent on one."""

import resource
import time
from dataclasses import dataclass
from typing import Any, LiteralString
from uuid import uuid4

import psycopg

from benchmarks.bench import Bench, spent
from benchmarks.clients import run_clients, submit_work
from benchmarks.cpu import machine_busy_s
from benchmarks.stack import SLOTS, BenchError

WITHIN_S = 90.0
LOOK_S = 0.1
_LIVE = "SELECT count(*) FROM jobs WHERE ended_at IS NULL AND name = %s"  # by an index of live jobs: cheap
_OUTCOME = """
    SELECT count(*), count(*) FILTER (WHERE state <> 'succeeded'), extract(epoch FROM max(ended_at))
    FROM jobs WHERE name = %s
"""


@dataclass(frozen=True, slots=True)
class Load:
    """`clients` processes that submit `calls` times each, `batch` jobs a call."""

    clients: int
    calls: int
    batch: int = 1

    @property
    def jobs(self) -> int:
        """How many there will be."""
        return self.clients * self.calls * self.batch


WARM = Load(4, 16)
SINGLE = Load(4, 250)
BATCHES = Load(2, 5, 100)


def measure(bench: Bench) -> None:
    """The jobs one by one, then in batches."""
    _drain(bench, "warm-up", WARM)  # every pool, cache and launcher has been used once
    _report(bench, "throughput.single", SINGLE)
    _report(bench, "throughput.batch_100", BATCHES)


def _report(bench: Bench, name: str, load: Load) -> None:
    before, busy = bench.meter.seconds(), machine_busy_s()
    clients_before = _children_s()
    seconds, submitting_s = _drain(bench, name, load)
    used = spent(before, bench.meter.seconds())
    used["clients"] = _children_s() - clients_before
    others = max(0.0, machine_busy_s() - busy - sum(used.values()))
    bench.printer.line(
        name, load.jobs / seconds, "jobs/s", jobs=load.jobs, clients=load.clients, slots=SLOTS, nodes=bench.stack.nodes,
        seconds=round(seconds, 2), submitting_s=round(submitting_s, 2), other_load_cores=round(others / seconds, 2),
    )  # fmt: skip
    bench.printer.line(f"{name}.cpu", sum(used.values()) * 1000 / load.jobs, "ms/job", exact=bench.meter.exact)
    for group, cpu_s in sorted(used.items(), key=lambda pair: -pair[1]):
        bench.printer.line(f"{name}.cpu.{group}", cpu_s * 1000 / load.jobs, "ms/job", exact=bench.meter.exact)


def _drain(bench: Bench, name: str, load: Load) -> tuple[float, float]:
    """Seconds from the first request to the last job's end, and to the last answer. Raises BenchError."""
    mark = f"{name} {uuid4()}"
    zero = time.time() - time.monotonic()
    calls = run_clients(
        bench.stack, load.clients, load.calls, submit_work({"command": ["/bin/true"], "name": mark}, load.batch)
    )
    with bench.stack.database() as database:
        ended = _wait_for(database, mark, load.jobs)
    return ended - (zero + calls.began), calls.ended - calls.began


def _wait_for(database: psycopg.Connection, mark: str, jobs: int) -> float:
    """The moment the last of them ended, in seconds since the epoch. Raises BenchError."""
    deadline = time.monotonic() + WITHIN_S
    while live := _one(database, _LIVE, mark)[0]:
        if time.monotonic() > deadline:
            raise BenchError(f"{live} of {jobs} jobs had not ended after {WITHIN_S:.0f} s")
        time.sleep(LOOK_S)
    ended, failed, last = _one(database, _OUTCOME, mark)
    if failed or ended != jobs:
        raise BenchError(f"{failed} of {ended} jobs did not succeed, and {jobs} were submitted")
    return float(last)


def _one(database: psycopg.Connection, statement: LiteralString, mark: str) -> Any:
    return database.execute(statement, (mark,)).fetchone()


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
