"""What /proc says of other processes."""

import os
import signal
from collections.abc import Iterable

from agent.reading import read_small

_PAGE = os.sysconf("SC_PAGE_SIZE")
_OOM_PREFERENCE = "/proc/self/oom_score_adj"


def descendants(pid: int) -> list[int]:
    """Every process below `pid`, parents first. A process may end or fork meanwhile: ask again."""
    found: list[int] = []
    queue = [pid]
    while queue:
        below = children(queue.pop())
        found += below
        queue += below
    return found


def children(pid: int) -> list[int]:
    """The children of `pid`, and of each of its threads; none if it is gone."""
    below: list[int] = []
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return below
    for task in tasks:
        try:
            text = read_small(f"/proc/{pid}/task/{task}/children")
        except (FileNotFoundError, ProcessLookupError):
            continue
        below += map(int, text.split())
    return below


def started_at(pid: int) -> int | None:
    """When `pid` started, in ticks since boot: with the pid it names one process for good. None if it is gone."""
    try:
        stat = read_small(f"/proc/{pid}/stat")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def is_still(pid: int) -> bool:
    """Whether no thread of `pid`, which was sent STOP, executes anything: all are stopped, gone, or will be at once.

    Who made a child by vfork waits for it in the kernel, where STOP reaches nobody: until the child, stopped itself,
    goes on.
    """
    try:
        tasks = os.listdir(f"/proc/{pid}/task")
    except (FileNotFoundError, ProcessLookupError):
        return True
    states = {_state(f"/proc/{pid}/task/{task}/stat") for task in tasks}
    return states <= {*b"TtZX"} or (states <= {*b"TtZXD"} and _is_among(pid, b"ShdPnd:", signal.SIGSTOP))


def catches(pid: int, signum: int) -> bool:
    """Whether `pid` has a handler for that signal: whoever has none would be ended by most."""
    return _is_among(pid, b"SigCgt:", signum)


def _state(stat_path: str) -> int:
    """The letter of a thread's state; X for one that is gone."""
    try:
        stat = read_small(stat_path)
    except (FileNotFoundError, ProcessLookupError):
        return ord("X")
    return stat[stat.rindex(b")") + 2]


def _is_among(pid: int, mask: bytes, signum: int) -> bool:
    """Whether a signal is in one of the masks that a process's status shows."""
    try:
        status = read_small(f"/proc/{pid}/status")
    except (FileNotFoundError, ProcessLookupError):
        return False
    at = status.find(mask)
    return at >= 0 and bool(int(status[at + len(mask) :].split(None, 1)[0], 16) >> (signum - 1) & 1)


def send(pids: Iterable[int], signum: int) -> None:
    """Signal each of them that still is."""
    for pid in pids:
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            continue


def kill_below(pid: int) -> None:
    """Kill every descendant of `pid` that there is now."""
    send(descendants(pid), signal.SIGKILL)


def memory_bytes(pids: Iterable[int]) -> int:
    """What these processes hold together: private pages of each, shared ones once."""
    private = shared = 0
    for pid in pids:
        try:
            _, rss, in_files, *_ = read_small(f"/proc/{pid}/statm").split()
        except (FileNotFoundError, ProcessLookupError, ValueError):
            continue
        private += (int(rss) - int(in_files)) * _PAGE
        shared = max(shared, _shared_bytes(pid) if int(in_files) else 0)
    return private + shared


def _shared_bytes(pid: int) -> int:
    try:
        status = read_small(f"/proc/{pid}/status")
    except (FileNotFoundError, ProcessLookupError):
        return 0
    at = status.find(b"RssShmem:")
    return int(status[at + 9 :].split(None, 1)[0]) * 1024 if at >= 0 else 0


def oom_preference() -> int:
    """How readily the kernel ends this process: -1000 to 1000."""
    return int(read_small(_OOM_PREFERENCE))


def set_oom_preference(score: int) -> None:
    """How readily the kernel ends this process, and what it starts from now on, when memory runs out: -1000 to 1000."""
    fd = os.open(_OOM_PREFERENCE, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(score).encode())
    finally:
        os.close(fd)
