"""What every section is handed."""

from dataclasses import dataclass

from benchmarks.cpu import CpuMeter
from benchmarks.lines import Printer
from benchmarks.stack import Stack

CONTROL_PLANE = ("api", "control", "beat", "flower", "postgres", "valkey")


@dataclass(frozen=True, slots=True)
class Bench:
    """A stack that is up and idle, the counts of its CPU time, and where lines go."""

    stack: Stack
    meter: CpuMeter
    printer: Printer


def by_group(seconds: dict[str, float]) -> dict[str, float]:
    """The nodes summed up, everything else as it is."""
    grouped: dict[str, float] = {}
    for name, used in seconds.items():
        group = name if name in CONTROL_PLANE else "nodes"
        grouped[group] = grouped.get(group, 0.0) + used
    return grouped


def spent(before: dict[str, float], after: dict[str, float]) -> dict[str, float]:
    """CPU seconds between two readings, by group."""
    return by_group({name: after[name] - before[name] for name in after})
