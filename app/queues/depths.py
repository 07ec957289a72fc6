"""How many jobs wait and run in a queue, and what they hold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import column, func, select, table

from app.core.amounts import NOTHING, Amounts
from app.core.paging import Page
from app.core.uow import UnitOfWork
from app.queues.models import Queue
from app.resources.models import Allocation, AllocationGpu, Pool
from trellis.vocabulary import JobState

_HOLDING = [str(state) for state in (JobState.SCHEDULED, JobState.STARTING, JobState.RUNNING, JobState.CHECKPOINTING)]
# Jobs stand above queues, so their model is not to be had here; some columns of their table are.
_JOBS = table("jobs", column("id"), column("queue_id"), column("state"), column("created_at"), column("ended_at"))


@dataclass(frozen=True, slots=True)
class QueueReport:
    """A queue and its depth: jobs of all projects that have not ended, by whether they hold resources, and which."""

    queue: Queue
    pool: str | None
    pending: int = 0
    running: int = 0
    waiting_since: datetime | None = None
    held: Amounts = NOTHING


def report(uow: UnitOfWork, queue: Queue) -> QueueReport:
    """One queue with its depth."""
    return _reports(uow, [queue])[0]


def report_page(uow: UnitOfWork, queues: Page[Queue]) -> Page[QueueReport]:
    """A page of queues with their depths, in a fixed number of statements."""
    return Page(_reports(uow, queues.items), queues.next_cursor)


def _reports(uow: UnitOfWork, queues: Sequence[Queue]) -> list[QueueReport]:
    counts, held = _counts(uow, queues), _held(uow, queues)
    named = select(Pool.id, Pool.name).where(Pool.id.in_({queue.pool_id for queue in queues if queue.pool_id}))
    pools: dict[Any, str] = {row.id: row.name for row in uow.session.execute(named)}
    return [
        QueueReport(
            queue, pools.get(queue.pool_id), *counts.get(queue.id, (0, 0, None)), held=held.get(queue.id, NOTHING)
        )
        for queue in queues
    ]


def _counts(uow: UnitOfWork, queues: Iterable[Queue]) -> dict[object, tuple[int, int, datetime | None]]:
    holding = _JOBS.c.state.in_(_HOLDING)
    waiting = func.min(_JOBS.c.created_at).filter(_JOBS.c.state == str(JobState.QUEUED))
    statement = (
        select(_JOBS.c.queue_id, func.count().filter(~holding), func.count().filter(holding), waiting)
        .where(_JOBS.c.ended_at.is_(None), _JOBS.c.queue_id.in_([queue.id for queue in queues]))
        .group_by(_JOBS.c.queue_id)
    )
    return {queue_id: tuple(figures) for queue_id, *figures in uow.session.execute(statement)}


def _held(uow: UnitOfWork, queues: Iterable[Queue]) -> dict[object, Amounts]:
    live = (Allocation.released_at.is_(None), _JOBS.c.queue_id.in_([queue.id for queue in queues]))
    shares = (
        select(_JOBS.c.queue_id, func.sum(Allocation.cpu_milli), func.sum(Allocation.memory_bytes))
        .join(_JOBS, _JOBS.c.id == Allocation.job_id)
        .where(*live)
        .group_by(_JOBS.c.queue_id)
    )
    devices = (
        select(_JOBS.c.queue_id, func.sum(AllocationGpu.milli))
        .join(Allocation, Allocation.id == AllocationGpu.allocation_id)
        .join(_JOBS, _JOBS.c.id == Allocation.job_id)
        .where(*live, AllocationGpu.live)
        .group_by(_JOBS.c.queue_id)
    )
    gpus = {queue_id: int(milli) for queue_id, milli in uow.session.execute(devices)}
    return {
        queue_id: Amounts(int(cpu), int(memory), gpus.get(queue_id, 0))
        for queue_id, cpu, memory in uow.session.execute(shares)
    }
