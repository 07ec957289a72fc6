"""One JSON object a line on standard output: what was measured, and what it ran on."""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Machine:
    """Where and beside what a measurement ran.

    `load` is the load average of the minute before it began; `loop_ms` the CPU time that a fixed loop of Python took
    then: on a machine shared with others the same work costs more of it, so compare figures of a like `loop_ms`.
    """

    cpus: int
    python: str
    kernel: str
    load: float
    loop_ms: float

    @classmethod
    def now(cls) -> "Machine":
        """This machine, at this moment."""
        return cls(
            os.cpu_count() or 1,
            platform.python_version(),
            f"{platform.system()} {platform.release()} {platform.machine()}",
            round(os.getloadavg()[0], 2),
            round(min(_loop_s() for _ in range(5)) * 1000, 1),
        )


@dataclass(slots=True)
class Printer:
    """Prints the lines of one section; makes the machine's load part of each."""

    on: Machine = field(default_factory=Machine.now)

    def line(self, name: str, value: float | None, unit: str, **more: Any) -> None:
        """One figure. `more` says what else is to be known of it."""
        shown = {name: getattr(self.on, name) for name in Machine.__slots__}
        rounded = None if value is None else float(f"{value:.4g}")
        print(json.dumps({"name": name, "value": rounded, "unit": unit, "on": shown, **more}), flush=True)

    def times(self, name: str, seconds: Sequence[float], **more: Any) -> None:
        """Some durations: their median is the value, in ms."""
        self.line(
            name,
            statistics.median(seconds) * 1000,
            "ms",
            p95=float(f"{percentile(seconds, 95) * 1000:.4g}"),
            min=float(f"{min(seconds) * 1000:.4g}"),
            max=float(f"{max(seconds) * 1000:.4g}"),
            n=len(seconds),
            **more,
        )


def _loop_s() -> float:
    began = time.thread_time()
    for _ in range(200_000):
        pass
    return time.thread_time() - began


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least `percent` of them do not exceed."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, -(-len(ranked) * int(percent) // 100) - 1))]


def say(text: str) -> None:
    """Prose for whoever watches."""
    print(text, file=sys.stderr, flush=True)
