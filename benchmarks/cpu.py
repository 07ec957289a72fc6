"""The CPU time of whole trees of processes, those that have come and gone included.

With a control group a tree (version 1 or 2, if we may make one) the kernel counts everything. Without, what is
living is read from /proc together with the children it has waited for; supervisors, which nobody waits for, are
then missed, and `exact` is false.
"""

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_ROOTS = (
    Path("/sys/fs/cgroup/cpuacct"),
    Path("/sys/fs/cgroup/cpu,cpuacct"),
    Path("/sys/fs/cgroup/unified"),
    Path("/sys/fs/cgroup"),
)


@dataclass
class CpuMeter:
    """Counts by name. `close` gives the processes back to where they came from."""

    trees: Mapping[str, int]  # the first process of each
    _groups: dict[str, Path] = field(default_factory=dict)
    _root: Path | None = None

    def __post_init__(self) -> None:
        for root in _ROOTS:
            try:
                self._enter(root)
            except OSError:
                self._leave()
            else:
                self._root = root
                return

    @property
    def exact(self) -> bool:
        """Whether nothing is missed."""
        return self._root is not None

    def seconds(self) -> dict[str, float]:
        """CPU seconds of each tree since some moment in the past."""
        if self.exact:
            return {name: _used_s(group) for name, group in self._groups.items()}
        return {name: _tree_s(pid) for name, pid in self.trees.items()}

    def close(self) -> None:
        """Remove the control groups."""
        self._leave()

    def _enter(self, root: Path) -> None:
        for name, pid in self.trees.items():
            group = root / f"trellis-bench-{os.getpid()}-{name}"
            group.mkdir()
            self._groups[name] = group
            _used_s(group)
            # Twice: a child that was born while its parent was moved is found the second time.
            for one in [*_tree(pid), *_tree(pid)]:
                with suppress(ProcessLookupError):
                    (group / "cgroup.procs").write_text(str(one))

    def _leave(self) -> None:
        for group in self._groups.values():
            for pid in (group / "cgroup.procs").read_text().split():
                with suppress(OSError):  # it may have ended meanwhile
                    (group.parent / "cgroup.procs").write_text(pid)
            with suppress(OSError):
                group.rmdir()
        self._groups.clear()


def machine_busy_s() -> float:
    """CPU seconds that the whole machine has spent not idling."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


def pss_bytes(pid: int) -> int:
    """The memory of a tree, shared pages divided among those who share them."""
    total = 0
    for one in _tree(pid):
        with suppress(psutil.Error):
            total += psutil.Process(one).memory_full_info().pss
    return total


def rss_bytes(pid: int) -> int:
    """The resident memory of a tree's first process."""
    return int(psutil.Process(pid).memory_info().rss)


def _tree(pid: int) -> Iterable[int]:
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [pid, *(child.pid for child in process.children(recursive=True))]
    return []


def _tree_s(pid: int) -> float:
    total = 0.0
    for one in _tree(pid):
        with suppress(psutil.Error):
            total += sum(psutil.Process(one).cpu_times()[:4])  # also of the children it has waited for
    return total


def _used_s(group: Path) -> float:
    if (group / "cpuacct.usage").exists():
        return int((group / "cpuacct.usage").read_text()) / 1e9
    words = dict(line.split() for line in (group / "cpu.stat").read_text().splitlines())
    return int(words["usage_usec"]) / 1e6
