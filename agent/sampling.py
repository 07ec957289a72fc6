"""What a replica uses, measured now and then: told as metrics of its own, under names that no job can give itself."""

import os
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from agent import processes
from agent.gpu_readings import GpuMeter
from agent.reading import read_small

# The first comes only after so long: what ends before costs nothing.
EVERY_S, FINE_EVERY_S = 10.0, 1.0
PREFIX = "trellis/"
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class Consumed:
    """So far, by processes that live: CPU seconds with those of their children that ended, bytes to and from disks.

    `network` is what came and went over a network of its own, in bytes; None where it has none, or shares the node's: that
    counts everybody's.
    """

    cpu_s: float = 0.0
    read_bytes: int = 0
    written_bytes: int = 0
    network: tuple[int, int] | None = None


class Sampler:
    """Turns what was consumed so far into rates."""

    def __init__(self, gpus: GpuMeter | None = None) -> None:
        """`gpus` reads its devices."""
        self._gpus = gpus
        self._before = Consumed()
        self._at = time.monotonic()

    def sample(self, pids: list[int], ended_cpu_s: float) -> dict[str, float]:
        """Metrics of the time since the last sample; `ended_cpu_s` is what those took that ended, since the start.

        A process that ended in between takes its traffic with it: a rate is then too small, never below nothing.
        """
        now, consumed = time.monotonic(), consumed_by(pids, ended_cpu_s)
        span, before = max(now - self._at, 1e-3), self._before
        self._at, self._before = now, consumed
        figures = self._figures(consumed, before, span, pids) | (self._gpus.read() if self._gpus else {})
        return {f"{PREFIX}{name}": value for name, value in figures.items()}

    @staticmethod
    def _figures(consumed: Consumed, before: Consumed, span: float, pids: list[int]) -> dict[str, float]:
        figures = {
            "cpu_cores": max(0.0, consumed.cpu_s - before.cpu_s) / span,
            "memory_bytes": float(processes.memory_bytes(pids)),
            "disk_read_bytes_per_s": max(0, consumed.read_bytes - before.read_bytes) / span,
            "disk_written_bytes_per_s": max(0, consumed.written_bytes - before.written_bytes) / span,
            "processes": float(len(pids)),
        }
        if consumed.network is not None:
            for name, now, then in zip(("received", "sent"), consumed.network, before.network or (0, 0), strict=True):
                figures[f"network_{name}_bytes_per_s"] = max(0, now - then) / span
        return figures


def consumed_by(pids: Collection[int], ended_cpu_s: float) -> Consumed:
    """What these processes consumed so far; those that are gone, or may not be asked, count nothing."""
    cpu_s, read_bytes, written_bytes = ended_cpu_s, 0, 0
    for pid in pids:
        cpu_s += _cpu_s(pid)
        traffic = _traffic(pid)
        read_bytes += traffic.get(b"read_bytes", 0)
        written_bytes += traffic.get(b"write_bytes", 0)
    return Consumed(cpu_s, read_bytes, written_bytes, own_network(pids))


def own_network(pids: Iterable[int], proc: str = "/proc") -> tuple[int, int] | None:
    """Bytes received and sent in the network that these processes have to themselves; None where there is none.

    The kernel counts them a namespace, so that those of processes that ended are there too. Of the node's own network,
    and of the loopback alone, nothing is told.
    """
    ours = _namespace(proc, "self")
    other = next((pid for pid in pids if _namespace(proc, pid) not in ("", ours)), None)
    if other is None or not ours:
        return None
    try:
        lines = read_small(f"{proc}/{other}/net/dev").decode().splitlines()[2:]
    except OSError:
        return None
    # Of each device: eight figures of what it received, the first being bytes, then eight of what it sent.
    counts = [line.partition(":")[2].split() for line in lines if line.partition(":")[0].strip() != "lo"]
    if not counts:
        return None
    return sum(int(count[0]) for count in counts), sum(int(count[8]) for count in counts)


def _namespace(proc: str, pid: int | str) -> str:
    try:
        return os.readlink(f"{proc}/{pid}/ns/net")
    except OSError:  # gone, or not ours to ask
        return ""


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
