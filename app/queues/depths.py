"""How many jobs wait and run in a queue."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import column, func, select, table

from app.core.paging import Page
from app.core.uow import UnitOfWork
from app.queues.models import Queue
from trellis.vocabulary import JobState

_HOLDING = [str(state) for state in (JobState.SCHEDULED, JobState.STARTING, JobState.RUNNING, JobState.CHECKPOINTING)]
# Jobs stand above queues, so their model is not to be had here; two columns of their table are.
_JOBS = table("jobs", column("queue_id"), column("state"), column("ended_at"))


@dataclass(frozen=True, slots=True)
class QueueReport:
    """A queue and its depth: jobs of all projects that have not ended, by whether they hold resources."""

    queue: Queue
    pending: int
    running: int


def report(uow: UnitOfWork, queue: Queue) -> QueueReport:
    """One queue with its depth."""
    return _reports(uow, [queue])[0]


def report_page(uow: UnitOfWork, queues: Page[Queue]) -> Page[QueueReport]:
    """A page of queues with their depths, counted by one statement."""
    return Page(_reports(uow, queues.items), queues.next_cursor)


def _reports(uow: UnitOfWork, queues: Sequence[Queue]) -> list[QueueReport]:
    counts = _counts(uow, queues)
    return [QueueReport(queue, *counts.get(queue.id, (0, 0))) for queue in queues]


def _counts(uow: UnitOfWork, queues: Iterable[Queue]) -> dict[object, tuple[int, int]]:
    holding = _JOBS.c.state.in_(_HOLDING)
    statement = (
        select(_JOBS.c.queue_id, func.count().filter(~holding), func.count().filter(holding))
        .where(_JOBS.c.ended_at.is_(None), _JOBS.c.queue_id.in_([queue.id for queue in queues]))
        .group_by(_JOBS.c.queue_id)
    )
    return {queue_id: (pending, running) for queue_id, pending, running in uow.session.execute(statement)}
