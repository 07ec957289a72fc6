"""Rows to what the scheduler is told of jobs: of all of them once, and after that of those that changed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BindParameter, Uuid, any_, bindparam, func, select

from app.core.tables import Word
from app.core.uow import UnitOfWork
from app.jobs.models import Job, Replica
from app.resources.models import Allocation, AllocationGpu, Gpu
from scheduler import snapshot as plain
from trellis.vocabulary import JobState

RUNNING = (JobState.SCHEDULED, JobState.STARTING, JobState.RUNNING, JobState.CHECKPOINTING)


@dataclass(slots=True)
class Classes:
    """One `JobClass` object for all jobs that are equal to the scheduler, and the keys they have in their rows."""

    keys: dict[plain.JobClass, str] = field(default_factory=dict)
    _known: dict[str, plain.JobClass] = field(default_factory=dict)

    def of(self, row: Any) -> plain.JobClass:
        """The class of a row of `jobs`."""
        known = self._known.get(row.class_key)
        if known is None:
            known = self._known[row.class_key] = _job_class(row)
            self.keys[known] = row.class_key
        return known


@dataclass(frozen=True, slots=True)
class Jobs:
    """Jobs that wait, and whoever holds something: jobs that run, and what ended ones have not given back yet."""

    pending: tuple[plain.PendingJob, ...]
    running: tuple[plain.RunningJob, ...]


def load_jobs(uow: UnitOfWork, classes: Classes, ids: Sequence[UUID] | None = None) -> Jobs:
    """The jobs that wait or hold something; of those named by `ids` only, where it is given."""
    rows = uow.execute(_WAITING) if ids is None else uow.execute(_WAITING_AMONG, {"ids": ids})
    return Jobs(tuple(pending_job(row, classes) for row in rows), tuple(_running(uow, classes, ids)))


def load_waiting_in(uow: UnitOfWork, classes: Classes, queue_id: UUID) -> list[plain.PendingJob]:
    """The jobs that wait in one queue."""
    return [pending_job(row, classes) for row in uow.execute(_WAITING_IN, {"queue_id": queue_id})]


def pending_job(row: Any, classes: Classes) -> plain.PendingJob:
    """What a job that waits is to the scheduler; `row` is one of `jobs`, or a `Job` that is not stored (yet)."""
    return plain.PendingJob(str(row.id), row.created_at.timestamp(), classes.of(row))


_COLUMNS = (
    Job.id, Job.class_key, Job.project_id, Job.queue_id, Job.priority, Job.cpu_milli, Job.memory_bytes, Job.gpu_milli,
    Job.gpu_model, Job.replicas, Job.time_limit_s, Job.actor_id,
)  # fmt: skip
_IDS = bindparam("ids", type_=ARRAY(Uuid))
# The state stands in the statement's text: as a parameter it would hide the index of queued jobs from a prepared plan.
_QUEUED: BindParameter[StrEnum] = bindparam("queued", JobState.QUEUED, Word(JobState), literal_execute=True)
_WAITING = select(*_COLUMNS, Job.created_at).where(Job.state == _QUEUED)
_WAITING_AMONG = _WAITING.where(Job.id == any_(_IDS))
_WAITING_IN = _WAITING.where(Job.queue_id == bindparam("queue_id", type_=Uuid()))
_GPUS = (
    select(func.json_agg(func.json_build_array(Gpu.index, AllocationGpu.milli)))
    .select_from(AllocationGpu)
    .join(Gpu, Gpu.id == AllocationGpu.gpu_id)
    .where(AllocationGpu.allocation_id == Allocation.id, AllocationGpu.live)
    .scalar_subquery()
)
_HOLDING = (
    select(
        *_COLUMNS, Job.state, Job.started_at, Job.preemptions, Allocation.node_id, _GPUS.label("gpus"),
        Allocation.cpu_milli.label("held_cpu"), Allocation.memory_bytes.label("held_memory"),
        Allocation.id.label("allocation_id"), Allocation.project_id.label("holder"), Allocation.expires_at,
        Replica.stop_asked_at, Replica.stop_grace_s,
    )
    .outerjoin_from(Allocation, Job, Job.id == Allocation.job_id)
    .outerjoin(Replica, Replica.id == Allocation.id)
    .where(Allocation.released_at.is_(None))
    .order_by(Allocation.id)
)  # fmt: skip
_HOLDING_AMONG = _HOLDING.where(Allocation.job_id == any_(_IDS))


def _job_class(row: Any) -> plain.JobClass:
    models = (row.gpu_model,) if row.gpu_model else ()
    request = plain.Request(row.cpu_milli, row.memory_bytes, row.gpu_milli, models)
    return plain.JobClass(
        project_id=str(row.project_id),
        queue_id=str(row.queue_id),
        roles=(plain.Role(request, row.replicas, row.replicas),),
        priority=row.priority,
        time_limit_s=row.time_limit_s,
        user_id=str(row.actor_id or ""),
    )


def _running(uow: UnitOfWork, classes: Classes, ids: Sequence[UUID] | None) -> Iterable[plain.RunningJob]:
    rows = uow.execute(_HOLDING) if ids is None else uow.execute(_HOLDING_AMONG, {"ids": ids})
    held: dict[UUID, tuple[list[Any], list[plain.Holding]]] = {}
    for row in rows:
        devices = tuple(sorted((index, milli) for index, milli in row.gpus or ()))
        holding = plain.Holding(str(row.node_id), row.held_cpu, row.held_memory, devices)
        if row.id is None:
            yield _held_without_job(row, holding)
        else:
            replicas, holdings = held.setdefault(row.id, ([], []))
            replicas.append(row)
            holdings.append(holding)
    now = uow.clock.now()
    for replicas, holdings in held.values():
        yield _holder(replicas, classes.of(replicas[0]), tuple(holdings), now)


def _held_without_job(row: Any, holding: plain.Holding) -> plain.RunningJob:
    asked = plain.Request(row.held_cpu, row.held_memory, sum(milli for _, milli in holding.gpus))
    job_class = plain.JobClass(str(row.holder), "", (plain.Role(asked),), preemptible=False)
    name = f"allocation {row.allocation_id}"
    return plain.RunningJob(name, job_class, (holding,), ends_by=row.expires_at.timestamp())


def _holder(
    replicas: Sequence[Any], job_class: plain.JobClass, holdings: tuple[plain.Holding, ...], now: datetime
) -> plain.RunningJob:
    row = replicas[0]
    if row.state not in RUNNING:
        # It has ended or waits anew, and a node has not given back yet what an earlier attempt held: nobody to evict.
        return plain.RunningJob(
            left_by(str(row.id)), replace(job_class, preemptible=False, checkpointable=False), holdings
        )
    started_at = (row.started_at or now).timestamp()
    told = [one.stop_asked_at.timestamp() + one.stop_grace_s for one in replicas if one.stop_asked_at is not None]
    return plain.RunningJob(
        str(row.id), job_class, holdings, started_at,
        ends_by=None if row.time_limit_s is None else started_at + row.time_limit_s,
        releasing_at=max(told, default=None),
        preemptions=row.preemptions,
    )  # fmt: skip


def left_by(job_id: str) -> str:
    """The name under which the scheduler knows what an ended attempt of a job still holds."""
    return f"left by {job_id}"
