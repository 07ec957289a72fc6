"""How much of what there is is held: by pool, what lies in a pool included."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import column, func, select, table

from app.core.amounts import NOTHING, Amounts
from app.core.uow import UnitOfWork
from app.resources.models import Allocation, Gpu, Node, Pool
from app.resources.pools import list_pools
from trellis.vocabulary import JobState, NodeState

WHOLE = 1000
# Jobs and queues stand above, so their models are not to be had here; some columns of their tables are.
_JOBS = table("jobs", column("queue_id"), column("state"))
_QUEUES = table("queues", column("id"), column("pool_id"))


@dataclass(frozen=True, slots=True)
class Figures:
    """Of nodes that are not lost: how many, how many take work, what they have, what is held, by how many."""

    nodes: int = 0
    nodes_ready: int = 0
    capacity: Amounts = NOTHING
    held: Amounts = NOTHING
    allocations: int = 0
    running: int = 0
    pending: int = 0

    def __add__(self, other: "Figures") -> "Figures":
        return Figures(*(getattr(self, name) + getattr(other, name) for name in Figures.__slots__))


@dataclass(frozen=True, slots=True)
class PoolReport:
    """A pool, the name of the one it lies in, and its figures with those of the pools in it."""

    pool: Pool
    parent: str
    figures: Figures

    @property
    def utilisation(self) -> dict[str, float | None]:
        """The part of each amount that is held; None where there is none of it."""
        return {name: _part(getattr(self.figures.held, name), getattr(self.figures.capacity, name))
                for name in Amounts.__slots__}  # fmt: skip


def report_pools(uow: UnitOfWork, wanted: Iterable[Pool]) -> list[PoolReport]:
    """The pools with their figures, in a fixed number of statements."""
    pools = {pool.id: pool for pool in list_pools(uow)}
    own = _own_figures(uow)
    whole = {pool_id: own.get(pool_id, Figures()) for pool_id in pools}
    for pool in reversed(pools.values()):  # children first: each has all of its own when it is added to its parent
        if pool.parent_id is not None:
            whole[pool.parent_id] += whole[pool.id]
    return [
        PoolReport(pool, pools[pool.parent_id].name if pool.parent_id else "", whole[pool.id])
        for pool in wanted
    ]  # fmt: skip


def capacity_of(uow: UnitOfWork) -> Mapping[UUID | None, Amounts]:
    """What the nodes of each pool have to give away, without the pools in it; None: nodes of no pool."""
    return {pool_id: figures.capacity for pool_id, figures in _own_figures(uow).items()}


def _own_figures(uow: UnitOfWork) -> dict[UUID | None, Figures]:
    there = Node.state != NodeState.LOST
    nodes = (
        select(
            Node.pool_id, func.count(), func.count().filter(Node.state == NodeState.READY),
            func.sum(Node.cpu_milli), func.sum(Node.memory_bytes),
            func.sum(Node.cpu_milli_used), func.sum(Node.memory_bytes_used),
        ).where(there).group_by(Node.pool_id)
    )  # fmt: skip
    gpus = (
        select(Node.pool_id, func.count() * WHOLE, func.sum(Gpu.milli_used))
        .join(Node, Node.id == Gpu.node_id).where(there).group_by(Node.pool_id)
    )  # fmt: skip
    live = (
        select(Node.pool_id, func.count(), func.count(Allocation.job_id.distinct()))
        .join(Node, Node.id == Allocation.node_id).where(there, Allocation.released_at.is_(None)).group_by(Node.pool_id)
    )  # fmt: skip
    waiting = (
        select(_QUEUES.c.pool_id, func.count())
        .join(_JOBS, _JOBS.c.queue_id == _QUEUES.c.id)
        .where(_JOBS.c.state == str(JobState.QUEUED)).group_by(_QUEUES.c.pool_id)
    )  # fmt: skip
    found: dict[UUID | None, Figures] = {}
    for pool_id, count, ready, cpu, memory, cpu_used, memory_used in _rows(uow, nodes):
        found[pool_id] = Figures(count, ready, Amounts(int(cpu), int(memory)), Amounts(int(cpu_used), int(memory_used)))
    for pool_id, milli, used in _rows(uow, gpus):
        known = found[pool_id]
        capacity, held = replace(known.capacity, gpu_milli=milli), replace(known.held, gpu_milli=int(used))
        found[pool_id] = replace(known, capacity=capacity, held=held)
    for pool_id, allocations, jobs in _rows(uow, live):
        found[pool_id] = replace(found[pool_id], allocations=allocations, running=jobs)
    for pool_id, pending in _rows(uow, waiting):
        found[pool_id] = replace(found.get(pool_id, Figures()), pending=pending)
    return found


def _rows(uow: UnitOfWork, statement: Any) -> Sequence[Any]:
    return uow.session.execute(statement).all()


def _part(held: int, capacity: int) -> float | None:
    return round(held / capacity, 4) if capacity else None
