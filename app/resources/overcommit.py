"""Overcommitment: how much of a machine is given away, by the ratios of its pool. GPUs are never overcommitted."""

from collections.abc import Sequence

from sqlalchemy import select

from app.core.uow import UnitOfWork
from app.resources.models import Allocation, Node, Pool
from trellis.errors import Conflict

ONE = 1000


class Overcommitted(Conflict):
    """What is held would no longer be what there is to hold."""

    code = "overcommitted"
    title = "What is held there does not allow it"


def give(node: Node, pool: Pool | None) -> None:
    """Let (locked) `node` have what its pool makes of its real amounts."""
    cpu, memory = (pool.cpu_overcommit_milli, pool.memory_overcommit_milli) if pool else (ONE, ONE)
    node.cpu_milli = node.real_cpu_milli * cpu // ONE
    node.memory_bytes = node.real_memory_bytes * memory // ONE


def give_anew(uow: UnitOfWork, nodes: Sequence[Node], pool: Pool | None) -> None:
    """The same for many (locked) ones.

    Raises: Overcommitted where one's jobs hold more than it would then have, or somebody holds it whole, who would
    then no longer.
    """
    ids = [node.id for node in nodes]
    live = (Allocation.node_id.in_(ids), Allocation.exclusive, Allocation.released_at.is_(None))
    held = select(Allocation.node_id).where(*live, Allocation.job_id.is_(None))
    whole = set(uow.session.execute(held).scalars())
    for node in nodes:
        before = (node.cpu_milli, node.memory_bytes)
        give(node, pool)
        if node.cpu_milli_used > node.cpu_milli or node.memory_bytes_used > node.memory_bytes:
            raise Overcommitted(f"what runs on node {node.name} holds more than it would then have: wait, or cordon it")
        if node.id in whole and before != (node.cpu_milli, node.memory_bytes):
            raise Overcommitted(f"node {node.name} is held whole, and would then be more: wait, or give it back")
