"""The points that a job reports, from its socket to a file."""

import errno
import json
import math
import os
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.appending import Lines
from agent.clock import stamp
from agent.layout import read_json
from agent.sampling import PREFIX
from trellis.units import LARGEST
from trellis.wire import MetricPoint

POINTS_A_SECOND = 1000
# A name for each step or sample would be no metric any more; what is measured by the platform is not counted.
MOST_NAMES = 200
# What waits for a control plane that is away: 64 MiB are ten minutes of as many points as are taken, days of a usual job.
SPOOL_BYTES = 64 << 20
NAME_LENGTH = 128
_DATAGRAM_BYTES = 4096
_AT_ONCE = 256
_LINE_BYTES = 1024


class Meter:
    """Takes at most POINTS_A_SECOND, of MOST_NAMES, while no more than SPOOL_BYTES wait to be shipped; what is over is
    counted, not kept, and so is what makes no sense.
    """

    def __init__(self, path: Path, listener: socket.socket, kept: int = 0, shipped: Path | None = None) -> None:
        """`kept` is the number of the last point in the file; `shipped` says how far the control plane has them, as
        `ReplicaDir.shipped`.
        """
        self.listener = listener
        self.dropped = 0
        self.refused = 0
        self._surplus: str | None = None  # the first name that was one too many
        self._is_told = False
        self._path = path
        self._shipped = shipped
        self._names: set[str] = set()
        self._is_full = False
        self._lines = Lines(path)
        self._seq = kept
        self._second = 0
        self._in_second = 0

    def read(self) -> bool:
        """Take what is there, but not for ever: a job may send faster than we read. Whether any of it was kept."""
        kept = False
        for _ in range(_AT_ONCE):
            try:
                message = self.listener.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                break
            kept = self._keep(message) or kept
        return kept

    def news(self) -> Iterator[str]:
        """What its owner is to hear at once, and once: a job that runs for days is not to learn at its end what is missing."""
        if self._surplus is not None and not self._is_told:
            self._is_told = True
            many = f"a replica has {MOST_NAMES} names of metrics at the most"
            yield f"{many}: points of others, such as {self._surplus}, are dropped"

    def remarks(self) -> Iterator[str]:
        """What is to be said of its points at its end."""
        yield from self.news()
        if self.dropped:
            yield f"{self.dropped} metric points came faster than they could be kept, and were dropped"
        if self.refused:
            yield f"{self.refused} messages on the metric socket were no metric points"

    def note(self, points: Mapping[str, float]) -> None:
        """Keep points of the platform's own; where the disk is full they are lost."""
        for name, value in points.items():
            self._write({"name": name, "value": value, "step": None})

    def settle(self) -> bool:
        """Write what a full disk had no room for; whether nothing waits any more."""
        return self._lines.settle()

    def give_up(self) -> None:
        """Lose what waits."""
        self._lines.give_up()

    def close(self) -> None:
        """Listen no more; what was kept stays."""
        self.listener.close()
        self._lines.close()

    def _keep(self, message: bytes) -> bool:
        point = _parse(message)
        if point is None:
            self.refused += 1
            return False
        if not self._is_known(str(point["name"])):
            return False
        if not (self._has_room() and self._write(point)):
            self.dropped += 1
            return False
        return True

    def _is_known(self, name: str) -> bool:
        if name not in self._names:
            if len(self._names) >= MOST_NAMES:
                self._surplus = self._surplus or name
                return False
            self._names.add(name)
        return True

    def _write(self, point: Mapping[str, str | float | int | None]) -> bool:
        line = json.dumps({"seq": self._seq + 1, **point, "at": stamp()}).encode() + b"\n"
        if not self._lines.append(line):
            return False
        self._seq += 1  # only now: the control plane waits for a number that is missing
        return True

    def _has_room(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
            self._is_full = self._waiting_bytes() > SPOOL_BYTES
        self._in_second += 1
        return self._in_second <= POINTS_A_SECOND and not self._is_full

    def _waiting_bytes(self) -> int:
        """How much is still to be shipped; as it is told once a second, it may be less by now."""
        try:
            size = os.stat(self._path).st_size
        except FileNotFoundError:
            return 0
        if size <= SPOOL_BYTES or self._shipped is None:
            return size
        return size - int((read_json(self._shipped) or {"metrics": 0})["metrics"])


def last_seq(path: Path) -> int:
    """The number of the last point that a file holds, 0 where it holds none; its front may have been given back."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _LINE_BYTES * 2))
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return 0
    return int(json.loads(lines[-2])["seq"]) if len(lines) > 1 else 0


def _parse(message: bytes) -> dict[str, str | float | int | None] | None:
    """A job sends what it likes; None for what is no point."""
    try:
        sent = json.loads(message)
        name, value, step = sent["name"], sent["value"], sent.get("step")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
        return None
    if name.startswith(PREFIX):
        return None
    if type(value) not in (int, float) or abs(value) > 1e308 or not math.isfinite(value):
        return None
    if step is not None and (type(step) is not int or abs(step) > LARGEST):
        return None
    return {"name": name, "value": float(value), "step": step}


@dataclass(frozen=True, slots=True)
class MetricEntry:
    """A point, and the offset of the byte behind it."""

    point: MetricPoint
    end: int


def read(path: Path, offset: int, limit: int, replica_id: str, fence: int) -> list[MetricEntry]:
    """At most `limit` whole points behind byte `offset`; what was given back already (`agent.holes`) is passed over."""
    try:
        with path.open("rb", buffering=0) as file:
            begin = file.seek(offset, os.SEEK_DATA)
            block = file.read(limit * 512)
    except FileNotFoundError:
        return []
    except OSError as error:
        if error.errno == errno.ENXIO:  # there is nothing behind it
            return []
        raise
    if begin > offset:  # in the middle of a line, which was shipped
        torn, _, block = block.partition(b"\n")
        begin += len(torn) + 1
    offset, lines = begin, block.split(b"\n")
    entries = []
    for line in lines[:-1][:limit]:
        offset += len(line) + 1
        entries.append(MetricEntry(MetricPoint(replica_id, fence, **json.loads(line)), offset))
    return entries
