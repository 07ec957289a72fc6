"""The one guard of outgoing connections: public addresses, and those that the environment of the job allows.

It judges where a connection really goes, not what a URL says: Python announces each `connect` with the address that
was resolved, after every redirect and by whichever library, and a refusal there ends it before a packet leaves.
Libraries in C are handed the address that was judged (`resolve`). It keeps honest code from being used as a way into
the network of others; a job's own code is kept by the sandbox that the job runs in.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from trellis.runtime.stages.faults import StageFailed

_NAT64 = ip_network("64:ff9b::/96")
Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Refused(StageFailed):
    """The connection goes where it may not."""


@dataclass(frozen=True, slots=True)
class Egress:
    """Which networks beside the public ones may be called, each with a port or with any (None)."""

    allowed: tuple[tuple[Network, int | None], ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Egress":
        """`10.1.0.0/16, 127.0.0.1:9000, [fd00::1]:5432` as it stands in a variable. Raises StageFailed."""
        return cls(tuple(_allowance(part.strip()) for part in text.split(",") if part.strip()))

    def check(self, host: str, port: int) -> None:
        """Raises Refused unless the address `host` may be called."""
        address = _plain(ip_address(host.partition("%")[0]))
        if address.is_global and not address.is_multicast:
            return
        for network, only in self.allowed:
            if address.version == network.version and address in network and only in {None, port}:
                return
        raise Refused(
            f"{host} port {port} is not a public address, and the job may not call it: whoever runs the platform "
            "allows private networks in TRELLIS_EGRESS_ALLOW"
        )

    def resolve(self, host: str, port: int) -> str:
        """The address of `host` that may be called, for libraries that connect by themselves. Raises StageFailed."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise StageFailed(f"the host {host} is not known: {error}") from error
        addresses = [str(entry[4][0]) for entry in found]
        for address in addresses:
            self.check(address, port)
        return addresses[0]


_enforced: list[Egress] = []


@contextmanager
def enforce(egress: Egress) -> Iterator[None]:
    """Refuse, from here on and in every thread, connections that `egress` does not allow."""
    _hook()
    _enforced.append(egress)
    try:
        yield
    finally:
        _enforced.remove(egress)


_hooked: list[bool] = []


def _hook() -> None:
    # A hook can't be taken away again: there is one a process, idle while nothing is enforced.
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_judge)


def _judge(event: str, arguments: tuple[object, ...]) -> None:
    if event not in {"socket.connect", "socket.sendto"} or not _enforced:
        return
    target = arguments[-1]
    if not isinstance(target, tuple) or len(target) < 2:
        return  # a socket of this machine's file system: the sandbox decides which there are
    for egress in _enforced:
        egress.check(_numeric(str(target[0])), int(target[1]))


def _numeric(host: str) -> str:
    """A socket may be given a name; then what it stands for is judged, and only an address goes through."""
    try:
        return str(ip_address(host.partition("%")[0]))
    except ValueError as error:
        raise Refused(f"{host}: connections go to addresses, not to names") from error


def _plain(address: Address) -> Address:
    """The IPv4 address that an IPv6 one stands for, if it does."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _allowance(text: str) -> tuple[Network, int | None]:
    host, colon, port = text.rpartition(":")
    bare = text.count(":") == 0 or (text.count(":") > 1 and not text.startswith("["))
    if bare or not colon or text.endswith("]"):
        host, port = text, ""
    try:
        return ip_network(host.strip("[]"), strict=False), int(port) if port else None
    except ValueError as error:
        raise StageFailed(
            f"TRELLIS_EGRESS_ALLOW: {text!r} is no network such as 10.0.0.0/8 or 127.0.0.1:9000"
        ) from error
