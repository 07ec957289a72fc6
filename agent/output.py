"""A replica's output as stamped lines in a file."""

import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.appending import Lines
from agent.clock import micros
from agent.redaction import Redactor

LINE_BYTES = 64 * 1024
LOG_BYTES = 256 * 1024 * 1024
READ_BYTES = 64 * 1024
PIPE_BYTES = 1024 * 1024
# So much may come at once; then, so much a second. A job that prints faster harms its own log alone.
BURST_BYTES = 16 * 1024 * 1024
RATE_BYTES_S = 1024 * 1024
# Of what is cut out, the last so many bytes are kept: a program that floods its log often says at last why.
LAST_BYTES = 256 * 1024
# What a stamp adds to a line.
_STAMP_BYTES = 19
# Output that is cut is read no faster than about 64 MiB/s, so that cutting it takes no CPU from others.
_CUT_PAUSE_S = 0.001
_LEFT_OUT = re.compile(rb"(\d+) lines of stdout and (\d+) of stderr \(\d+ bytes\) were left out here")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a log takes: in all, at once, each second, and of the end of what is cut out of it; in bytes."""

    total: int = LOG_BYTES
    burst: int = BURST_BYTES
    per_s: int = RATE_BYTES_S
    last: int = LAST_BYTES


class Allowance:
    """A bucket that fills by the second. Once it is empty it stays shut until there is a second's worth in it."""

    def __init__(self, limits: Limits, now: Callable[[], float] = time.monotonic) -> None:
        self._limits, self._now = limits, now
        self._left, self._in_all, self._at = float(limits.burst), limits.total, now()
        self.shut = False

    def admits(self, size: int) -> bool:
        """Whether so many bytes may be written now; if so, they count."""
        now = self._now()
        self._left = min(self._limits.burst, self._left + (now - self._at) * self._limits.per_s)
        self._at = now
        needed = max(size, min(self._limits.per_s, self._limits.burst)) if self.shut else size
        self.shut = needed > self._left or size > self._in_all or (self.shut and self.spent)
        if not self.shut:
            self._left -= size
            self._in_all -= size
            return True
        self._in_all = 0 if size > self._in_all else self._in_all  # short lines do not slip in for ever after
        return False

    @property
    def spent(self) -> bool:
        """Whether nothing will ever be written again."""
        return self._in_all <= 0


