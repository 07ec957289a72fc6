"""One scheduling cycle: rows, plan, rows, in one transaction; cycles take turns."""

import time
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from app.core.events import Event
from app.core.locks import take_turn
from app.core.uow import UnitOfWork
from app.jobs.models import Job
from app.scheduling.apply import apply_plan, note_verdicts
from app.scheduling.mirror import Mirror
from app.scheduling.models import Cycle
from scheduler.config import Config
from trellis.vocabulary import JobState

LOCK = "scheduling"
REST_S = 0.04
LATE_COMMIT = timedelta(seconds=10)
LOOK_BACK = 5000
# After any of these a job may start that could not before.
WAKING = (
    "job.queued", "job.retrying", "job.succeeded", "job.failed", "job.cancelled", "job.timed_out", "job.lost",
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
    if not take_turn(uow, LOCK, lambda: _rest(uow)):
        return Outcome(0, more=False)
    seen = uow.session.execute(select(func.coalesce(func.max(Event.id), 0))).scalar_one()
    config = Config()
    with mirror.lent(uow, config) as planner:
        made = planner.plan(uow.clock.now().timestamp())
        mirror.expect(made)
    started = apply_plan(uow, made)
    note_verdicts(uow, mirror.by_key(made.verdicts))
    _remember(uow, seen)
    return Outcome(started, more=len(made.placements) >= config.max_placements and started > 0)


def _rest(uow: UnitOfWork) -> None:
    """Leave REST_S between two cycles: under load, what happens meanwhile is planned for together."""
    last = uow.session.execute(select(func.extract("epoch", func.clock_timestamp() - Cycle.at))).scalar_one_or_none()
    if last is not None and 0 <= float(last) < REST_S:
        time.sleep(REST_S - float(last))


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
    statement = insert(Cycle).values(id=1, event_id=event_id, at=uow.clock.now())
    fresh = {"event_id": statement.excluded.event_id, "at": statement.excluded.at}
    uow.session.execute(statement.on_conflict_do_update(index_elements=["id"], set_=fresh))
