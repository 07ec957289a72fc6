"""`Plan` to rows: placements become attempts with what they hold, verdicts become words for those who wait."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from math import ceil
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from app.core.uow import UnitOfWork
from app.jobs.attempts import Opened, Seat, open_attempt, store_attempts
from app.jobs.evictions import Order, evict
from app.jobs.models import ClassVerdict, Job
from app.resources.allocations import grant, lock_nodes
from app.resources.models import Gpu, Node
from scheduler.plan import Eviction, Placement, Plan, Verdict
from trellis.vocabulary import JobState, NodeState

_STILL_QUEUED = (
    select(Job)
    .where(Job.id == any_(bindparam("ids", type_=ARRAY(Uuid))), Job.state == JobState.QUEUED)
    .order_by(Job.id)
    .with_for_update(key_share=True)
)
_VERDICTS = select(
    ClassVerdict.class_key, ClassVerdict.reason, ClassVerdict.message, ClassVerdict.head_job_id, ClassVerdict.starts_at
)


def apply_plan(uow: UnitOfWork, plan: Plan) -> int:
    """Open an attempt for every placement whose job still waits. Returns how many started.

    Raises: CapacityTaken where a node has less left than the plan was made with: make a new plan.
    """
    started = _place(uow, plan.placements) if plan.placements else 0
    if plan.evictions:
        evict(uow, {UUID(one.job_id): _order(one) for one in plan.evictions})
    return started


def _order(eviction: Eviction) -> Order:
    return Order(eviction.reason, str(eviction.kind), eviction.for_job_id, ceil(eviction.grace_s))


def _place(uow: UnitOfWork, placements: Iterable[Placement]) -> int:
    by_job = {UUID(placement.job_id): placement for placement in placements}
    nodes = lock_nodes(uow, {UUID(seat.node_id) for placement in by_job.values() for seat in placement.replicas})
    gpus = _gpus(uow, nodes)
    jobs = uow.session.execute(_STILL_QUEUED, {"ids": list(by_job)}).scalars().all()
    opened: list[Opened] = []
    left = {n.id: (n.cpu_milli - n.cpu_milli_used, n.memory_bytes - n.memory_bytes_used) for n in nodes.values()}
    for job in jobs:
        placement = by_job[job.id]
        if not _has_room(job, placement, nodes, left):
            continue  # the node changed since the plan was made; the next cycle knows
        seats = [
            Seat(seat.index, nodes[UUID(seat.node_id)], [(gpus[UUID(seat.node_id)][i], part) for i, part in seat.gpus])
            for seat in placement.replicas
        ]
        opened.append(open_attempt(uow, job, seats, placement.reason))
    store_attempts(uow, opened)
    grant(uow, [claim for one in opened for claim in one.grants], nodes)
    return len(opened)


def _has_room(job: Job, placement: Placement, nodes: Mapping[UUID, Node], left: dict[UUID, tuple[int, int]]) -> bool:
    """Whether the nodes still have what was planned with; takes it from `left` if so."""
    after = dict(left)
    for seat in placement.replicas:
        node = nodes.get(UUID(seat.node_id))
        if node is None or node.state is not NodeState.READY:
            return False
        cpu, memory = after[node.id]
        after[node.id] = (cpu - job.cpu_milli, memory - job.memory_bytes)
        if min(after[node.id]) < 0:
            return False
    left.update(after)
    return True


def _gpus(uow: UnitOfWork, nodes: Mapping[UUID, Node]) -> dict[UUID, dict[int, Gpu]]:
    with_gpus = [node.id for node in nodes.values() if node.gpu_model]
    found: dict[UUID, dict[int, Gpu]] = {node_id: {} for node_id in nodes}
    if with_gpus:
        for gpu in uow.session.execute(select(Gpu).where(Gpu.node_id.in_(with_gpus))).scalars():
            found[gpu.node_id][gpu.index] = gpu
    return found


def note_verdicts(uow: UnitOfWork, heads: Mapping[str, Verdict]) -> None:
    """Why jobs wait, by the key of their class. Rows that say the same already are not written again."""
    known = {row.class_key: row for row in uow.execute(_VERDICTS)}
    gone = known.keys() - heads.keys()
    if gone:
        uow.session.execute(delete(ClassVerdict).where(ClassVerdict.class_key.in_(gone)))
    rows = [_row(uow, key, verdict) for key, verdict in heads.items()]
    changed = [row for row in rows if not _says_the_same(known.get(str(row["class_key"])), row)]
    if changed:
        statement = insert(ClassVerdict)
        fresh = {name: statement.excluded[name] for name in changed[0] if name != "class_key"}
        uow.session.execute(statement.on_conflict_do_update(index_elements=["class_key"], set_=fresh), changed)


def _row(uow: UnitOfWork, class_key: str, verdict: Verdict) -> dict[str, object]:
    starts_at = None if verdict.starts_at is None else datetime.fromtimestamp(verdict.starts_at, UTC)
    return {
        "class_key": class_key,
        "reason": str(verdict.reason),
        "message": verdict.message,
        "head_job_id": UUID(verdict.job_ids[0]),
        "starts_at": starts_at,
        "decided_at": uow.clock.now(),
    }


def _says_the_same(known: Any, row: Mapping[str, object]) -> bool:
    said = ("reason", "message", "head_job_id", "starts_at") if row["starts_at"] else ("reason", "message", "starts_at")
    return known is not None and all(getattr(known, name) == row[name] for name in said)
