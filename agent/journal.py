"""Reports on disk until the control plane has them."""

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

from trellis.vocabulary import ENDED_REPLICA_STATES
from trellis.wire import Report, pack, unpack


class Journal:
    """The writing side. Only the supervisor writes while it lives; after its death the daemon may."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._seq = 0

    @classmethod
    def resume(cls, path: Path) -> "Journal":
        """Go on behind the last whole line: a machine that lost power may have left a torn one."""
        entries = read(path, 0)
        journal = cls(path)
        os.truncate(path, entries[-1].end if entries else 0)
        journal._seq = entries[-1].report.seq if entries else 0
        return journal

    def append(self, report: Report) -> None:
        """Write `report` with the next seq."""
        self._seq += 1
        os.write(self._fd, json.dumps(pack(replace(report, seq=self._seq))).encode() + b"\n")

    def close(self) -> None:
        """Let go of the file; what was written stays."""
        os.close(self._fd)


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
    """The whole reports behind byte `offset`."""
    try:
        with path.open("rb") as file:
            file.seek(offset)
            lines = file.read().split(b"\n")
    except FileNotFoundError:
        return []
    entries = []
    for line in lines[:-1]:  # what follows the last newline is torn
        offset += len(line) + 1
        entries.append(Entry(unpack(Report, json.loads(line)), offset))
    return entries
