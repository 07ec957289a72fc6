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
import traceback
from dataclasses import replace
from typing import Any, NoReturn

from agent import bubblewrap, privileges, processes
from agent.frames import receive, send
from agent.ground import Ground
from agent.layout import ReplicaDir, lock_file
from agent.supervisor import HELD_BACK, Supervisor
from agent.view import host_view
from trellis.vocabulary import Isolation
from trellis.wire import ReplicaSpec, unpack


def serve(daemon: socket.socket, ground: Ground) -> None:
    """Launch what the daemon asks for until it hangs up, and bury who ends meanwhile."""
    ended, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # the wake-up descriptor tells
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    poller = select.poll()
    for fd in (daemon.fileno(), ended):
        poller.register(fd, select.POLLIN)
    supervisors: set[int] = set()
    while True:
        ready = {fd for fd, _ in poller.poll()}
        if ended in ready:
            os.read(ended, 4096)
            bury(supervisors)
        if daemon.fileno() not in ready:
            continue
        frame = receive(daemon)
        if frame is None:
            return
        failed = {}
        for packed in frame:
            spec = unpack(ReplicaSpec, packed)
            try:
                if pid := launch(daemon, ground, spec):
                    supervisors.add(pid)
            except (OSError, ValueError) as error:
                failed[spec.replica_id] = str(error)
        send(daemon, failed)


def bury(supervisors: set[int]) -> None:
    """Collect who ended. What a supervisor that was killed left running fell to us, and is killed."""
    orphans = False
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            break
        orphans = orphans or status != 0 or pid not in supervisors
        supervisors.discard(pid)
    if orphans:
        strays = [pid for pid in processes.children(os.getpid()) if pid not in supervisors]
        for pid in strays:
            processes.kill_below(pid)
        processes.send(strays, signal.SIGKILL)


def launch(daemon: socket.socket, ground: Ground, spec: ReplicaSpec) -> int | None:
    """Fork a supervisor; its process id, or None if this replica was launched before under this fence."""
    replica = ground.home.replica(spec.replica_id, spec.fence)
    lock = _claim(ground, replica)
    if lock is None:
        return None
    try:
        pid = os.fork()
    except OSError:  # too many processes: a directory that stayed would say that it was launched
        shutil.rmtree(replica.path)
        os.close(lock)
        raise
    if pid == 0:
        daemon.close()
        _supervise(ground, replica, spec, lock)
    os.close(lock)  # the supervisor has it now
    return pid


def _claim(ground: Ground, replica: ReplicaDir) -> int | None:
    """Make the replica's directory, locked from the moment it can be seen; None if it is there."""
    if replica.path.exists():
        return None
    # By our number: a launcher that was killed here must not be in the way of the next one.
    fresh = replace(replica, path=ground.home.replicas / f".new-{replica.path.name}.{os.getpid()}")
    fresh.path.mkdir(mode=0o711)
    lock = None
    try:
        lock = lock_file(fresh.lock)
        # Fails if the name is taken meanwhile: the old directory is never empty.
        os.rename(fresh.path, replica.path)
    except OSError:
        shutil.rmtree(fresh.path)
        if lock is not None:
            os.close(lock)
        if replica.path.exists():
            return None
        raise
    return lock


def _supervise(ground: Ground, replica: ReplicaDir, spec: ReplicaSpec, lock: int) -> NoReturn:
    code = 1
    try:
        os.setsid()
        os.write(lock, f"{os.getpid()}\n".encode())
        Supervisor(ground, replica, spec).run()
        code = 0
    finally:
        if code:
            traceback.print_exc()  # to the launcher's log; the free lock tells the daemon
        os._exit(code)  # nothing of the launcher's is to be tidied up here


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
