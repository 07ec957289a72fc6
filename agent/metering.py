"""The points that a job reports, from its socket to a file."""

import json
import math
import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from agent.clock import stamp
from trellis.units import LARGEST
from trellis.wire import MetricPoint

POINTS_A_SECOND = 1000
NAME_LENGTH = 128
_DATAGRAM_BYTES = 4096


class Meter:
    """Takes at most POINTS_A_SECOND; what is over is counted, not kept, and so is what makes no sense."""

    def __init__(self, path: Path, listener: socket.socket) -> None:
        self.listener = listener
        self.dropped = 0
        self.refused = 0
        self._path = path
        self._fd: int | None = None
        self._seq = 0
        self._second = 0
        self._in_second = 0

    def read(self) -> bool:
        """Take what is there; whether any of it was kept."""
        lines = []
        while True:
            try:
                message = self.listener.recv(_DATAGRAM_BYTES)
            except BlockingIOError:
                break
            if line := self._accept(message):
                lines.append(line)
        if lines:
            self._write("".join(lines).encode())
        return bool(lines)

    def _accept(self, message: bytes) -> str:
        point = _parse(message)
        if point is None:
            self.refused += 1
            return ""
        if not self._has_room():
            self.dropped += 1
            return ""
        self._seq += 1
        return json.dumps({"seq": self._seq, **point, "at": stamp()}) + "\n"

    def _has_room(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        return self._in_second <= POINTS_A_SECOND

    def _write(self, block: bytes) -> None:
        if self._fd is None:
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.write(self._fd, block)


def _parse(message: bytes) -> dict[str, str | float | int | None] | None:
    """A job sends what it likes; None for what is no point."""
    try:
        sent = json.loads(message)
        name, value, step = sent["name"], sent["value"], sent.get("step")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    if not isinstance(name, str) or not 0 < len(name) <= NAME_LENGTH or not name.isprintable():
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
    """At most `limit` whole points behind byte `offset`."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            lines = file.read(limit * 512).split(b"\n")
    except FileNotFoundError:
        return []
    entries = []
    for line in lines[:-1][:limit]:
        offset += len(line) + 1
        entries.append(MetricEntry(MetricPoint(replica_id, fence, **json.loads(line)), offset))
    return entries
