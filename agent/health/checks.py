"""Whether this machine is fit for work: its disk, its memory, the programs that keep jobs in."""

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.ground import Confinement
from trellis.units import format_bytes
from trellis.vocabulary import Severity
from trellis.wire import Finding

# Below these a replica's files may not fit any more, and PostgreSQL is not the only one that stops on a full disk.
LEAST_FREE_BYTES = 1 << 30
SCARCE_SHARE, LEAST_SHARE = 0.08, 0.03
LEAST_INODES_SHARE = 0.02
# Of the memory of the whole machine: below this the kernel ends processes, and not only those of jobs.
LEAST_MEMORY_SHARE = 0.02

Check = Callable[[], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Room:
    """How much of a file system is free, of how much; `inodes` is 0 where it does not count them."""

    free_bytes: int
    total_bytes: int
    free_inodes: int = 0
    inodes: int = 0
    read_only: bool = False


def room_of(path: Path) -> Room:
    """As the kernel tells it. Raises OSError."""
    said = os.statvfs(path)
    return Room(
        said.f_bavail * said.f_frsize, said.f_blocks * said.f_frsize, said.f_favail, said.f_files,
        bool(said.f_flag & os.ST_RDONLY),
    )  # fmt: skip


def judge_room(room: Room, where: str) -> Iterator[Finding]:
    """What is wrong with a file system that replicas are kept on."""
    if room.read_only:
        yield Finding("disk", Severity.BAD, f"{where} is mounted read-only")
        return
    share = room.free_bytes / room.total_bytes if room.total_bytes else 1.0
    free = f"{where} has {format_bytes(room.free_bytes)} ({share:.0%}) free"
    if (share < LEAST_SHARE and room.free_bytes < 10 * LEAST_FREE_BYTES) or room.free_bytes < LEAST_FREE_BYTES:
        yield Finding("disk", Severity.BAD, free)
    elif share < SCARCE_SHARE and room.free_bytes < 50 * LEAST_FREE_BYTES:
        yield Finding("disk", Severity.WARNING, free)
    if room.inodes and room.free_inodes / room.inodes < LEAST_INODES_SHARE:
        yield Finding("inodes", Severity.BAD, f"{where} has {room.free_inodes} of {room.inodes} inodes free")


def check_disk(home: Path, room: Callable[[Path], Room] = room_of) -> Iterator[Finding]:
    """The node's home: whether there is room, and whether it can be written."""
    try:
        found = list(judge_room(room(home), "the node's home"))
        yield from found
        if not found:
            with tempfile.TemporaryFile(dir=home) as file:
                file.write(b"trellis")
                file.flush()
    except OSError as error:
        yield Finding("disk", Severity.BAD, f"the node's home can't be written: {error.strerror}")


def judge_memory(available_bytes: int, total_bytes: int) -> Iterator[Finding]:
    """Whether so little of the machine's memory is left that nothing is safe there."""
    if available_bytes < LEAST_MEMORY_SHARE * total_bytes:
        left = f"{format_bytes(available_bytes)} of {format_bytes(total_bytes)} memory is left"
        yield Finding("memory", Severity.BAD, left)


def check_memory() -> Iterator[Finding]:
    """The machine's memory."""
    memory = psutil.virtual_memory()
    yield from judge_memory(memory.available, memory.total)


def check_programs(confinement: Confinement) -> Iterator[Finding]:
    """Whether what keeps jobs in is still there: it was when the node started."""
    for program in filter(None, (confinement.bwrap, confinement.setpriv)):
        if not os.access(program, os.X_OK):
            yield Finding("isolation", Severity.BAD, f"{program} is gone: jobs can't be kept in")
