"""Running jobs that must make room: told to end, within their grace, and queued again when they have."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

from app.core.uow import UnitOfWork
from app.jobs.attempts import Family
from app.jobs.service import ask_stop
from trellis.vocabulary import ENDED_REPLICA_STATES, StopReason


@dataclass(frozen=True, slots=True)
class Order:
    """Why a job must go, for which, and how long it has to end."""

    reason: str
    kind: str
    for_job_id: str
    grace_s: int


def evict(uow: UnitOfWork, orders: Mapping[UUID, Order]) -> int:
    """Ask the live replicas of these jobs to end. Returns how many jobs were told.

    Whoever is ending already is left alone, and so is what stands still: it holds nothing that it could give up.
    """
    family = Family.of_jobs(uow, orders)
    told = 0
    for attempt in family.attempts.values():
        job, order = family.jobs[attempt.job_id], orders[attempt.job_id]
        live = [one for one in family.members[attempt.id] if one.state not in ENDED_REPLICA_STATES]
        asked = any(one.stop_reason not in (None, StopReason.SURPLUS) for one in live)
        if job.cancel_asked_at is not None or job.parked_at is not None or not live or asked:
            continue
        for replica in live:
            ask_stop(uow, replica, StopReason.PREEMPTED, order.grace_s)
        job.message = order.reason
        uow.emit("job.eviction_asked", job, reason=order.reason, eviction=order.kind, for_job=order.for_job_id)
        told += 1
    return told
