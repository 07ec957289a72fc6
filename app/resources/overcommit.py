"""Overcommitment: how much of a machine is given away, by the ratios of its pool. GPUs are never overcommitted."""

from collections.abc import Iterable

from app.resources.models import Node, Pool
from trellis.errors import Conflict

ONE = 1000


class Overcommitted(Conflict):
    """Jobs hold more than would be there."""

    code = "overcommitted"
    title = "Jobs hold more than would be there"


def give(node: Node, pool: Pool | None) -> None:
    """Let (locked) `node` have what its pool makes of its real amounts."""
    cpu, memory = (pool.cpu_overcommit_milli, pool.memory_overcommit_milli) if pool else (ONE, ONE)
    node.cpu_milli = node.real_cpu_milli * cpu // ONE
    node.memory_bytes = node.real_memory_bytes * memory // ONE


def give_anew(nodes: Iterable[Node], pool: Pool | None) -> None:
    """The same for many. Raises Overcommitted where one's jobs hold more than it would then have."""
    for node in nodes:
        give(node, pool)
        if node.cpu_milli_used > node.cpu_milli or node.memory_bytes_used > node.memory_bytes:
            raise Overcommitted(f"what runs on node {node.name} holds more than it would then have: wait, or cordon it")
