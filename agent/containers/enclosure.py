"""A control group around a replica's container, of the agent's own: it outlives the container, and so do its counts.

An engine makes the container's group below the one that it is told, and in every hierarchy by the same path; with it
goes all it knew. Here the memory limit is set, so that it is here that being over it is counted.
"""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from agent.cgroups import Limits
from agent.reading import read_small

_LEAST_BYTES = 16 << 20
_REMOVED_WITHIN_S = 5.0
_AGAIN_S = 0.02
_CONTROLLERS = "+memory +pids +cpu"


def folder(home: str) -> str:
    """The name of the group that all those of a node are in."""
    return f"trellis-{hashlib.sha256(home.encode()).hexdigest()[:12]}-containers"


@dataclass(frozen=True, slots=True)
class Enclosure:
    """`hierarchies` as in `agent.containers.site.Site`; `path` is the same in each."""

    hierarchies: dict[str, str]
    path: str

    @property
    def old(self) -> bool:
        """Whether memory is counted in version 1."""
        return "memory" in self.hierarchies

    def make(self, limits: Limits) -> None:
        """Make it. Raises OSError."""
        if self.old:
            for name in {"memory", "cpuacct"} & self.hierarchies.keys():
                os.makedirs(self.hierarchies[name] + self.path, exist_ok=True)
        else:
            above = self.hierarchies[""] + os.path.dirname(self.path)
            os.makedirs(above, exist_ok=True)
            for each in (self.hierarchies[""], above):
                _write(f"{each}/cgroup.subtree_control", _CONTROLLERS)
            os.makedirs(self.hierarchies[""] + self.path, exist_ok=True)
            _write(self._file("memory.oom.group"), 1)
        if limits.memory_bytes:
            _write(self._file("memory.limit_in_bytes", "memory.max"), max(limits.memory_bytes, _LEAST_BYTES))

    @property
    def cpu_s(self) -> float:
        """CPU seconds of all that ran in it so far."""
        if self.old:
            place = self.hierarchies.get("cpuacct", "")
            return _number(f"{place}{self.path}/cpuacct.usage") / 1e9
        return _counted(self._file("cpu.stat"), b"usage_usec") / 1e6

    @property
    def peak_bytes(self) -> int:
        """The most that was held in it together."""
        return _number(self._file("memory.max_usage_in_bytes", "memory.peak"))

    @property
    def pressed(self) -> bool:
        """Whether it was ever to hold more than it may: what was killed then was killed for that."""
        if self.old:
            return _number(self._file("memory.failcnt")) > 0
        return _counted(self._file("memory.events"), b"oom_kill") > 0

    @property
    def out_of_memory(self) -> bool:
        """Whether the kernel ended some of what is in it now, because together they held all they may."""
        if not self.old:
            return self.pressed
        above = self.hierarchies["memory"] + self.path
        return any(_counted(f"{above}/{name}/memory.oom_control", b"oom_kill") for name in _below(above))

    def remove(self) -> None:
        """Let go of it, in every hierarchy; what is still in it keeps it in being."""
        until = time.monotonic() + _REMOVED_WITHIN_S
        left = set(self.hierarchies.values())
        while (left := {place for place in left if not _removed(place + self.path)}) and time.monotonic() < until:
            time.sleep(_AGAIN_S)  # the engine's own process beside the container is on its way out

    def _file(self, first: str, second: str = "") -> str:
        return (
            f"{self.hierarchies['memory' if self.old else '']}{self.path}/{first if self.old or not second else second}"
        )


def leave(hierarchies: dict[str, str], home: str) -> None:
    """Remove the groups of a node's containers in which nothing is left, and what they were in if all went."""
    for place in set(hierarchies.values()):
        _removed(f"{place}/{folder(home)}")


def _below(path: str) -> Iterator[str]:
    with suppress(FileNotFoundError), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                yield entry.name


def _removed(path: str) -> bool:
    for name in list(_below(path)):
        _removed(f"{path}/{name}")
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _number(path: str) -> int:
    try:
        return int(read_small(path))
    except (OSError, ValueError):  # a kernel that does not count it, or it is gone
        return 0


def _counted(path: str, what: bytes) -> int:
    try:
        words = read_small(path).split()
    except OSError:
        return 0
    return int(words[words.index(what) + 1]) if what in words else 0


def _write(path: str, value: int | str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)
