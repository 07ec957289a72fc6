"""Parked attempts: taken up where they stand, or ended where their room is needed or their job goes elsewhere.

Where processes stand still, their memory and what they keep on devices is still there. Nothing is held for them, so
others may be placed there; as soon as it all no longer fits, the oldest of them are ended, before the others start.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, exists, select
from sqlalchemy.orm import aliased

from app.core.uow import UnitOfWork
from app.jobs.asks import is_exclusive, roles_in
from app.jobs.attempts import Family, Seat, claim_of
from app.jobs.models import Attempt, Job, Replica
from app.jobs.service import ask_stop
from app.jobs.suspensions import count_parked
from app.resources.allocations import Grant, set_aside
from app.resources.models import Allocation, AllocationSlot, Gpu, Node
from trellis.vocabulary import ENDED_REPLICA_STATES, JobState, ReplicaState, StopReason

_WHOLE = 1000
_NODE_IDS = bindparam("node_ids", type_=ARRAY(Uuid))
_HELD, _TAKEN = aliased(AllocationSlot), aliased(AllocationSlot)
_SLOTS_TAKEN = exists().where(
    _HELD.allocation_id == Replica.id, _TAKEN.gpu_id == _HELD.gpu_id, _TAKEN.slot == _HELD.slot, _TAKEN.live
)
_PARKED = (
    select(Replica.id, Replica.job_id, Replica.node_id, Replica.gpus, Allocation.memory_bytes, _SLOTS_TAKEN.label("cut"))
    .join(Allocation, Allocation.id == Replica.id)
    .where(
        Replica.node_id == any_(_NODE_IDS), Replica.state == ReplicaState.SUSPENDED,
        Replica.suspend_asked_at.is_not(None), Replica.stop_reason.is_(None),
    )
    .order_by(Replica.suspend_asked_at, Replica.id)
)  # fmt: skip
_DEVICES = select(Gpu.node_id, Gpu.index.label("number"), Gpu.milli_used).where(Gpu.node_id == any_(_NODE_IDS))


def take_up(uow: UnitOfWork, placed: Mapping[UUID, Sequence[Seat]]) -> list[Grant]:
    """Have parked attempts of (locked, queued) jobs go on where these were placed; what they must be granted.

    One that was placed elsewhere is ended, and its job waits for that. One that is ending is left alone.
    """
    family = Family.of_jobs(uow, placed)
    grants: list[Grant] = []
    for attempt in family.attempts.values():
        job = family.jobs[attempt.job_id]
        live = [one for one in family.members[attempt.id] if one.state not in ENDED_REPLICA_STATES]
        if job.cancel_asked_at is not None or any(one.stop_reason is not None for one in live):
            continue
        if _is_where(live, placed[job.id]):
            grants += _go_on(uow, job, live, placed[job.id])
        else:
            uow.move(job, JobState.SUSPENDED, reason="its room is elsewhere")
            job.owed = None
            displace(uow, job, live, [job.id])
    if grants:
        set_aside(uow, [claim.replica_id for claim in grants])
        count_parked(uow, {claim.node_id for claim in grants})
    return grants


def _is_where(live: Sequence[Replica], seats: Sequence[Seat]) -> bool:
    """Whether the first of these seats are where the replicas are; an elastic job may be given more."""
    return len(live) <= len(seats) and all(_sits(one, seat) for one, seat in zip(live, seats, strict=False))


def _sits(replica: Replica, seat: Seat) -> bool:
    devices = sorted((gpu.index, milli) for gpu, milli in seat.gpus)
    pieces = sorted((piece.gpu.index, piece.profile, piece.start) for piece in seat.pieces)
    return (
        (replica.node_id, replica.role) == (seat.node.id, seat.role)
        and sorted((gpu["index"], gpu["milli"]) for gpu in replica.gpus) == devices
        and sorted((one["index"], one["profile"], one["start"]) for one in replica.slices or ()) == pieces
    )


def _go_on(uow: UnitOfWork, job: Job, live: Sequence[Replica], seats: Sequence[Seat]) -> Iterable[Grant]:
    uow.move(job, JobState.SCHEDULED, reason="it goes on where it was")
    if job.parked_at is not None:
        job.paused_ms += (uow.clock.now() - job.parked_at) // timedelta(milliseconds=1)
    job.owed = job.parked_at = None
    roles, alone = roles_in(job), is_exclusive(job)
    for replica, seat in zip(live, seats, strict=False):
        replica.suspend_asked_at = None
        replica.version += 1
        uow.emit("replica.resume_asked", replica, node_id=str(replica.node_id), fence=replica.fence)
        yield claim_of(job, replica, seat, roles[seat.role], alone=alone)


def make_way(uow: UnitOfWork, nodes: Iterable[Node], newcomers: Mapping[UUID, Sequence[UUID]]) -> None:
    """End what is parked on these (locked) nodes and no longer fits beside what is granted there.

    `newcomers` are the jobs, by node, that got something there just now. The whole attempt goes, on all its nodes.
    """
    crowded = {node.id: _Crowd.of(node) for node in nodes if node.parked}
    if not crowded:
        return
    uow.session.flush()
    for row in uow.execute(_DEVICES, {"node_ids": list(crowded)}):
        crowded[row.node_id].milli[row.number] = row.milli_used
    parked = uow.execute(_PARKED, {"node_ids": list(crowded)}).all()
    for row in parked:
        crowded[row.node_id].add(row)
    too_many: dict[UUID, list[UUID]] = {}
    for row in parked:
        if crowded[row.node_id].is_in_the_way(row):
            crowded[row.node_id].remove(row)
            too_many.setdefault(row.job_id, []).extend(newcomers.get(row.node_id, ()))
    family = Family.of_jobs(uow, too_many)
    for attempt in family.attempts.values():
        _displace_attempt(uow, family, attempt, too_many[attempt.job_id])


def _displace_attempt(uow: UnitOfWork, family: Family, attempt: Attempt, newcomers: Sequence[UUID]) -> None:
    live = [one for one in family.members[attempt.id] if one.state not in ENDED_REPLICA_STATES]
    displace(uow, family.jobs[attempt.job_id], live, newcomers)


def displace(uow: UnitOfWork, job: Job, live: Sequence[Replica], newcomers: Sequence[UUID]) -> None:
    """End the parked replicas of a (locked) job, for the jobs `newcomers` where it is for some: it begins anew."""
    told = [replica for replica in live if replica.stop_reason is None]
    for replica in told:
        ask_stop(uow, replica, StopReason.DISPLACED, 0)
    if told:
        uow.emit("job.displaced", job, for_jobs=[str(job_id) for job_id in dict.fromkeys(newcomers)])


@dataclass(slots=True)
class _Crowd:
    """What is granted on a node and what is parked there, together."""

    node: Node
    memory_bytes: int
    milli: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, node: Node) -> "_Crowd":
        """What is granted there."""
        return cls(node, node.memory_bytes_used)

    def add(self, row: Any) -> None:
        """Something is parked there."""
        self.memory_bytes += row.memory_bytes
        self.milli.update({gpu["index"]: gpu["milli"] for gpu in row.gpus})

    def remove(self, row: Any) -> None:
        """It is ended."""
        self.memory_bytes -= row.memory_bytes
        self.milli.subtract({gpu["index"]: gpu["milli"] for gpu in row.gpus})

    def is_in_the_way(self, row: Any) -> bool:
        """Whether memory, one of its devices, or a slice of it is now given to others, or the node to one alone."""
        node = self.node
        alone = node.exclusive_for not in (None, row.job_id) and node.memory_bytes_used > 0
        return (
            alone
            or row.cut
            or self.memory_bytes > node.memory_bytes
            or any(self.milli[gpu["index"]] > _WHOLE for gpu in row.gpus)
        )
