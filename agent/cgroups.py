"""Control groups: limits that hold for all of a job's processes together, wherever they went.

Both versions are spoken: version 2 where a subtree was handed to the agent (systemd: `Delegate=yes`,
`DelegateSubgroup=agent`), version 1 where the agent may make directories, which mostly means root. Without either the
other limits stand alone. Source: the kernel's documentation, admin-guide/cgroup-v1 and cgroup-v2.
"""

import hashlib
import os
import signal
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from agent import processes
from agent.reading import read_small

CONTROLLERS = ("memory", "pids", "cpu")
_LEAST_BYTES = 16 << 20
_FEWEST, _FEWEST_A_CPU = 4096, 512
_REMOVED_WITHIN_S = 1.0
_AGAIN_S = 0.005


@dataclass(frozen=True, slots=True)
class Limits:
    """What a replica's processes may have together: `memory_bytes` (0: no limit), and CPUs where others want them, too."""

    memory_bytes: int
    cpu_milli: int

    @property
    def processes(self) -> int:
        """How many there may be, threads included: far more than work takes, far fewer than would hurt the machine."""
        return _FEWEST + _FEWEST_A_CPU * self.cpu_milli // 1000


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Where this node makes groups. `version` is 0 where it can make none.

    `folders` are the directories below which it makes them, `origins` those where its own processes are: by controller
    in version 1, one of each, by the name "", in version 2. Crosses to the launcher as JSON.
    """

    version: int = 0
    folders: dict[str, str] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)

    def group(self, name: str) -> "Group | None":
        """The group of a replica, which need not exist yet; None where there can be none."""
        return Group(self, name) if self.version else None

    def reap(self, known: Collection[str]) -> list[str]:
        """Kill what is in groups of none of the `known` names, and remove those: an agent died, and its files are gone.

        Returns their names.
        """
        names = {
            name for folder in self.folders.values() for name in os.listdir(folder) if os.path.isdir(f"{folder}/{name}")
        }
        strays = sorted(names - set(known))
        for group in filter(None, map(self.group, strays)):
            group.kill()
            group.remove()
        return strays

    def leave(self) -> None:
        """Remove the directories again, where no replica has a group in them; `find` makes them anew."""
        for folder in self.folders.values():
            _removed(folder)


class Group:
    """One replica's group: in version 1 a directory for each controller."""

    def __init__(self, cgroups: Cgroups, name: str) -> None:
        self._cgroups = cgroups
        self._paths = {controller: f"{folder}/{name}" for controller, folder in cgroups.folders.items()}

    def make(self, limits: Limits) -> None:
        """Make it. Raises OSError."""
        for path in self._paths.values():
            os.mkdir(path)
        memory_bytes = max(limits.memory_bytes, _LEAST_BYTES) if limits.memory_bytes else 0
        if self._cgroups.version == 1:
            wishes = {
                "memory/memory.limit_in_bytes": memory_bytes,
                "pids/pids.max": limits.processes,
                "cpu/cpu.shares": max(2, limits.cpu_milli * 1024 // 1000),
            }
        else:
            wishes = {
                "/memory.max": memory_bytes,
                "/memory.oom.group": 1,
                "/pids.max": limits.processes,
                "/cpu.weight": min(max(1, limits.cpu_milli // 10), 10_000),
            }
        for name, value in wishes.items():
            if value:
                controller, file = name.split("/")
                _write(f"{self._paths[controller]}/{file}", value)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have this process in it for a moment, so that what it starts is in it from the first."""
        try:
            for path in self._paths.values():
                _write(f"{path}/cgroup.procs", 0)
            yield
        finally:
            for origin in self._cgroups.origins.values():
                _write(f"{origin}/cgroup.procs", 0)

    def pids(self) -> list[int]:
        """Who is in it; nobody if there is none."""
        found: set[int] = set()
        for path in self._paths.values():
            with suppress(FileNotFoundError, ProcessLookupError):
                found.update(map(int, read_small(f"{path}/cgroup.procs").split()))
        return sorted(found)

    def kill(self) -> None:
        """Kill all that are in it now."""
        if self._cgroups.version == 2:
            with suppress(FileNotFoundError):  # also of kernels before 5.14, which have no such file
                _write(f"{self._paths['']}/cgroup.kill", 1)
                return
        processes.send(self.pids(), signal.SIGKILL)

    @property
    def out_of_memory(self) -> int:
        """How many of its processes the kernel ended because together they held all they may."""
        file = "memory/memory.oom_control" if self._cgroups.version == 1 else "/memory.events"
        return self._count(file, b"oom_kill")

    @property
    def refused(self) -> int:
        """How often it was to have one more process, or thread, than it may."""
        return self._count("pids/pids.events" if self._cgroups.version == 1 else "/pids.events", b"max")

    def remove(self) -> None:
        """Let go of it; what is still in it keeps it in being."""
        until = time.monotonic() + _REMOVED_WITHIN_S
        for path in self._paths.values():
            while not _removed(path) and time.monotonic() < until:
                time.sleep(_AGAIN_S)  # who was killed is still on the way out

    def _count(self, name: str, what: bytes) -> int:
        controller, file = name.split("/")
        try:
            words = read_small(f"{self._paths[controller]}/{file}").split()
        except FileNotFoundError:
            return 0
        return int(words[words.index(what) + 1]) if what in words else 0


def find(home: str, mounts: str = "/proc/self/mountinfo", membership: str = "/proc/self/cgroup") -> Cgroups:
    """Find where groups can be made for the node of this home; those that an earlier agent left empty are removed.

    The other two name the files that say what is mounted where, and in which groups this process is.
    """
    folder = f"trellis-{hashlib.sha256(home.encode()).hexdigest()[:12]}"
    roots, mine = _roots(Path(mounts)), _membership(Path(membership))
    for cgroups in (_second(roots, mine, folder), _first(roots, mine, folder)):
        if cgroups is not None and _works(cgroups):
            for each in cgroups.folders.values():
                for name in os.listdir(each):
                    if os.path.isdir(f"{each}/{name}"):
                        _removed(f"{each}/{name}")
            return cgroups
    return Cgroups()


def _second(roots: dict[str, tuple[str, str]], mine: dict[str, str], folder: str) -> Cgroups | None:
    """Version 2: beside this process's own group, as a group that has processes can hand on no controllers."""
    if "" not in roots or "" not in mine:
        return None
    origin = _below(roots[""], mine[""])
    above = os.path.dirname(origin)
    try:
        offered = set(Path(above, "cgroup.controllers").read_text().split())
        if not offered.issuperset(CONTROLLERS) or Path(above, "cgroup.procs").read_text():
            return None
        wanted = " ".join(f"+{name}" for name in CONTROLLERS)
        for path in (above, f"{above}/{folder}"):
            os.makedirs(path, exist_ok=True)
            _write(f"{path}/cgroup.subtree_control", wanted)
    except OSError:
        return None
    return Cgroups(2, {"": f"{above}/{folder}"}, {"": origin})


def _first(roots: dict[str, tuple[str, str]], mine: dict[str, str], folder: str) -> Cgroups | None:
    """Version 1: below this process's own groups."""
    if not all(name in roots and name in mine for name in CONTROLLERS):
        return None
    origins = {name: _below(roots[name], mine[name]) for name in CONTROLLERS}
    folders = {name: f"{origin}/{folder}" for name, origin in origins.items()}
    try:
        for path in folders.values():
            os.makedirs(path, exist_ok=True)
    except OSError:
        return None
    return Cgroups(1, folders, origins)


def _works(cgroups: Cgroups) -> bool:
    """Make a group, enter it and leave it again: a directory that can be made may still not be ours to use."""
    group = Group(cgroups, f"trial-{os.getpid()}")
    try:
        group.make(Limits(1 << 30, 1000))
        with group.entered():
            entered = os.getpid() in group.pids()
    except OSError:
        return False
    finally:
        group.remove()
    return entered


def _roots(mounts: Path) -> dict[str, tuple[str, str]]:
    """Where each controller's hierarchy is mounted, and from which group on; version 2 by the name ""."""
    found = {}
    for line in mounts.read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        where = fields.split(" ")[4], fields.split(" ")[3]
        if kind == "cgroup2":
            found[""] = where
        elif kind == "cgroup":
            found.update(dict.fromkeys(set(options.split(",")).intersection(CONTROLLERS), where))
    return found


def _membership(membership: Path) -> dict[str, str]:
    """The group that this process is in, by controller; that of version 2 by the name ""."""
    lines = [line.split(":", 2) for line in membership.read_text().splitlines()]
    return {controller: path for _, controllers, path in lines for controller in controllers.split(",")}


def _below(root: tuple[str, str], path: str) -> str:
    mounted, begins = root
    return os.path.normpath(f"{mounted}/{os.path.relpath(path, begins)}")


def _removed(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _write(path: str, value: int | str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)
