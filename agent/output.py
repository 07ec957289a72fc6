"""A replica's output as stamped lines in a file."""

import os
from collections import deque
from contextlib import suppress
from pathlib import Path

from agent.appending import Lines
from agent.clock import micros

LINE_BYTES = 64 * 1024
LOG_BYTES = 256 * 1024 * 1024
READ_BYTES = 64 * 1024
PIPE_BYTES = 1024 * 1024


class OutputLog:
    """The file, up to `limit_bytes`; past that one line says so and the rest is dropped, so that the job goes on."""

    def __init__(self, path: Path, limit_bytes: int = LOG_BYTES) -> None:
        self._lines = Lines(path)
        self._left = limit_bytes
        self._full = False
        self._dropping = False

    def write(self, mark: str, lines: bytes) -> None:
        """Append whole `lines`, each ending in a newline, under the mark o, e or s."""
        if self._full:
            return
        # NUL is text to a terminal, and what no database takes.
        text = lines.decode("utf-8", "replace").replace("\0", "\ufffd")
        prefix = f"{micros()} {mark} "
        stamped = (prefix + text[:-1].replace("\n", f"\n{prefix}") + "\n").encode()
        self._left -= len(stamped)
        if self._left < 0:
            self._full = True
            stamped = f"{micros()} s the log is full: what follows was dropped\n".encode()
        self._append(stamped)

    def say(self, message: str) -> None:
        """A line of the platform's own; it is written even if the log is full."""
        one_line = message.replace("\n", " ").replace("\0", " ")
        self._append(f"{micros()} s {one_line}\n".encode())

    def settle(self) -> bool:
        """Write what a full disk had no room for; whether nothing waits any more."""
        return self._lines.settle()

    def close(self) -> None:
        """Let go of the file."""
        self._lines.close()

    def _append(self, block: bytes) -> None:
        if self._dropping:
            block = f"{micros()} s the disk was full: lines before this one were dropped\n".encode() + block
        self._dropping = not self._lines.append(block)


class RememberingLog(OutputLog):
    """The same, of lines that are the platform's whoever printed them; `last` are the last so many, without stamps."""

    def __init__(self, path: Path, count: int) -> None:
        super().__init__(path)
        self.last: deque[str] = deque(maxlen=count)

    def write(self, mark: str, lines: bytes) -> None:
        """Append whole `lines` under the mark s, whatever `mark` is."""
        self.last.extend(line for line in lines.decode("utf-8", "replace").splitlines() if line.strip())
        super().write("s", lines)


class ResumedLog(OutputLog):
    """A log that is gone on with, of a job whose output comes again from its first byte: what it has is left out."""

    def __init__(self, path: Path) -> None:
        self._there = {"o": 0, "e": 0}
        size = 0
        with suppress(FileNotFoundError), path.open("rb") as file:
            for line in file:
                size += len(line)
                mark = line.split(b" ", 2)[1:2]
                if mark in ([b"o"], [b"e"]):
                    self._there[mark[0].decode()] += 1
        super().__init__(path, LOG_BYTES - size)

    def write(self, mark: str, lines: bytes) -> None:
        """Append those of the whole `lines` that are not there."""
        known = self._there[mark]
        if known:
            each = [line + b"\n" for line in lines[:-1].split(b"\n")]
            self._there[mark] = max(0, known - len(each))
            lines = b"".join(each[known:])
        if lines:
            super().write(mark, lines)


class LineReader:
    """One of the job's streams: cuts what arrives into whole lines, none longer than LINE_BYTES."""

    def __init__(self, fd: int, mark: str, log: OutputLog) -> None:
        self.fd = fd
        self._mark = mark
        self._log = log
        self._rest = b""

    def read(self) -> bool:
        """Take what is there, at most READ_BYTES; False at the end of the stream."""
        try:
            fresh = os.read(self.fd, READ_BYTES)
        except BlockingIOError:
            return True
        if not fresh:
            self.finish()
            return False
        self._take(fresh)
        return True

    def read_rest(self) -> None:
        """Take all that is there without waiting, then end. More than a pipe holds can't be: someone still writes."""
        for _ in range(PIPE_BYTES // READ_BYTES):
            try:
                fresh = os.read(self.fd, READ_BYTES)
            except BlockingIOError:
                break
            if not fresh:
                break
            self._take(fresh)
        self.finish()

    def close(self) -> None:
        """Let go of the descriptor."""
        os.close(self.fd)

    def finish(self) -> None:
        """The line that was begun is a line now."""
        if self._rest:
            self._log.write(self._mark, self._rest + b"\n")
            self._rest = b""

    def _take(self, fresh: bytes) -> None:
        whole, newline, rest = (self._rest + fresh).rpartition(b"\n")
        if newline:
            self._log.write(self._mark, _shorten(whole) + b"\n")
        while len(rest) >= LINE_BYTES:
            cut = _cut(rest)
            self._log.write(self._mark, rest[:cut] + b"\n")
            rest = rest[cut:]
        self._rest = rest


def _shorten(lines: bytes) -> bytes:
    if len(lines) <= LINE_BYTES:
        return lines
    short = []
    for line in lines.split(b"\n"):
        while len(line) > LINE_BYTES:
            cut = _cut(line)
            short.append(line[:cut])
            line = line[cut:]  # noqa: PLW2901  # what is left of it
        short.append(line)
    return b"\n".join(short)


def _cut(line: bytes) -> int:
    """Where to cut: not inside a character of UTF-8."""
    cut = LINE_BYTES
    while cut > LINE_BYTES - 3 and line[cut : cut + 1] and 0x80 <= line[cut] < 0xC0:
        cut -= 1
    return cut
