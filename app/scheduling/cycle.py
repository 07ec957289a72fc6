"""One scheduling cycle: rows, plan, rows, in one transaction; cycles take turns."""

from datetime import timedelta

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from app.core.events import Event
from app.core.locks import run_next
from app.core.uow import UnitOfWork
from app.jobs.models import Job
from app.scheduling.apply import apply_plan
from app.scheduling.models import Cycle
from app.scheduling.snapshot import load_snapshot
from scheduler.config import Config
from scheduler.engine import plan
from trellis.vocabulary import JobState

LOCK = "scheduling"
LATE_COMMIT = timedelta(seconds=10)
LOOK_BACK = 5000
# After any of these a job may start that could not before.
WAKING = (
    "job.queued", "job.retrying", "job.succeeded", "job.failed", "job.cancelled", "job.timed_out", "job.lost",
    "node.joined", "node.ready", "node.lost", "queue.open",
)  # fmt: skip


def run_cycle(uow: UnitOfWork) -> int:
    """Plan and apply; returns how many jobs were started. Where a cycle waits its turn already, leave it to that one.

    A cycle begins to look only when its turn has come, so whatever was committed before it was asked for is seen.
    """
    with run_next(uow, LOCK) as my_turn:
        if not my_turn:
            return 0
    seen = uow.session.execute(select(func.coalesce(func.max(Event.id), 0))).scalar_one()
    started = apply_plan(uow, plan(load_snapshot(uow), Config()))
    _remember(uow, seen)
    return started


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
