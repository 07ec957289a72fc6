"""Points that running jobs report, by the whole way: socket, supervisor, file, daemon, API, PostgreSQL; questions beside it."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import psycopg

from benchmarks.bench import Bench, spent
from benchmarks.cpu import machine_busy_s
from benchmarks.lines import say
from benchmarks.stack import BenchError
from trellis import Client
from trellis.answers import Job

JOBS, RATE, SECONDS, NAMES = 10, 500, 60, 10
START_WITHIN_S, END_WITHIN_S, ASK_EVERY_S = 30.0, 60.0, 0.5
_SCRIPT = f"""
import time
from trellis import runtime

began = time.monotonic()
for number in range({RATE * SECONDS}):
    runtime.log_metric(f"metric-{{number % {NAMES}}}", number * 0.5, step=number)
    ahead = number / {RATE} - (time.monotonic() - began)
    if ahead > 0.02:
        time.sleep(ahead)
print("took", time.monotonic() - began)
"""
_STORED = """
    SELECT count(*) FROM metric_points p JOIN metric_series s ON s.id = p.series_id
    WHERE s.job_id = ANY(%s) AND s.name LIKE 'metric-%%'
"""
_SETTLED = "SELECT coalesce(sum(metric_seq), 0)::bigint FROM replicas WHERE job_id = ANY(%s)"
_OF_JOBS = "SELECT sum(cpu_ms), sum(metric_seq) FROM replicas WHERE job_id = ANY(%s)"
_SIZE = """
    SELECT pg_total_relation_size('metric_points'), (SELECT count(*) FROM metric_points)
"""


@dataclass(slots=True)
class _Seen:
    """What was looked at while it ran: each question's seconds, and points settled at moments."""

    asked_s: list[float] = field(default_factory=list)
    settled: list[tuple[float, int]] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        """Points a second while all jobs ran."""
        (began, few), (ended, many) = self.settled[0], self.settled[-1]
        return (many - few) / (ended - began)


def measure(bench: Bench) -> None:
    """JOBS jobs report RATE points a second each for SECONDS, while somebody asks for series twice a second."""
    with bench.stack.client() as client, bench.stack.database() as database:
        jobs = [_submit(client) for _ in range(JOBS)]
        ids = [job.id for job in jobs]
        _await_start(client, jobs)
        before, busy, began = bench.meter.seconds(), machine_busy_s(), time.monotonic()
        seen = _watch(client, database, jobs)
        took = time.monotonic() - began
        used, machine = spent(before, bench.meter.seconds()), machine_busy_s() - busy
        _await_end(client, jobs)
        _report(bench, seen, used, (took, machine))
        _report_store(bench, database, ids)


def _submit(client: Client) -> Job:
    return client.jobs.submit(
        name=f"metrics {uuid4()}", script=_SCRIPT, script_name="report.py", resources={"cpus": 1, "memory": "256MiB"}
    )


def _await_start(client: Client, jobs: Sequence[Job]) -> None:
    deadline = time.monotonic() + START_WITHIN_S
    while any(client.jobs.get(job).started_at is None for job in jobs):
        if time.monotonic() > deadline:
            raise BenchError(f"the jobs did not start within {START_WITHIN_S:.0f} s")
        time.sleep(0.1)


def _watch(client: Client, database: psycopg.Connection, jobs: Sequence[Job]) -> _Seen:
    seen = _Seen()
    ids = [job.id for job in jobs]
    deadline = time.monotonic() + SECONDS - 8  # while all of them still report
    number = 0
    time.sleep(2.0)
    while time.monotonic() < deadline:
        began = time.monotonic()
        client.jobs.series(jobs[number % len(jobs)], agg=("mean", "max", "last")[number % 3])
        asked = time.monotonic()
        seen.asked_s.append(asked - began)
        if number % 10 == 0:
            row: Any = database.execute(_SETTLED, (ids,)).fetchone()
            seen.settled.append((asked, row[0]))
        number += 1
        time.sleep(max(0.0, began + ASK_EVERY_S - time.monotonic()))
    return seen


def _await_end(client: Client, jobs: Sequence[Job]) -> None:
    for job in jobs:
        ended = client.jobs.wait(job, timeout=END_WITHIN_S)
        if ended.state != "succeeded":
            raise BenchError(f"a job that reports {ended.state}: {ended.message}")
    say(next(line.text for line in client.jobs.logs(jobs[0])))


def _report(bench: Bench, seen: _Seen, used: dict[str, float], spans: tuple[float, float]) -> None:
    took, machine = spans
    others = max(0.0, machine - sum(used.values())) / took
    bench.printer.line(
        "metrics.intake", seen.per_second, "points/s", jobs=JOBS, wanted=JOBS * RATE, seconds=SECONDS,
        other_load_cores=round(others, 2),
    )  # fmt: skip
    points = seen.per_second * took
    for group, cpu_s in sorted(used.items(), key=lambda pair: -pair[1]):
        bench.printer.line(
            f"metrics.cpu.{group}", 100 * cpu_s / took, "% of a core", us_a_point=round(1e6 * cpu_s / points, 1)
        )
    bench.printer.times("metrics.question", seen.asked_s)


def _report_store(bench: Bench, database: psycopg.Connection, ids: list[str]) -> None:
    stored: Any = database.execute(_STORED, (ids,)).fetchone()
    of_jobs: Any = database.execute(_OF_JOBS, (ids,)).fetchone()
    size: Any = database.execute(_SIZE).fetchone()
    bench.printer.line(
        "metrics.stored", 100 * stored[0] / (JOBS * RATE * SECONDS), "% of what was reported", points=stored[0]
    )
    bench.printer.line("metrics.bytes", size[0] / size[1], "bytes/point", points=size[1])
    bench.printer.line("metrics.jobs_cpu", of_jobs[0] / 1000, "s", part_of="nodes")
