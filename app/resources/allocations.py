"""Who holds what now. Granted and released in bulk, always under the node's row lock, checked by the schema."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError

from app.core.access import Permission
from app.core.ids import new_id
from app.core.paging import Page, PageRequest, page
from app.core.uow import UnitOfWork
from app.resources.models import Allocation, AllocationGpu, AllocationSlot, Gpu, Node
from trellis.errors import CapacityTaken, Conflict, Forbidden
from trellis.vocabulary import NodeState


class HeldByJob(Conflict):
    """It goes when its job goes."""

    code = "held_by_job"
    title = "A job holds it: cancel the job"


@dataclass(frozen=True, slots=True)
class Lease:
    """Who holds something without a job, and until when; `exclusive`: all there is of the node."""

    owner_id: UUID | None
    owner_name: str
    expires_at: datetime
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class Grant:
    """What one replica shall hold (its id is the allocation's), or somebody without a job by `lease`; `gpus` maps a
    device's id to milli, `slots` the id of a partitioned one to memory slots. `exclusive`: nobody else may be there.
    """

    replica_id: UUID
    node_id: UUID
    project_id: UUID
    job_id: UUID | None
    holder_name: str
    cpu_milli: int
    memory_bytes: int
    gpus: Mapping[UUID, int]
    lease: Lease | None = None
    slots: Mapping[UUID, tuple[int, ...]] = field(default_factory=dict)
    exclusive: bool = False

    @property
    def alone(self) -> bool:
        """Whether it suffers nobody beside it."""
        return self.exclusive or (self.lease is not None and self.lease.exclusive)


_IDS = bindparam("ids", type_=ARRAY(Uuid))
_LOCKED = select(Node).where(Node.id == any_(_IDS)).order_by(Node.id).with_for_update(key_share=True)
_LOCK = select(Node.id).where(Node.id == bindparam("node_id")).with_for_update(key_share=True)
# In one statement, for it is part of every job's end: the allocations, their devices, the sums that these and the node keep.
_RELEASE = text(
    """
    WITH ended AS (
        UPDATE allocations SET released_at = :now
        WHERE id = ANY(:ids) AND node_id = :node_id AND released_at IS NULL
        RETURNING id, cpu_milli, memory_bytes
    ), freed AS (
        UPDATE allocation_gpus SET live = false FROM ended
        WHERE allocation_gpus.allocation_id = ended.id AND allocation_gpus.live
        RETURNING allocation_gpus.gpu_id, allocation_gpus.milli
    ), slots AS (
        UPDATE allocation_slots SET live = false FROM ended
        WHERE allocation_slots.allocation_id = ended.id AND allocation_slots.live
    ), devices AS (
        UPDATE gpus SET milli_used = gpus.milli_used - parts.milli
        FROM (SELECT gpu_id, sum(milli) AS milli FROM freed GROUP BY gpu_id) parts WHERE gpus.id = parts.gpu_id
    )
    UPDATE nodes SET cpu_milli_used = cpu_milli_used - total.cpu_milli,
                     memory_bytes_used = memory_bytes_used - total.memory_bytes,
                     exclusive_for = CASE WHEN exclusive_for IS NOT NULL AND EXISTS (
                         SELECT FROM allocations
                         WHERE node_id = :node_id AND released_at IS NULL AND exclusive AND id <> ALL(:ids)
                     ) THEN exclusive_for END
    FROM (SELECT sum(cpu_milli) AS cpu_milli, sum(memory_bytes) AS memory_bytes FROM ended) total
    WHERE nodes.id = :node_id AND total.cpu_milli IS NOT NULL
    """
)


# A second name for what is over: what a replica held before it stood still stays on record when it holds that again.
_SET_ASIDE = text(
    """
    WITH former AS (
        SELECT pair.id, pair.other FROM unnest(:ids, :others) AS pair(id, other)
        JOIN allocations ON allocations.id = pair.id AND released_at IS NOT NULL
    ), gpus AS (
        UPDATE allocation_gpus SET allocation_id = former.other FROM former WHERE allocation_id = former.id
    ), slots AS (
        UPDATE allocation_slots SET allocation_id = former.other FROM former WHERE allocation_id = former.id
    )
    UPDATE allocations SET id = former.other FROM former WHERE allocations.id = former.id
    """
).bindparams(bindparam("ids", type_=ARRAY(Uuid)), bindparam("others", type_=ARRAY(Uuid)))


def lock_nodes(uow: UnitOfWork, ids: Collection[UUID]) -> dict[UUID, Node]:
    """The nodes, locked. Sorted by id: every transaction locks nodes in one order."""
    fresh = {"populate_existing": True}
    rows = uow.session.execute(_LOCKED, {"ids": list(ids)}, execution_options=fresh).scalars()
    return {node.id: node for node in rows}


def lock_node(uow: UnitOfWork, node_id: UUID) -> None:
    """The same for one, where nothing of it is asked."""
    uow.execute(_LOCK, {"node_id": node_id})


def grant(uow: UnitOfWork, grants: Collection[Grant], nodes: Mapping[UUID, Node]) -> None:
    """Book all of `grants` on their (locked) nodes, or none. Raises CapacityTaken where one does not fit."""
    if not grants:
        return
    for claim in grants:
        _book(nodes.get(claim.node_id), claim)
    milli = Counter[UUID]()
    for claim in grants:
        milli.update(claim.gpus)
    try:
        _add_milli(uow, milli)
        uow.execute(insert(Allocation), [_row(claim) for claim in grants])
        held = [
            {"allocation_id": claim.replica_id, "gpu_id": gpu_id, "milli": part, "live": True}
            for claim in grants
            for gpu_id, part in claim.gpus.items()
        ]
        if held:
            uow.execute(insert(AllocationGpu), held)
        slots = [
            {"allocation_id": claim.replica_id, "gpu_id": gpu_id, "slot": slot, "live": True}
            for claim in grants
            for gpu_id, taken in claim.slots.items()
            for slot in taken
        ]
        if slots:
            uow.execute(insert(AllocationSlot), slots)
    except IntegrityError as error:
        raise CapacityTaken("a device was given to somebody else meanwhile") from error


def release(uow: UnitOfWork, replica_ids: Collection[UUID], node_id: UUID) -> None:
    """Give back what these replicas hold on a (locked) node; what was given back already is left alone."""
    if replica_ids:
        uow.execute(_RELEASE, {"ids": list(replica_ids), "node_id": node_id, "now": uow.clock.now()})


def set_aside(uow: UnitOfWork, replica_ids: Collection[UUID]) -> None:
    """Keep what these replicas held and gave back under ids of its own: they are about to hold something again."""
    uow.execute(_SET_ASIDE, {"ids": list(replica_ids), "others": [new_id() for _ in replica_ids]})


def _book(node: Node | None, claim: Grant) -> None:
    if node is None or node.state is not NodeState.READY:
        raise CapacityTaken(f"node {claim.node_id} is not ready")
    whose = claim.job_id or claim.replica_id
    if node.exclusive_for not in (None, whose):
        raise CapacityTaken(f"node {node.name} is held by one job alone")
    if claim.alone and node.exclusive_for is None:
        if node.cpu_milli_used or node.memory_bytes_used:
            raise CapacityTaken(f"node {node.name} is not empty")
        node.exclusive_for = whose
    node.cpu_milli_used += claim.cpu_milli
    node.memory_bytes_used += claim.memory_bytes
    if node.cpu_milli_used > node.cpu_milli or node.memory_bytes_used > node.memory_bytes:
        raise CapacityTaken(f"node {node.name} has less left than was planned with")


def _add_milli(uow: UnitOfWork, milli: Mapping[UUID, int]) -> None:
    if not milli:
        return
    change = update(Gpu).where(Gpu.id == bindparam("gpu")).values(milli_used=Gpu.milli_used + bindparam("part"))
    rows = [{"gpu": gpu_id, "part": part} for gpu_id, part in sorted(milli.items())]
    uow.execute(change, rows)


def _row(claim: Grant) -> dict[str, object]:
    lease = claim.lease
    return {
        "owner_id": lease and lease.owner_id,
        "owner_name": lease.owner_name if lease else "",
        "exclusive": claim.alone,
        "expires_at": lease and lease.expires_at,
        "id": claim.replica_id,
        "node_id": claim.node_id,
        "project_id": claim.project_id,
        "job_id": claim.job_id,
        "holder_name": claim.holder_name,
        "cpu_milli": claim.cpu_milli,
        "memory_bytes": claim.memory_bytes,
    }


def live_on(uow: UnitOfWork, node_ids: Iterable[UUID]) -> list[Allocation]:
    """What the actor may see of what is held on these nodes."""
    statement = uow.visible(Allocation).where(Allocation.node_id.in_(list(node_ids)), Allocation.released_at.is_(None))
    return list(uow.session.execute(statement.order_by(Allocation.created_at).limit(1000)).scalars())


def count_left(uow: UnitOfWork, nodes: Collection[Node]) -> dict[UUID, int]:
    """How many hold something of these nodes, whoever they are, or stand still there."""
    live = (Allocation.node_id.in_([node.id for node in nodes]), Allocation.released_at.is_(None))
    holders = func.count(func.distinct(func.coalesce(Allocation.job_id, Allocation.id)))
    counts = select(Allocation.node_id, holders).where(*live).group_by(Allocation.node_id)
    held: dict[UUID, int] = {row[0]: row[1] for row in uow.session.execute(counts)}
    return {node.id: held.get(node.id, 0) + node.parked for node in nodes}


def slots_used(uow: UnitOfWork, gpu_ids: Collection[UUID]) -> dict[UUID, list[int]]:
    """The memory slots of these partitioned devices that slices hold; asks nobody where there is none."""
    found: dict[UUID, list[int]] = {}
    if gpu_ids:
        held = select(AllocationSlot.gpu_id, AllocationSlot.slot).where(
            AllocationSlot.live, AllocationSlot.gpu_id.in_(gpu_ids)
        )
        for gpu_id, slot in uow.session.execute(held.order_by(AllocationSlot.gpu_id, AllocationSlot.slot)):
            found.setdefault(gpu_id, []).append(slot)
    return found


@dataclass(frozen=True, slots=True)
class AllocationReport:
    """What is held, on which node, and which of its devices: pairs of index and milli."""

    allocation: Allocation
    node: str
    gpus: list[dict[str, int]]


def page_of_live(uow: UnitOfWork, request: PageRequest, filters: Mapping[str, UUID]) -> Page[Allocation]:
    """One page of what is held now, of the actor's projects; `filters` are columns and what they must be."""
    wanted = [getattr(Allocation, name) == value for name, value in filters.items()]
    statement = uow.visible(Allocation).where(Allocation.released_at.is_(None), *wanted)
    return page(uow, statement, Allocation, request)


def report(uow: UnitOfWork, allocations: Collection[Allocation]) -> list[AllocationReport]:
    """Allocations with the names of their nodes, and their devices."""
    ids = [allocation.id for allocation in allocations]
    nodes = select(Node.id, Node.name).where(Node.id.in_({allocation.node_id for allocation in allocations}))
    names = {row.id: row.name for row in uow.session.execute(nodes)}
    gpus: dict[UUID, list[dict[str, int]]] = {allocation_id: [] for allocation_id in ids}
    devices = (
        select(AllocationGpu.allocation_id, Gpu.index, AllocationGpu.milli)
        .join(Gpu, Gpu.id == AllocationGpu.gpu_id)
        .where(AllocationGpu.allocation_id.in_(ids))
        .order_by(Gpu.index)
    )
    for allocation_id, index, milli in uow.session.execute(devices):
        gpus[allocation_id].append({"index": index, "milli": milli})
    return [AllocationReport(a, names[a.node_id], gpus[a.id]) for a in allocations]


def give_back(uow: UnitOfWork, allocation_id: UUID, *, force: bool) -> None:
    """Release what somebody holds without a job; what was given back already is left alone.

    Raises: Forbidden for somebody else's without `force`, which takes an administrator of the project; HeldByJob.
    """
    allocation = uow.get(Allocation, allocation_id)
    uow.require(Permission.ALLOCATION_WRITE, allocation.project_id)
    if allocation.job_id is not None:
        raise HeldByJob(f"job {allocation.job_id} holds it: cancel that")
    if allocation.owner_id != uow.actor.id:
        if not force:
            raise Forbidden(f"it is {allocation.owner_name}'s: administrators may give it back with force")
        uow.require(Permission.PROJECT_WRITE, allocation.project_id)
    _give_back(uow, [allocation], reason="force" if force else "given back")


def release_expired(uow: UnitOfWork) -> None:
    """Give back what is held without a job and whose time is over."""
    over = select(Allocation).where(Allocation.released_at.is_(None), Allocation.expires_at <= uow.clock.now())
    _give_back(uow, uow.session.execute(over.order_by(Allocation.id).limit(500)).scalars().all(), reason="expired")


def _give_back(uow: UnitOfWork, allocations: Collection[Allocation], reason: str) -> None:
    if allocations:
        lock_nodes(uow, {allocation.node_id for allocation in allocations})
    for allocation in allocations:
        # Under the node's lock: whoever was faster has released it by now, and told of it.
        uow.session.refresh(allocation)
        if allocation.released_at is None:
            release(uow, [allocation.id], allocation.node_id)
            uow.emit("allocation.released", allocation, reason=reason)
