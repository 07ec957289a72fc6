"""What a replica uses, measured now and then: told as metrics of its own, under names that no job can give itself."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass

from agent import processes
from agent.reading import read_small

# The first comes only after so long: what ends before costs nothing.
EVERY_S = 10.0
PREFIX = "trellis/"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Consumed:
    """So far, by processes that live: CPU seconds with those of their children that ended, bytes to and from disks."""

    cpu_s: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0


class Sampler:
    """Turns what was consumed so far into rates."""

    def __init__(self) -> None:
        self._before = Consumed()
        self._at = time.monotonic()

    def sample(self, pids: list[int], ended_cpu_s: float) -> dict[str, float]:
        """Metrics of the time since the last sample; `ended_cpu_s` is what those took that ended, since the start.

        A process that ended in between takes its traffic with it: a rate is then too small, never below nothing.
        """
        now, consumed = time.monotonic(), consumed_by(pids, ended_cpu_s)
        span, before = max(now - self._at, 1e-3), self._before
        self._at, self._before = now, consumed
        return {
            f"{PREFIX}cpu_cores": max(0.0, consumed.cpu_s - before.cpu_s) / span,
            f"{PREFIX}memory_bytes": float(processes.memory_bytes(pids)),
            f"{PREFIX}disk_read_bytes_per_s": max(0, consumed.read_bytes - before.read_bytes) / span,
            f"{PREFIX}disk_written_bytes_per_s": max(0, consumed.written_bytes - before.written_bytes) / span,
            f"{PREFIX}processes": float(len(pids)),
        }


def consumed_by(pids: Iterable[int], ended_cpu_s: float) -> Consumed:
    """What these processes consumed so far; those that are gone, or may not be asked, count nothing."""
    cpu_s, read_bytes, written_bytes = ended_cpu_s, 0, 0
    for pid in pids:
        cpu_s += _cpu_s(pid)
        traffic = _traffic(pid)
        read_bytes += traffic.get(b"read_bytes", 0)
        written_bytes += traffic.get(b"write_bytes", 0)
    return Consumed(cpu_s, read_bytes, written_bytes)


def _cpu_s(pid: int) -> float:
    try:
        stat = read_small(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    fields = stat[stat.rindex(b")") + 2 :].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _traffic(pid: int) -> dict[bytes, int]:
    try:
        lines = read_small(f"/proc/{pid}/io").splitlines()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return {}
    return {name: int(value) for name, _, value in (line.partition(b": ") for line in lines)}
