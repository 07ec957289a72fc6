"""`Plan` to rows: placements become attempts with what they hold, verdicts become words for those who wait."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from math import ceil
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, delete, select
from sqlalchemy.dialects.postgresql import insert

from app.core.uow import UnitOfWork
from app.jobs.asks import RoleAsks, is_exclusive, roles_in
from app.jobs.attempts import Opened, Piece, Seat, open_attempt, store_attempts
from app.jobs.evictions import Order, evict
from app.jobs.models import ClassVerdict, Job
from app.jobs.parking import make_way, take_up
from app.jobs.resizes import Change, resize
from app.resources.allocations import Grant, grant, lock_nodes
from app.resources.models import Gpu, Node
from scheduler.placement.mig import slots_of
from scheduler.plan import Eviction, Placement, Plan, ReplicaPlacement, Resize, Verdict
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


def apply_plan(uow: UnitOfWork, plan: Plan, sizes: Mapping[str, int]) -> int:
    """Open an attempt for every placement whose job still waits, change the sizes of running jobs, tell who must go.

    `sizes` says how many holdings the jobs to be resized were thought to have. Returns how many started.
    Raises: CapacityTaken where a node has less left than the plan was made with: make a new plan.
    """
    there = _There.of(uow, plan)
    started = _place(uow, plan.placements, there) if plan.placements else 0
    if plan.resizes:
        _resize(uow, plan.resizes, sizes, there)
    make_way(uow, there.nodes.values(), there.newcomers)
    if plan.evictions:
        evict(uow, {UUID(one.job_id): _order(one) for one in plan.evictions})
    return started


@dataclass(frozen=True, slots=True)
class _There:
    """The locked nodes that a plan gives something of, their devices, and what is left of them."""

    nodes: Mapping[UUID, Node]
    gpus: Mapping[UUID, Mapping[int, Gpu]]
    left: dict[UUID, "_Left"]
    newcomers: dict[UUID, list[UUID]] = field(default_factory=dict)

    @classmethod
    def of(cls, uow: UnitOfWork, plan: Plan) -> "_There":
        """Lock them all at once: every transaction locks nodes in one order."""
        placed = [seat for placement in plan.placements for seat in placement.replicas]
        added = [seat for change in plan.resizes for seat in change.added]
        wanted = {UUID(seat.node_id) for seat in (*placed, *added)}
        if not wanted:
            return cls({}, {}, {})
        nodes = lock_nodes(uow, wanted)
        return cls(nodes, _gpus(uow, nodes), {node.id: _Left.of(node) for node in nodes.values()})

    def give(self, uow: UnitOfWork, grants: Sequence[Grant]) -> None:
        """Grant these, and note who got something where. Raises CapacityTaken."""
        grant(uow, grants, self.nodes)
        for claim in grants:
            if claim.job_id is not None:
                self.newcomers.setdefault(claim.node_id, []).append(claim.job_id)

    def devices(self, seat: ReplicaPlacement) -> list[Gpu]:
        """Those that a replica was to have something of."""
        gpus = self.gpus[UUID(seat.node_id)]
        return [gpus[index] for index in {*(index for index, _ in seat.gpus), *(one.device for one in seat.slices)}]

    def seats(self, replicas: Iterable[ReplicaPlacement]) -> list[Seat]:
        """Where these go."""
        return [_seat(one, self.nodes[UUID(one.node_id)], self.gpus[UUID(one.node_id)]) for one in replicas]


def _order(eviction: Eviction) -> Order:
    return Order(eviction.reason, str(eviction.kind), eviction.for_job_id, ceil(eviction.grace_s))


def _place(uow: UnitOfWork, placements: Iterable[Placement], there: _There) -> int:
    by_job = {UUID(placement.job_id): placement for placement in placements}
    jobs = uow.session.execute(_STILL_QUEUED, {"ids": list(by_job)}).scalars().all()
    opened: list[Opened] = []
    parked: dict[UUID, list[Seat]] = {}
    for job in jobs:
        placement = by_job[job.id]
        if not _has_room(job, placement.replicas, there):
            continue  # the node changed since the plan was made; the next cycle knows
        if job.parked_at is not None:
            parked[job.id] = there.seats(placement.replicas)
            continue
        job.owed = None
        opened.append(open_attempt(uow, job, there.seats(placement.replicas), placement.reason))
    store_attempts(uow, opened)
    again = take_up(uow, parked) if parked else []
    there.give(uow, [*(claim for one in opened for claim in one.grants), *again])
    return len(opened) + len({claim.job_id for claim in again})


def _resize(uow: UnitOfWork, resizes: Iterable[Resize], sizes: Mapping[str, int], there: _There) -> None:
    """Let elastic jobs have replicas more where there still is room, and give some up."""
    changes = {}
    statement = select(Job).where(Job.id.in_([UUID(one.job_id) for one in resizes])).order_by(Job.id)
    jobs = {str(job.id): job for job in uow.session.execute(statement).scalars()}
    for one in resizes:
        job = jobs.get(one.job_id)
        if job is not None and _has_room(job, one.added, there):
            seats = there.seats(one.added)
            changes[job.id] = Change(seats, one.removed, sizes[one.job_id], ceil(one.grace_s), one.reason)
    joining = resize(uow, changes)
    uow.insert(joining.replicas)
    there.give(uow, joining.grants)


def _seat(placed: ReplicaPlacement, node: Node, gpus: Mapping[int, Gpu]) -> Seat:
    parts = [(gpus[index], milli) for index, milli in placed.gpus]
    pieces = [
        Piece(gpu := gpus[one.device], one.profile, one.start, slots_of(node.gpu_model, gpu.memory_bytes, one))
        for one in placed.slices
    ]
    return Seat(placed.index, node, parts, pieces, placed.role)


class _Left(NamedTuple):
    """What is left of a node, and who has it for itself alone."""

    cpu_milli: int
    memory_bytes: int
    empty: bool
    exclusive_for: UUID | None

    @classmethod
    def of(cls, node: Node) -> "_Left":
        """As its row says."""
        cpu_milli, memory_bytes = node.cpu_milli - node.cpu_milli_used, node.memory_bytes - node.memory_bytes_used
        return cls(cpu_milli, memory_bytes, not (node.cpu_milli_used or node.memory_bytes_used), node.exclusive_for)

    def without(self, job: Job, role: RoleAsks, *, alone: bool) -> "_Left | None":
        """What a replica leaves; None where it may not be there."""
        if self.exclusive_for not in (None, job.id) or (alone and not self.empty and self.exclusive_for is None):
            return None
        after = _Left(
            self.cpu_milli - role.cpu_milli, self.memory_bytes - role.memory_bytes, False, job.id if alone else None
        )
        return after if min(after.cpu_milli, after.memory_bytes) >= 0 else None


def _has_room(job: Job, replicas: Iterable[ReplicaPlacement], there: _There) -> bool:
    """Whether the nodes still have what was planned with; takes it from what is left if so."""
    roles, alone = roles_in(job), is_exclusive(job)
    after: dict[UUID, _Left] = {}
    for seat in replicas:
        node = there.nodes.get(UUID(seat.node_id))
        if node is None or node.state is not NodeState.READY:
            return False
        if any(gpu.quarantine for gpu in there.devices(seat)):
            return False
        left = after.get(node.id, there.left[node.id]).without(job, roles[seat.role], alone=alone)
        if left is None:
            return False
        after[node.id] = left
    there.left.update(after)
    return True


def _gpus(uow: UnitOfWork, nodes: Mapping[UUID, Node]) -> dict[UUID, dict[int, Gpu]]:
    with_gpus = [node.id for node in nodes.values() if node.gpu_model]
    found: dict[UUID, dict[int, Gpu]] = {node_id: {} for node_id in nodes}
    if with_gpus:
        for gpu in uow.session.execute(select(Gpu).where(Gpu.node_id.in_(with_gpus))).scalars():
            found[gpu.node_id][gpu.index] = gpu
    return found


def keep_promises(uow: UnitOfWork, owed: Mapping[UUID, list[Any] | None]) -> None:
    """What is kept for which jobs, while others make room for them there; None: nothing any more."""
    rows = select(Job).where(Job.id.in_(owed)).order_by(Job.id).with_for_update(key_share=True)
    for job in uow.session.execute(rows).scalars():
        if job.owed != owed[job.id]:
            job.owed = owed[job.id]
            uow.emit("job.promised", job, replicas=len(job.owed or ()))


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
