"""Writing at the end of a file while the disk may be full: that must end no job, and tear no line for good."""

import os
from pathlib import Path


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
    """Whole lines at the end of a file. One that a full disk tore is completed before anything else is written."""

    def __init__(self, path: Path) -> None:
        self._tail = Tail(path)
        self._owed = b""

    def append(self, lines: bytes) -> bool:
        """Append `lines`, each ending in a newline; False if at least the last of them was dropped."""
        self._owed = self._owed and self._tail.write(self._owed)
        if self._owed:
            return False
        rest = self._tail.write(lines)
        written = len(lines) - len(rest)
        if rest and written and lines[written - 1] != ord("\n"):
            self._owed = rest[: rest.index(b"\n") + 1]
        return rest == self._owed

    def close(self) -> None:
        """Let go of the file; what was written stays."""
        self._tail.close()
