"""Reports on disk until the control plane has them."""

import json
import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from agent.appending import Tail
from trellis.vocabulary import ENDED_REPLICA_STATES
from trellis.wire import Report, pack, unpack

# The first reports share the block that the file has anyway. One that is held still and let go on many times tells more:
# room is kept for the next of them, and not sooner, as that takes some disks milliseconds.
RESERVED_REPORTS, RESERVED_BYTES = 8, 8 * 1024


class Journal:
    """The writing side. Only the supervisor writes while it lives; after its death the daemon may."""

    def __init__(self, path: Path) -> None:
        self._tail = Tail(path)
        self._seq = 0
        self._waiting = b""

    @classmethod
    def resume(cls, path: Path) -> "Journal":
        """Go on behind the last whole line: a machine that lost power may have left a torn one."""
        entries = read(path, 0)
        journal = cls(path)
        with suppress(FileNotFoundError):
            os.truncate(path, entries[-1].end if entries else 0)
        journal._seq = entries[-1].report.seq if entries else 0
        return journal

    def append(self, report: Report) -> None:
        """Write `report` with the next seq; what a full disk has no room for waits for `settle`."""
        self._seq += 1
        self._waiting += json.dumps(pack(replace(report, seq=self._seq))).encode() + b"\n"
        self.settle()
        if self._seq % RESERVED_REPORTS == 0:
            self._tail.reserve(RESERVED_BYTES)

    def settle(self) -> bool:
        """Write what waits; whether nothing does any more."""
        self._waiting = self._waiting and self._tail.write(self._waiting)
        return not self._waiting

    def close(self) -> None:
        """Let go of the file; what was written stays."""
        self._tail.close()


@dataclass(frozen=True, slots=True)
class Entry:
    """A report, and the offset of the byte behind it."""

    report: Report
    end: int

    @property
    def ended(self) -> bool:
        """Whether it is a replica's last."""
        return self.report.state in ENDED_REPLICA_STATES


def read(path: Path, offset: int) -> list[Entry]:
    """The whole reports behind byte `offset`, up to the first that is none: power that failed may leave noughts."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    entries = []
    for line in lines[:-1]:  # what follows the last newline is torn
        offset += len(line) + 1
        try:
            entries.append(Entry(unpack(Report, json.loads(line)), offset))
        except ValueError:
            break
    return entries