class OutputLog:
    """The file. Where a job prints too much or too fast, the middle is cut out and a line says how much that was."""

    def __init__(
        self, path: Path, limits: Limits = Limits(), hide: Redactor = Redactor(), now: Callable[[], float] = time.monotonic  # noqa: B008  # both are immutable
    ) -> None:  # fmt: skip
        """`hide` takes secrets out of what is written."""
        self._lines = Lines(path)
        self.hide = hide
        self._limits, self._allowance = limits, Allowance(limits, now)
        self._cut: deque[tuple[int, str, bytes]] = deque()
        self._cut_bytes = self._gone_bytes = 0
        self._gone = Counter[str]()
        self._dropping = False

    @property
    def cutting(self) -> bool:
        """Whether what comes now is being left out."""
        return self._allowance.shut

    def write(self, mark: str, lines: bytes) -> None:
        """Append whole `lines`, each ending in a newline, under the mark o, e or s."""
        if not self._allowance.admits(len(lines) + _STAMP_BYTES * lines.count(b"\n")):
            self._leave_out(mark, lines)
            return
        self.rejoin()
        self._append(self._stamped(micros(), mark, lines))

    def rejoin(self) -> None:
        """Say how much was left out, and write down the last of it."""
        if self._gone:
            why = "the log is full" if self._allowance.spent else f"more than {self._limits.per_s} bytes a second came"
            gone = f"{self._gone['o']} lines of stdout and {self._gone['e']} of stderr"
            self.say(f"{gone} ({self._gone_bytes} bytes) were left out here: {why}; those after them follow")
        for at, mark, lines in self._cut:
            self._append(self._stamped(at, mark, lines))
        self._cut.clear()
        self._gone.clear()
        self._cut_bytes = self._gone_bytes = 0

    def say(self, message: str) -> None:
        """A line of the platform's own; it is written even if the log is full."""
        one_line = message.replace("\n", " ").replace("\0", " ")
        self._append(f"{micros()} s {one_line}\n".encode())

    def settle(self) -> bool:
        """Write what a full disk had no room for; whether nothing waits any more."""
        return self._lines.settle()

    def give_up(self) -> None:
        """Lose what waits."""
        self._lines.give_up()

    def close(self) -> None:
        """Let go of the file."""
        self._lines.close()

    def _leave_out(self, mark: str, lines: bytes) -> None:
        """Keep them for a while, as they are: of most of them nothing is ever done."""
        self._cut.append((micros(), mark, lines))
        self._cut_bytes += len(lines)
        while self._cut_bytes > self._limits.last:
            _, mark, gone = self._cut.popleft()
            self._cut_bytes -= len(gone)
            self._gone_bytes += len(gone)
            self._gone[mark] += gone.count(b"\n")

    def _stamped(self, at: int, mark: str, lines: bytes) -> bytes:
        # NUL is text to a terminal, and what no database takes.
        text = self.hide(lines).decode("utf-8", "replace").replace("\0", "\ufffd")
        prefix = f"{at} {mark} "
        return (prefix + text[:-1].replace("\n", f"\n{prefix}") + "\n").encode()

    def _append(self, block: bytes) -> None:
        if self._dropping:
            block = f"{micros()} s the disk was full: lines before this one were dropped\n".encode() + block
        self._dropping = not self._lines.append(block)


class RememberingLog(OutputLog):
    """The same, of lines that are the platform's whoever printed them; `last` are the last so many, without stamps."""

    def __init__(self, path: Path, count: int, hide: Redactor) -> None:
        super().__init__(path, hide=hide)
        self.last: deque[str] = deque(maxlen=count)

    def write(self, mark: str, lines: bytes) -> None:
        """Append whole `lines` under the mark s, whatever `mark` is."""
        self.last.extend(line for line in self.hide(lines).decode("utf-8", "replace").splitlines() if line.strip())
        super().write("s", lines)


class ResumedLog(OutputLog):
    """A log that is gone on with, of a job whose output comes again from its first byte: what it has is left out."""

    def __init__(self, path: Path, hide: Redactor) -> None:
        self._there = {"o": 0, "e": 0}
        size = 0
        with suppress(FileNotFoundError), path.open("rb") as file:
            for line in file:
                size += len(line)
                _, mark, text = line.split(b" ", 2)
                if mark in (b"o", b"e"):
                    self._there[mark.decode()] += 1
                elif left_out := _LEFT_OUT.match(text):
                    self._there["o"] += int(left_out[1])
                    self._there["e"] += int(left_out[2])
        super().__init__(path, Limits(total=LOG_BYTES - size), hide)

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
        if self._log.cutting:
            time.sleep(_CUT_PAUSE_S)
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
        """The line that was begun is a line now, and the last of what was cut out is written down."""
        if self._rest:
            self._log.write(self._mark, self._shortened(self._rest) + b"\n")
            self._rest = b""
        self._log.rejoin()

    def _take(self, fresh: bytes) -> None:
        whole, newline, rest = (self._rest + fresh).rpartition(b"\n")
        if newline:
            self._log.write(self._mark, self._shortened(whole) + b"\n")
        # A secret of which only the beginning is there must not be cut: it would be known by neither half.
        while len(rest) >= LINE_BYTES + self._log.hide.longest:
            rest = self._log.hide(rest)
            cut = _cut(rest)
            self._log.write(self._mark, rest[:cut] + b"\n")
            rest = rest[cut:]
        self._rest = rest

    def _shortened(self, lines: bytes) -> bytes:
        return lines if len(lines) <= LINE_BYTES else _shorten(self._log.hide(lines))


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
