"""Finding a port, and finding out who has it."""

import random
import socket
from collections.abc import Iterable
from contextlib import closing

import psutil

from app.cli.errors import StackError

LOOPBACK = "127.0.0.1"
# Below Linux's ephemeral range (32768 and up): a client that keeps knocking on a dead port inside that range can
# end up connected to itself, and then the restarted server finds its port taken.
PRIVATE_PORTS = range(20000, 32000)


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback now."""
    with closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True


def free_port(preferred: int | None = None, avoid: Iterable[int] = ()) -> int:
    """`preferred` if it is free, else any private port that is. Raises StackError when there is none."""
    taken = set(avoid)
    if preferred and preferred not in taken and is_free(preferred):
        return preferred
    for port in random.sample(PRIVATE_PORTS, 200):
        if port not in taken and is_free(port):
            return port
    raise StackError(f"no free port was found between {PRIVATE_PORTS.start} and {PRIVATE_PORTS.stop} on {LOOPBACK}.")


def require_free(port: int, option: str) -> None:
    """Raises StackError that names the port, who holds it if that can be seen, and the `option` to use instead."""
    if not is_free(port):
        holder = holder_of(port)
        by = f" by {holder}" if holder else ""
        raise StackError(f"Port {port} is taken{by}. Stop that program, or choose another port: {option} {port + 10}.")


def holder_of(port: int) -> str:
    """The process that listens on `port` as `name (pid 12)`; empty when the system does not tell us."""
    try:
        listeners = [c for c in psutil.net_connections(kind="tcp") if c.status == psutil.CONN_LISTEN]
        pid = next((c.pid for c in listeners if c.laddr and c.laddr.port == port and c.pid), None)
        return f"{psutil.Process(pid).name()} (pid {pid})" if pid else ""
    except psutil.Error:
        return ""


def answers(port: int, timeout_s: float = 0.5) -> bool:
    """Whether something accepts connections on `port` of the loopback."""
    try:
        with socket.create_connection((LOOPBACK, port), timeout=timeout_s):
            return True
    except OSError:
        return False
