"""Supervisor processes that are used again: forked once, handed one replica after the other, never two at a time.

A fork of this interpreter and the pages that it copies cost more than all that a supervisor does for a short job.
"""

import os
import signal
import socket
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from agent import privileges
from agent.frames import TAKE_UP, receive, send
from agent.ground import Ground
from agent.layout import lock_file
from agent.supervisor import HELD_BACK, Supervisor, hear_signals
from trellis.wire import ReplicaSpec, unpack

# After so many replicas a process ends, whatever has piled up in it; and no more than that stand by.
SERVES = 200
SPARE = 32


@dataclass(frozen=True, slots=True)
class Standing:
    """A supervisor process as the launcher knows it. `lock` is a file that it holds locked while it lives."""

    pid: int
    stream: socket.socket
    lock: Path

    def hand_over(self, packed: Any) -> None:
        """Have it supervise the replica of this packed spec. Raises OSError if it died or does not listen."""
        send(self.stream, packed)

    def let_go(self) -> None:
        """It ends, at once if it stands by, else after its replica."""
        self.stream.close()


class Standby:
    """All supervisor processes of one launcher. Those that are at work outlive it; those that stand by do not."""

    def __init__(self, ground: Ground, daemon: socket.socket) -> None:
        """`daemon` is a connection of the launcher's, which supervisors must not keep open."""
        self._ground = ground
        self._daemon = daemon
        self._alive: dict[int, Standing] = {}
        self._free: list[Standing] = []
        self._made = 0
        self._heard, self._told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def __contains__(self, pid: int) -> bool:
        return pid in self._alive

    def __len__(self) -> int:
        return len(self._alive)

    def take(self) -> Standing:
        """One that stands by, or a new one. Raises OSError if none can be made."""
        self._hear()
        return self._free.pop() if self._free else self._fork()

    def give_back(self, standing: Standing) -> None:
        """It was not needed after all."""
        self._free.append(standing)

    def dismiss(self) -> None:
        """Let those go that stand by."""
        self._hear()
        for standing in self._free:
            standing.let_go()
        self._free.clear()

    def forget(self, pid: int) -> None:
        """It has ended."""
        if standing := self._alive.pop(pid, None):
            standing.let_go()
            standing.lock.unlink(missing_ok=True)
            if standing in self._free:
                self._free.remove(standing)

    def close(self) -> None:
        """Let all go that stand by, now or later."""
        for standing in self._alive.values():
            standing.let_go()
        os.close(self._heard)
        os.close(self._told)

    def _hear(self) -> None:
        """Learn who stands by again."""
        try:
            told = os.read(self._heard, 4096)
        except BlockingIOError:
            return
        for start in range(0, len(told), 4):
            standing = self._alive.get(int.from_bytes(told[start : start + 4], "big"))
            if standing and len(self._free) < SPARE:
                self._free.append(standing)
            elif standing:
                standing.let_go()

    def _fork(self) -> Standing:
        self._made += 1
        path = self._ground.home.supervisors / f"{os.getpid()}-{self._made}"
        path.unlink(missing_ok=True)  # of an earlier launcher with our number
        lock = lock_file(path)
        if lock is None:
            raise BlockingIOError(f"{path} is locked")
        ours, theirs = socket.socketpair()
        try:
            pid = os.fork()
            if pid == 0:
                self._become(theirs, ours)
            os.write(lock, f"{pid}\n".encode())
        except OSError:
            ours.close()
            path.unlink()
            raise
        finally:
            theirs.close()
            os.close(lock)  # the process has it now
        self._alive[pid] = standing = Standing(pid, ours, path)
        return standing

    def _become(self, stream: socket.socket, *others: socket.socket) -> NoReturn:
        code = 1
        try:
            os.setsid()
            # Whoever holds the launcher's ends of these would keep the others from noticing that it is gone.
            for other in (self._daemon, *others, *(standing.stream for standing in self._alive.values())):
                other.close()
            os.close(self._heard)
            attend(self._ground, stream, self._told)
            code = 0
        finally:
            if code:
                traceback.print_exc()  # to the launcher's log; the free lock tells the daemon
            os._exit(code)  # nothing of the launcher's is to be tidied up here


def attend(ground: Ground, stream: socket.socket, told: int) -> None:
    """Supervise what comes over `stream`, one after the other, and say on `told` when ready for the next.

    Returns when the launcher is gone, after SERVES replicas, or after one that did not end by itself: whatever
    that left behind, in this process or of it, must not meet another.
    """
    privileges.adopt_orphans()
    heard = hear_signals()
    for _ in range(SERVES):
        packed = receive(stream)
        if packed is None:
            return
        if not _supervisor(ground, packed, heard).run() or HELD_BACK & signal.sigpending():
            return
        if _has_children():  # left by a program of the operator's: it must not count as the next job's
            return
        try:
            os.write(told, os.getpid().to_bytes(4, "big"))
        except BrokenPipeError:
            return


def _has_children() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return False
    return True


def _supervisor(ground: Ground, packed: dict[str, Any], heard: int) -> Supervisor:
    """Of a spec, or, where a supervisor died, of what that left."""
    if TAKE_UP in packed:
        return Supervisor.again(ground, ground.home.named(packed[TAKE_UP]), heard)
    spec = unpack(ReplicaSpec, packed)
    return Supervisor(ground, ground.home.replica(spec.replica_id, spec.fence), spec, heard)
