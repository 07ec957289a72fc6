"""An array of ten thousand elements in one request: accepted, summed up, shown as one line, cancelled."""

import time
from collections.abc import Callable
from typing import TypeVar

from benchmarks.backlog import QUEUE, hold
from benchmarks.bench import Bench
from benchmarks.lines import Printer
from trellis import Client
from trellis.submission import ArrayBody

ELEMENTS = 10_000
T = TypeVar("T")


def measure(bench: Bench) -> None:
    """With and without a bound on how many may run at once; the queue is paused."""
    hold(bench)
    with bench.stack.client() as client:
        for name, parallel in (("arrays.submit", 0), ("arrays.submit_bounded", 100)):
            _measure(bench.printer, client, name, parallel)


def _measure(printer: Printer, client: Client, name: str, parallel: int) -> None:
    spread: ArrayBody = {"indexes": f"0-{ELEMENTS - 1}", "max_parallel": parallel}
    array = _timed(
        printer, name, lambda: client.jobs.submit_array(command=["/bin/true"], queue=QUEUE, array=spread)
    )  # fmt: skip
    _timed(printer, f"{name}.summary", lambda: client.arrays.get(array.array_id))
    _timed(printer, f"{name}.listed", lambda: next(client.jobs.list(grouped=True, limit=30)))
    _timed(printer, f"{name}.cancelled", lambda: client.arrays.cancel(array.array_id))


def _timed(printer: Printer, name: str, act: Callable[[], T]) -> T:
    began = time.monotonic()
    found = act()
    printer.line(name, time.monotonic() - began, "s", elements=ELEMENTS)
    return found
