"""Writing at the end of a file while the disk may be full: that must end no job, and tear no line for good."""

import os
from pathlib import Path

from agent.holes import reserve

WAITING_BYTES = 1024 * 1024
# More than the longest line of any of our files.
_LONGEST_LINE_BYTES = 1024 * 1024


def drop_torn(path: Path) -> None:
    """Take away what follows the last newline: the beginning of a line whose writer will never write the rest."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        size = os.fstat(fd).st_size
        last = os.pread(fd, _LONGEST_LINE_BYTES, max(0, size - _LONGEST_LINE_BYTES))
        whole = size - len(last) + last.rfind(b"\n") + 1
        if whole < size:
            os.ftruncate(fd, whole)
    finally:
        os.close(fd)


class Tail:
    """A file's end. The file is made at the first write: many a replica never has one to make."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd: int | None = None

    def write(self, block: bytes) -> bytes:
        """Append what there is room for; the rest, empty if it all went in."""
        try:
            if self._fd is None:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            while block:
                block = block[os.write(self._fd, block) :]
        except OSError:
            return block
        return block

    def reserve(self, size: int) -> None:
        """See to it that so many bytes more have room, however full the disk gets, where that can be promised."""
        if self._fd is not None:
            reserve(self._fd, os.fstat(self._fd).st_size + size)

    def close(self) -> None:
        """Let go of the file; what was written stays."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Lines:
    """Whole lines at the end of a file; some of those that a full disk has no room for are kept until it has."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tail = Tail(path)
        self._waiting = b""

    def append(self, lines: bytes) -> bool:
        """Append `lines`, each ending in a newline; False if they were dropped, as too much waits already."""
        kept = not self._waiting or len(self._waiting) + len(lines) <= WAITING_BYTES
        if kept:
            self._waiting += lines
        self.settle()
        return kept

    def settle(self) -> bool:
        """Write what waits; whether nothing does any more."""
        self._waiting = self._waiting and self._tail.write(self._waiting)
        return not self._waiting

    def give_up(self) -> None:
        """Lose what waits, and leave no part of a line."""
        if self._waiting:
            self._waiting = b""
            drop_torn(self._path)

    def close(self) -> None:
        """Let go of the file; what was written stays."""
        self._tail.close()
