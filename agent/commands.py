"""What Celery tasks call. Both return at once: the daemon does the rest, and does it also when nobody calls."""

from collections.abc import Iterable
from typing import Protocol


class Node(Protocol):
    """What a running daemon can be told."""

    def request_launch(self, pairs: Iterable[tuple[str, int]]) -> None:
        """Start these, once the control plane has said what they are."""
        ...

    def request_look(self) -> None:
        """Ask the control plane at once what should run here."""
        ...


_installed: list[Node] = []


def install(node: Node) -> None:
    """From now on commands go to `node`, and to no other: one daemon a process."""
    _installed[:] = [node]


def launch(pairs: Iterable[tuple[str, int]]) -> None:
    """Start these (replica id, fence), if the control plane still wants them. Raises LookupError before `install`."""
    _node().request_launch(pairs)


def stop(pairs: Iterable[tuple[str, int]]) -> None:
    """End these soon: asks the control plane what is to be ended, and how. Raises LookupError before `install`."""
    if any(True for _ in pairs):
        _node().request_look()


def _node() -> Node:
    if not _installed:
        raise LookupError("no daemon runs in this process")
    return _installed[0]
