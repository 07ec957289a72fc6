"""What jobs did, by their own account: lines in a file that the platform knows nothing of.

Needs nodes whose isolation is `basic`: stronger levels leave a job no file of the host to write to.
"""

import shlex
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

BASIC = {"TRELLIS_ISOLATION": "basic"}
_PROGRAM = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
file, name, first, later = sys.argv[1:]
seconds = first if os.environ["TRELLIS_ATTEMPT"] == "1" else later
out = os.open(file, os.O_WRONLY | os.O_APPEND)
def say(verb):
    words = [verb, name, os.environ["TRELLIS_ATTEMPT"], os.environ["TRELLIS_FENCE"], str(os.getpid()),
             repr(time.clock_gettime(time.CLOCK_BOOTTIME))]
    os.write(out, (" ".join(words) + chr(10)).encode())
say("start")
ends = time.monotonic() + float(seconds)
while time.monotonic() < ends:
    time.sleep(0.02)
    say("tick")
say("end")
"""


@dataclass(frozen=True, slots=True)
class Mark:
    """One line: `verb` is start, tick or end; `at` is in seconds of the host's boot time."""

    verb: str
    name: str
    attempt: int
    fence: int
    pid: int
    at: float


@dataclass(frozen=True, slots=True)
class Witness:
    """The file, and the commands of jobs that write to it."""

    file: Path

    def prepare(self) -> None:
        """Make the file, open to whoever jobs run as."""
        self.file.touch()
        self.file.chmod(0o666)

    def brief(self, name: str, seconds: float = 0.0) -> list[str]:
        """A cheap command that writes start and end, `seconds` apart."""
        stamp = "$TRELLIS_ATTEMPT $TRELLIS_FENCE $$ 0"
        file, name = shlex.quote(str(self.file)), shlex.quote(name)
        script = f"echo start {name} {stamp} >> {file}; sleep {seconds}; echo end {name} {stamp} >> {file}"
        return ["/bin/sh", "-c", script]

    def guarding(self, name: str, locks: Path, seconds: float) -> list[str]:
        """As `brief`, holding a lock on each device that it was given, below `locks`; it writes `shared` if it can't."""
        stamp = "$TRELLIS_ATTEMPT $TRELLIS_FENCE $$ 0"
        file, name = shlex.quote(str(self.file)), shlex.quote(name)
        script = (
            f"echo start {name} {stamp} >> {file}; "
            f'for device in $(echo $CUDA_VISIBLE_DEVICES | tr , " "); do '
            f"exec 9>> {shlex.quote(str(locks))}/$TRELLIS_NODE-$device; "
            f"flock -n 9 || echo shared {name} {stamp} >> {file}; done; "
            f"sleep {seconds}; echo end {name} {stamp} >> {file}"
        )
        return ["/bin/sh", "-c", script]

    def ticking(self, name: str, seconds: float, then: float) -> list[str]:
        """A command that also writes a tick fifty times a second, and does not heed TERM: it lasts `seconds` at the
        first attempt and `then` at later ones."""
        return [sys.executable, "-c", _PROGRAM, str(self.file), name, str(seconds), str(then)]

    def marks(self, name: str = "") -> list[Mark]:
        """What has been written, by all jobs or by one; whole lines, in the order of writing."""
        split = (line.split() for line in self.file.read_text().splitlines())
        found = [Mark(w[0], w[1], int(w[2]), int(w[3]), int(w[4]), float(w[5])) for w in split]
        return [mark for mark in found if name in ("", mark.name)]

    def counts(self, verb: str) -> Counter[str]:
        """How often each job wrote `verb`."""
        return Counter(mark.name for mark in self.marks() if mark.verb == verb)
