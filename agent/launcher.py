"""The process that supervisors are forked from: it has loaded all they need, so that a start costs a fork.

    python -m agent.launcher FD GROUND

FD is its end of a socket pair with the daemon: frames of a four-byte length and JSON, a list of specs in, what
became of them out. It ends with the daemon; the supervisors, sessions of their own, do not.
"""

import gc
import json
import os
import resource
import select
import shutil
import signal
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent import bubblewrap, privileges, processes
from agent.frames import TAKE_UP, receive, send
from agent.ground import Ground
from agent.layout import Home, ReplicaDir
from agent.standby import Standby
from agent.supervisor import HELD_BACK
from agent.view import host_view
from trellis.vocabulary import Isolation
from trellis.wire import unpack

# With no launch for so long, supervisors that stand by are let go.
CALM_MS = 30_000


def serve(daemon: socket.socket, ground: Ground) -> None:
    """Launch what the daemon asks for until it hangs up, and bury who ends meanwhile."""
    ended, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # the wake-up descriptor tells
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    poller = select.poll()
    for fd in (daemon.fileno(), ended):
        poller.register(fd, select.POLLIN)
    standby = Standby(ground, daemon)
    while True:
        ready = {fd for fd, _ in poller.poll(CALM_MS if len(standby) else None)}
        if not ready:
            standby.dismiss()
        if ended in ready:
            os.read(ended, 4096)
            bury(standby)
        if daemon.fileno() not in ready:
            continue
        frame = receive(daemon)
        if frame is None:
            standby.close()
            return
        failed = {}
        for packed in frame:
            try:
                (take_up if TAKE_UP in packed else launch)(standby, ground.home, packed)
            except (OSError, ValueError) as error:
                failed[packed.get(TAKE_UP) or packed["replica_id"]] = str(error)
        send(daemon, failed)


def bury(standby: Standby) -> None:
    """Collect who ended. What a supervisor that was killed left running fell to us, and is killed."""
    orphans = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            break
        orphans = orphans or status != 0 or pid not in standby
        standby.forget(pid)
    if orphans:
        strays = [pid for pid in processes.children(os.getpid()) if pid not in standby]
        for pid in strays:
            processes.kill_below(pid)
        processes.send(strays, signal.SIGKILL)


def launch(standby: Standby, home: Home, packed: dict[str, Any]) -> None:
    """Have a supervisor take this replica, unless it was launched before under this fence."""
    replica = home.replica(packed["replica_id"], packed["fence"])
    if replica.path.exists():
        return
    standing = standby.take()
    claimed = False
    try:
        claimed = _claim(home, replica, standing.lock)
    finally:
        if not claimed:
            standby.give_back(standing)
    if not claimed:
        return
    try:
        standing.hand_over(packed)
    except OSError:  # it died standing by; a directory that stayed would say that the replica was launched
        standing.let_go()
        shutil.rmtree(replica.path)
        raise


def take_up(standby: Standby, home: Home, packed: dict[str, Any]) -> None:
    """Have a supervisor go on with a replica that has none any more. Raises OSError, ValueError."""
    replica = home.named(packed[TAKE_UP])
    if replica.alive() or not replica.spec.exists():
        return
    standing = standby.take()
    fresh = replica.path / ".lock.new"
    fresh.unlink(missing_ok=True)
    try:
        os.link(standing.lock, fresh)
        os.rename(fresh, replica.lock)
    except OSError:
        standby.give_back(standing)
        raise
    standing.hand_over(packed)


def _claim(home: Home, replica: ReplicaDir, lock: Path) -> bool:
    """Make the replica's directory, locked from the moment it can be seen; False if it is there."""
    # By our number: a launcher that was killed here must not be in the way of the next one.
    fresh = replace(replica, path=home.replicas / f".new-{replica.path.name}.{os.getpid()}")
    fresh.path.mkdir(mode=0o711)
    try:
        os.link(lock, fresh.lock)
        # Fails if the name is taken meanwhile: the old directory is never empty.
        os.rename(fresh.path, replica.path)
    except OSError:
        shutil.rmtree(fresh.path)
        if replica.path.exists():
            return False
        raise
    return True


def _ground(text: str) -> Ground:
    data: dict[str, Any] = json.loads(text)
    return unpack(Ground, data)


def main(argv: list[str]) -> None:
    """The process's entry point."""
    daemon = socket.socket(fileno=int(argv[1]))
    daemon.set_inheritable(False)
    ground = _ground(argv[2])
    os.umask(0o022)  # the modes in our code are meant as written, whoever started the node
    privileges.adopt_orphans()
    signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold a job's secrets
    host_view()
    if ground.confinement.level is Isolation.NAMESPACES:
        bubblewrap.common_files(ground.home_path)
    # Forks share what is never written to: keep the collector's hands off it.
    gc.collect()
    gc.disable()
    gc.freeze()
    serve(daemon, ground)


if __name__ == "__main__":
    main(sys.argv)
