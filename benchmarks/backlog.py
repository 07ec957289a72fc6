"""Ten thousand jobs pending behind a full cluster: what looking costs, and what doing nothing costs."""

import time
from itertools import islice

from benchmarks.bench import CONTROL_PLANE, Bench, spent
from benchmarks.cpu import pss_bytes, rss_bytes
from benchmarks.stack import SLOTS, BenchError
from trellis import Client
from trellis.answers import Queue

QUEUE = "bench"
PENDING, BATCH = 10_000, 1000
LOOKS, PAGE = 60, 50
SETTLE_S, IDLE_S = 14.0, 20.0  # a cycle looks back ten seconds: before that it is not idle


def hold(bench: Bench) -> Queue:
    """The paused queue that jobs are piled up in; made when it is not there."""
    with bench.stack.client() as client:
        known = next((queue for queue in client.queues.list() if queue.name == QUEUE), None)
        return client.queues.pause((known or client.queues.create(QUEUE)).id)


def measure(bench: Bench) -> None:
    """Fill every slot, pile up the rest, look, then wait."""
    queue = hold(bench)
    with bench.stack.client() as client:
        sleepers = client.jobs.submit_batch([{"command": ["/bin/sleep", "600"]}] * SLOTS)
        _wait_running(client, [job.id for job in sleepers])
        began = time.monotonic()
        count = _pile_up(client, bench)
        bench.printer.line("backlog.pile_up", count / (time.monotonic() - began), "jobs/s", batch=BATCH, jobs=count)
        client.queues.resume(queue.id)
        _look(client, bench)
    _idle(bench)


def _pile_up(client: Client, bench: Bench) -> int:
    with bench.stack.database() as database:
        row = database.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()
    missing = PENDING - (row[0] if row else 0)
    for start in range(0, missing, BATCH):
        client.jobs.submit_batch([{"command": ["/bin/true"], "queue": QUEUE}] * min(BATCH, missing - start))
    return max(missing, 1)


def _look(client: Client, bench: Bench) -> None:
    pages: list[float] = []
    items: list[float] = []
    for _ in range(LOOKS):
        began = time.monotonic()
        page = list(islice(client.jobs.list(limit=PAGE), PAGE))
        pages.append(time.monotonic() - began)
        wanted = page[len(items) % PAGE].id
        began = time.monotonic()
        client.jobs.get(wanted)
        items.append(time.monotonic() - began)
    bench.printer.times("backlog.list_page", pages, pending=PENDING, page=PAGE)
    bench.printer.times("backlog.get_job", items, pending=PENDING)


def _idle(bench: Bench) -> None:
    time.sleep(SETTLE_S)
    before, began = bench.meter.seconds(), time.monotonic()
    time.sleep(IDLE_S)
    seconds = time.monotonic() - began
    percent = {name: used / seconds * 100 for name, used in spent(before, bench.meter.seconds()).items()}
    bench.printer.line(
        "backlog.idle_control_plane", sum(percent[name] for name in CONTROL_PLANE), "% of a core",
        pending=PENDING, seconds=IDLE_S, exact=bench.meter.exact,
    )  # fmt: skip
    for name, used in sorted(percent.items(), key=lambda pair: -pair[1]):
        bench.printer.line(f"backlog.idle.{name}", used, "% of a core")
    for name, pid in bench.stack.pids().items():
        bench.printer.line(
            f"backlog.memory.{name}", pss_bytes(pid) / 2**20, "MiB", rss=round(rss_bytes(pid) / 2**20, 1)
        )


def _wait_running(client: Client, ids: list[str]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if all(client.jobs.get(job).state == "running" for job in ids):
            return
        time.sleep(0.2)
    raise BenchError("the jobs that fill the cluster did not all start within 30 s")
