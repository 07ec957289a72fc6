"""Ports that replicas are promised, before their programs listen there.

Several nodes may share one host, and know nothing of each other. What they do share is the host's network, and with it
the names of abstract sockets: whoever holds the name of a port has it, as long as it lives, and the kernel forgets it
with its holder. Programs that are no replicas know nothing of that: so the port itself is held too, until the very
moment when the replica's own program starts.
"""

import errno
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress


class NoPort(OSError):
    """None of the node's ports is free."""


class Port:
    """A port of this host that no other replica has. The lock goes with the process, or with `close`."""

    def __init__(self, number: int, name: socket.socket, holder: socket.socket) -> None:
        self.number = number
        self._name = name
        self._holder: socket.socket | None = holder

    @classmethod
    def reserve(cls, ports: Sequence[int]) -> "Port":
        """One of those from the first to the last of `ports`. Raises NoPort."""
        first, last = ports[0], ports[-1]
        count = last - first + 1
        start = secrets.randbelow(count)  # two that look at once seldom look at the same ones
        for offset in range(count):
            number = first + (start + offset) % count
            if (found := _take(number)) is not None:
                return cls(number, *found)
        raise NoPort(f"none of the node's ports {first} to {last} is free: widen TRELLIS_PORTS")

    def let_go(self) -> None:
        """Let the replica's program listen there. No other replica is given the port; other programs could take it."""
        if self._holder is not None:
            self._holder.close()
            self._holder = None

    def is_taken(self) -> bool:
        """Whether somebody listens there; asked when the replica's own program is gone."""
        with socket.socket(socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", self.number))
            except OSError as error:
                return error.errno == errno.EADDRINUSE
        return False

    def close(self) -> None:
        """Give it back."""
        self.let_go()
        self._name.close()


def parse_ports(text: str) -> tuple[int, int]:
    """`"20000-29999"` as the first and the last. Raises ValueError."""
    first, dash, last = text.partition("-")
    with suppress(ValueError):
        ends = int(first), int(last if dash else first)
        if 1024 <= ends[0] <= ends[1] <= 65535:
            return ends
    raise ValueError(f"{text!r} must be ports from 1024 to 65535, such as 20000-29999")


def _take(number: int) -> tuple[socket.socket, socket.socket] | None:
    name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    holder = socket.socket()
    try:
        name.bind(f"\0trellis-port-{number}")
        holder.bind(("", number))
    except OSError as error:
        name.close()
        holder.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return None
        raise
    return name, holder
