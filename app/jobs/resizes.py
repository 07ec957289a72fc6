"""Elastic jobs that get replicas more while they run, or give some up: the others go on meanwhile, or begin again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from uuid import UUID

from sqlalchemy import select

from app.core.uow import UnitOfWork
from app.jobs.attempts import Family, Seat, seat_all
from app.jobs.models import Job, Replica
from app.jobs.service import ask_stop
from app.resources.allocations import Grant
from app.resources.models import Allocation
from trellis.vocabulary import ENDED_REPLICA_STATES, OnResize, StopReason


@dataclass(frozen=True, slots=True)
class Change:
    """`added` join the running attempt; those at the places `removed` of what the job holds have `grace_s` to end.

    `size` is how many it was thought to have: if it has another number by now, the places may be others'.
    """

    added: Sequence[Seat]
    removed: Sequence[int]
    size: int
    grace_s: int
    reason: str


@dataclass(frozen=True, slots=True)
class Joining:
    """Replicas that are not stored yet, and what they must be granted."""

    replicas: Sequence[Replica]
    grants: Sequence[Grant]


def resize(uow: UnitOfWork, changes: Mapping[UUID, Change]) -> Joining:
    """Change the sizes of running jobs. One that is ending, or is not what it was, is left as it is."""
    family = Family.of_jobs(uow, changes)
    places = _places(uow, changes)
    replicas: list[Replica] = []
    grants: list[Grant] = []
    for attempt in family.attempts.values():
        job, change = family.jobs[attempt.job_id], changes[attempt.job_id]
        members, held = family.members[attempt.id], places.get(attempt.job_id, [])
        leaving = job.cancel_asked_at is not None or job.suspend_asked_at is not None
        if leaving or len(held) != change.size or _is_ending(members):
            continue
        _let_go(uow, family, [held[place] for place in change.removed], change.grace_s)
        if job.spec.get("on_resize") == OnResize.RESTART:
            _begin_again(uow, job, members, change)
            continue
        first = max(one.index for one in members) + 1
        seats = [replace(seat, index=index) for index, seat in enumerate(change.added, first)]
        staying = sum(one.stop_reason is None for one in members)
        joining, claims = seat_all(uow, job, attempt, seats, staying + len(seats))
        replicas += joining
        grants += claims
        uow.emit("job.resized", job, added=len(seats), removed=len(change.removed), reason=change.reason)
    return Joining(replicas, grants)


def _places(uow: UnitOfWork, job_ids: Mapping[UUID, Change]) -> dict[UUID | None, list[UUID]]:
    """What jobs hold, in the order in which the scheduler is told of it."""
    held = select(Allocation.job_id, Allocation.id).where(
        Allocation.job_id.in_(job_ids), Allocation.released_at.is_(None)
    )
    found: dict[UUID | None, list[UUID]] = {}
    for job_id, allocation_id in uow.session.execute(held.order_by(Allocation.id)):
        found.setdefault(job_id, []).append(allocation_id)
    return found


def _is_ending(members: Sequence[Replica]) -> bool:
    """Whether the attempt as a whole is on its way out: one of it has ended, or was told to for another reason."""
    return any(
        one.stop_reason is not StopReason.SURPLUS and (one.stop_reason is not None or one.state in ENDED_REPLICA_STATES)
        for one in members
    )


def _begin_again(uow: UnitOfWork, job: Job, members: Sequence[Replica], change: Change) -> None:
    """Have those that stay save and end: the next attempt has their room again, and more where there is some."""
    grace_s = change.grace_s if change.removed else int(job.spec["grace_s"])
    for one in members:
        if one.stop_reason is None and one.state not in ENDED_REPLICA_STATES:
            ask_stop(uow, one, StopReason.RESIZED, grace_s)
    uow.emit("job.resized", job, added=len(change.added), removed=len(change.removed), reason=change.reason)


def _let_go(uow: UnitOfWork, family: Family, replica_ids: Sequence[UUID], grace_s: int) -> None:
    for replica_id in replica_ids:
        replica = family.replicas.get(replica_id)
        if replica is not None and replica.stop_reason is None and replica.state not in ENDED_REPLICA_STATES:
            ask_stop(uow, replica, StopReason.SURPLUS, grace_s)
