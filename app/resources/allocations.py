"""Who holds what now. Granted and released in bulk, always under the node's row lock, checked by the schema."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from app.core.uow import UnitOfWork
from app.resources.models import Allocation, AllocationGpu, Gpu, Node
from trellis.errors import CapacityTaken
from trellis.vocabulary import NodeState


@dataclass(frozen=True, slots=True)
class Grant:
    """What one replica shall hold; `gpus` maps a device's id to milli."""

    replica_id: UUID
    node_id: UUID
    project_id: UUID
    job_id: UUID
    holder_name: str
    cpu_milli: int
    memory_bytes: int
    gpus: Mapping[UUID, int]


def lock_nodes(uow: UnitOfWork, ids: Collection[UUID]) -> dict[UUID, Node]:
    """The nodes, locked. Sorted by id: every transaction locks nodes in one order."""
    statement = select(Node).where(Node.id.in_(ids)).order_by(Node.id).with_for_update(key_share=True)
    rows = uow.session.execute(statement.execution_options(populate_existing=True)).scalars()
    return {node.id: node for node in rows}


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
        uow.session.execute(insert(Allocation), [_row(claim) for claim in grants])
        held = [
            {"allocation_id": claim.replica_id, "gpu_id": gpu_id, "milli": part, "live": True}
            for claim in grants
            for gpu_id, part in claim.gpus.items()
        ]
        if held:
            uow.session.execute(insert(AllocationGpu), held)
    except IntegrityError as error:
        raise CapacityTaken("a device was given to somebody else meanwhile") from error


def release(uow: UnitOfWork, replica_ids: Collection[UUID], node: Node) -> None:
    """Give back what these replicas hold on `node` (locked); what was given back already is left alone."""
    if not replica_ids:
        return
    ended = (
        update(Allocation)
        .where(Allocation.id.in_(replica_ids), Allocation.node_id == node.id, Allocation.released_at.is_(None))
        .values(released_at=uow.clock.now())
        .returning(Allocation.id, Allocation.cpu_milli, Allocation.memory_bytes)
        .execution_options(synchronize_session=False)
    )
    rows = uow.session.execute(ended).all()
    if not rows:
        return
    node.cpu_milli_used -= sum(row.cpu_milli for row in rows)
    node.memory_bytes_used -= sum(row.memory_bytes for row in rows)
    if not node.gpu_model:
        return
    freed = (
        update(AllocationGpu)
        .where(AllocationGpu.allocation_id.in_([row.id for row in rows]), AllocationGpu.live)
        .values(live=False)
        .returning(AllocationGpu.gpu_id, AllocationGpu.milli)
        .execution_options(synchronize_session=False)
    )
    milli = Counter[UUID]()
    for gpu_id, part in uow.session.execute(freed):
        milli[gpu_id] -= part
    _add_milli(uow, milli)


def _book(node: Node | None, claim: Grant) -> None:
    if node is None or node.state is not NodeState.READY:
        raise CapacityTaken(f"node {claim.node_id} is not ready")
    node.cpu_milli_used += claim.cpu_milli
    node.memory_bytes_used += claim.memory_bytes
    if node.cpu_milli_used > node.cpu_milli or node.memory_bytes_used > node.memory_bytes:
        raise CapacityTaken(f"node {node.name} has less left than was planned with")


def _add_milli(uow: UnitOfWork, milli: Mapping[UUID, int]) -> None:
    if not milli:
        return
    change = update(Gpu).where(Gpu.id == bindparam("gpu")).values(milli_used=Gpu.milli_used + bindparam("part"))
    rows = [{"gpu": gpu_id, "part": part} for gpu_id, part in sorted(milli.items())]
    uow.session.connection().execute(change, rows)


def _row(claim: Grant) -> dict[str, object]:
    return {
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
