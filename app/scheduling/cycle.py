"""One scheduling cycle: rows, plan, rows, in one transaction; cycles take turns."""

import time
from dataclasses import dataclass
from datetime import timedelta
from math import inf

from sqlalchemy import bindparam, func, select
from sqlalchemy.dialects.postgresql import insert

from app.core.events import Event
from app.core.locks import take_turn
from app.core.uow import UnitOfWork
from app.jobs.models import Job
from app.scheduling.apply import apply_plan, keep_promises, note_verdicts
from app.scheduling.mirror import Mirror
from app.scheduling.models import Cycle
from trellis.vocabulary import JobState

_NEWEST = select(func.coalesce(func.max(Event.id), 0))
_SINCE_LAST = select(func.extract("epoch", func.clock_timestamp() - Cycle.at))
_SEEN = insert(Cycle).values(id=1, event_id=bindparam("event_id"), at=bindparam("at"))
_REMEMBER = _SEEN.on_conflict_do_update(
    index_elements=["id"], set_={"event_id": _SEEN.excluded.event_id, "at": _SEEN.excluded.at}
)
LOCK = "scheduling"
# Longer than this no worker is kept waiting: the next tick comes to it.
LONGEST_REST_S = 0.2
LATE_COMMIT = timedelta(seconds=10)
LOOK_BACK = 5000
# After any of these a job may start that could not before.
WAKING = (
    "job.queued", "job.retrying", "job.succeeded", "job.failed", "job.cancelled", "job.timed_out", "job.lost", "job.suspended",
    "node.joined", "node.ready", "node.lost", "node.changed", "queue.open", "queue.changed",
    "topology.changed", "pool.created", "pool.changed", "pool.removed",
    "allocation.released", "reservation.active", "reservation.ended", "reservation.cancelled", "policy.changed",
    "quota.changed", "quota.burst_rested",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many jobs a cycle started, and whether another is due at once: this one stopped at its bounds."""

    started: int
    more: bool


def run_cycle(uow: UnitOfWork, mirror: Mirror) -> Outcome:
    """Plan and apply. Where a cycle waits its turn already, leave it to that one.

    A cycle begins to look only when its turn has come, so whatever was committed before it was asked for is seen.
    """
    interval_s = mirror.interval_s
    if interval_s > LONGEST_REST_S and interval_s - _elapsed_s(uow) > LONGEST_REST_S:
        return Outcome(0, more=False)
    if not take_turn(uow, LOCK, lambda: _rest(uow, interval_s)):
        return Outcome(0, more=False)
    seen = uow.execute(_NEWEST).scalar_one()
    with mirror.lent(uow) as planner:
        sizes = {job_id: one.size for job_id, one in planner.occupants.elastic.items()}
        made = planner.plan(uow.clock.now().timestamp())
        mirror.expect(made)
    started = apply_plan(uow, made, sizes)
    if changed := mirror.promised(made):
        keep_promises(uow, changed)
    note_verdicts(uow, mirror.by_key(made.verdicts))
    _remember(uow, seen)
    return Outcome(started, more=len(made.placements) >= planner.config.max_placements and started > 0)


def _rest(uow: UnitOfWork, interval_s: float) -> None:
    """Leave time between two cycles: under load, what happens meanwhile is planned for together."""
    elapsed_s = _elapsed_s(uow)
    if 0 <= elapsed_s < interval_s:
        time.sleep(min(interval_s - elapsed_s, LONGEST_REST_S))


def _elapsed_s(uow: UnitOfWork) -> float:
    """How long ago the last cycle was; infinite where there was none."""
    last = uow.execute(_SINCE_LAST).scalar_one_or_none()
    return inf if last is None else float(last)


def is_due(uow: UnitOfWork) -> bool:
    """Whether something happened after the last cycle looked: the net below lost messages."""
    last = uow.session.execute(select(Cycle)).scalar_one_or_none()
    if last is not None:
        # An event may have been committed after one of a higher id, so we look back a little over our shoulder.
        new = (Event.id > last.event_id) | (Event.at > last.at - LATE_COMMIT)
        news = select(Event.id).where(Event.id > last.event_id - LOOK_BACK, new, Event.kind.in_(WAKING)).limit(1)
        if uow.session.execute(news).first() is None:
            return False
    return uow.session.execute(select(Job.id).where(Job.state == JobState.QUEUED).limit(1)).first() is not None


def _remember(uow: UnitOfWork, event_id: int) -> None:
    uow.execute(_REMEMBER, {"event_id": event_id, "at": uow.clock.now()})
