"""The agent's clocks. Durations are measured with `time.monotonic`; stamps of the wall clock come from here alone."""

import time
from datetime import UTC, datetime
from functools import cache

from agent.reading import read_small


def stamp() -> str:
    """The wall clock now: ISO 8601, UTC, microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@cache
def boot_id() -> str:
    """What names the time since the machine started: another after each start."""
    return read_small("/proc/sys/kernel/random/boot_id").decode().strip()


def micros() -> int:
    """The wall clock now, in microseconds since the epoch: what log lines are stamped with."""
    return time.time_ns() // 1000


def boottime() -> float:
    """Seconds since the machine started, time asleep included: two processes may compare their readings."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
