"""Writing at the end of a file while the disk may be full: that must end no job, and tear no line for good."""

import os
from pathlib import Path

WAITING_BYTES = 1024 * 1024


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

    def close(self) -> None:
        """Let go of the file; what was written stays."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


class Lines:
    """Whole lines at the end of a file; some of those that a full disk has no room for are kept until it has."""

    def __init__(self, path: Path) -> None:
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

    def close(self) -> None:
        """Let go of the file; what was written stays."""
        self._tail.close()
