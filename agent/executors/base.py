"""What every executor can do, and the values that it deals in."""

from dataclasses import dataclass
from typing import Protocol

from agent.cgroups import Group
from agent.ground import Ground
from agent.layout import ReplicaDir
from agent.workspace import Program
from trellis.wire import ReplicaSpec


class StartFailed(Exception):
    """The platform could not start the replica; the message is for the job's owner."""


@dataclass(frozen=True, slots=True)
class Start:
    """All that a start needs. `stdout` and `stderr` are descriptors that the job's output goes to."""

    ground: Ground
    replica: ReplicaDir
    spec: ReplicaSpec
    program: Program
    stdout: int
    stderr: int


@dataclass(slots=True)
class Running:
    """A started replica. `status` is a descriptor on which the sandbox tells of itself; `ended` its wait status.

    `ours` is false for one whose own supervisor is gone: nobody can learn its exit code any more.
    `group` is where its limits hold, if it has one. `cpu_s` and `peak_memory_bytes` are of its processes that ended so far; `spared` says that what is left of it was
    given the time to end by itself.
    """

    pid: int
    ours: bool = True
    status: int | None = None
    ended: int | None = None
    strays: tuple[int, ...] = ()
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    spared: bool = False
    group: Group | None = None


# The signals that end a process by themselves: 128 + one of them, from a shell or whatever keeps the job in, tells of a
# signal.
DEADLY = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 13, 14, 15, 24, 25, 31})


@dataclass(frozen=True, slots=True)
class Exit:
    """How it ended. A replica that a signal ended has code 128 + signal, as in every shell; both None: unknown.

    `start_error` is set if it never came to run; `out_of_memory` if it failed after the kernel had to end some of it
    for the memory it held. `remarks` are for its owner; `fault` says why it is unknown how it ended, where it is.
    """

    code: int | None
    signal: int | None = None
    start_error: str = ""
    out_of_memory: bool = False
    remarks: tuple[str, ...] = ()
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Usage:
    """CPU seconds and the largest process of all that ended so far, and what the living hold now.

    `over` says that the kernel has ended some of them, because together they held all they may.
    """

    cpu_s: float
    peak_memory_bytes: int
    memory_bytes: int
    over: bool = False


class Executor(Protocol):
    """Ten verbs. All but `adopt` are called by the replica's one supervisor, which has no other children."""

    def start(self, start: Start) -> Running:
        """Start it and return at once. Raises StartFailed."""
        ...

    def poll(self, running: Running) -> Exit | None:
        """Its end, once it and everything it started is gone; None before. Never waits."""
        ...

    def signal(self, running: Running, signum: int) -> None:
        """Signal all its processes, also those that left its session."""
        ...

    def freeze(self, running: Running) -> bool:
        """Hold all its processes still; whether all are now. One may start another meanwhile: ask again until so."""
        ...

    def warn(self, running: Running, signum: int) -> bool:
        """Signal those of its processes that have a handler for it; whether any has. Nobody is ended by it."""
        ...

    def members(self, running: Running) -> list[int]:
        """The processes, by this host's numbers, whose use of the machine is the replica's."""
        ...

    def usage(self, running: Running) -> Usage:
        """What it used."""
        ...

    def release(self, running: Running) -> None:
        """Keep nothing of it: it has ended, and its end is written down."""
        ...

    def resume(self, start: Start) -> Running | None:
        """Go on with what a supervisor that died left running, or left ended; None where that can't be.

        Its output is told again from the first byte.
        """
        ...

    def adopt(self, replica: ReplicaDir) -> Running | None:
        """What a supervisor that died left running; None if nothing."""
        ...
