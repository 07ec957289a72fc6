"""The process that supervisors are forked from: it has loaded all they need, so that a start costs a fork.

    python -m agent.launcher FD GROUND

FD is its end of a socket pair with the daemon: frames of a four-byte length and JSON, a list of specs in, what
became of them out. It ends with the daemon; the supervisors, sessions of their own, do not.
"""

import gc
import json
import os
import resource
import shutil
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

from agent import bubblewrap
from agent.frames import receive, send
from agent.ground import Ground
from agent.layout import ReplicaDir, lock_file
from agent.supervisor import HELD_BACK, Supervisor
from agent.view import host_view
from trellis.vocabulary import Isolation
from trellis.wire import ReplicaSpec, unpack


def serve(daemon: socket.socket, ground: Ground) -> None:
    """Launch what the daemon asks for until it hangs up."""
    while (frame := receive(daemon)) is not None:
        failed = {}
        for packed in frame:
            spec = unpack(ReplicaSpec, packed)
            try:
                launch(daemon, ground, spec)
            except (OSError, ValueError) as error:
                failed[spec.replica_id] = str(error)
        send(daemon, failed)


def launch(daemon: socket.socket, ground: Ground, spec: ReplicaSpec) -> bool:
    """Fork a supervisor; False if this replica was launched before under this fence."""
    replica = ground.home.replica(spec.replica_id, spec.fence)
    lock = _claim(ground, replica)
    if lock is None:
        return False
    pid = os.fork()
    if pid == 0:
        daemon.close()
        _supervise(ground, replica, spec, lock)
    os.close(lock)  # the supervisor has it now
    return True


def _claim(ground: Ground, replica: ReplicaDir) -> int | None:
    """Make the replica's directory, locked from the moment it can be seen; None if it is there."""
    if replica.path.exists():
        return None
    fresh = ReplicaDir(ground.home.replicas / f".new-{replica.path.name}", replica.replica_id, replica.fence)
    fresh.path.mkdir(mode=0o711)
    lock = lock_file(fresh.lock)
    if lock is None:
        raise OSError("the lock of a new directory is taken")
    try:
        # Fails if the name is taken meanwhile: the old directory is never empty.
        os.rename(fresh.path, replica.path)
    except OSError:
        os.close(lock)
        shutil.rmtree(fresh.path)
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
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries the supervisors
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
