"""Rows to what the scheduler is told: all of it once, and after that the jobs that changed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BindParameter, Uuid, any_, bindparam, func, select

from app.core.tables import Word
from app.core.uow import UnitOfWork
from app.jobs.models import Job
from app.queues.models import Queue
from app.resources.models import Allocation, AllocationGpu, Gpu, Node
from scheduler import snapshot as plain
from trellis.vocabulary import JobState, NodeState, QueueState

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


def load_snapshot(uow: UnitOfWork, classes: Classes) -> plain.Snapshot:
    """The cluster, all that wait and all that run, in a fixed number of statements."""
    jobs = load_jobs(uow, classes)
    return plain.Snapshot(
        now=uow.clock.now().timestamp(),
        nodes=_nodes(uow),
        queues=_queues(uow),
        pending=jobs.pending,
        running=jobs.running,
    )


def load_jobs(uow: UnitOfWork, classes: Classes, ids: Sequence[UUID] | None = None) -> Jobs:
    """The jobs that wait or hold something; of those named by `ids` only, where it is given."""
    rows = uow.execute(_WAITING) if ids is None else uow.execute(_WAITING_AMONG, {"ids": ids})
    pending = tuple(plain.PendingJob(str(row.id), row.created_at.timestamp(), classes.of(row)) for row in rows)
    return Jobs(pending, tuple(_running(uow, classes, ids)))


def _nodes(uow: UnitOfWork) -> tuple[plain.Node, ...]:
    free: dict[UUID, list[int]] = {}
    for node_id, used in uow.execute(select(Gpu.node_id, Gpu.milli_used).order_by(Gpu.node_id, Gpu.index)):
        free.setdefault(node_id, []).append(1000 - used)
    columns = (Node.id, Node.name, Node.state, Node.cpu_milli, Node.memory_bytes, Node.cpu_milli_used,
               Node.memory_bytes_used, Node.gpu_model)  # fmt: skip
    return tuple(
        plain.Node(
            id=str(row.id),
            name=row.name,
            ready=row.state is NodeState.READY,
            cpu_milli=row.cpu_milli,
            memory_bytes=row.memory_bytes,
            cpu_milli_free=row.cpu_milli - row.cpu_milli_used,
            memory_bytes_free=row.memory_bytes - row.memory_bytes_used,
            gpu_model=row.gpu_model,
            gpu_milli_free=tuple(free.get(row.id, ())),
        )
        for row in uow.execute(select(*columns).order_by(Node.id))
    )


def _queues(uow: UnitOfWork) -> tuple[plain.Queue, ...]:
    columns = (Queue.id, Queue.name, Queue.state, Queue.weight, Queue.policy)
    return tuple(
        plain.Queue(str(row.id), row.name, row.state is QueueState.PAUSED, row.weight, row.policy)
        for row in uow.execute(select(*columns).order_by(Queue.id))
    )


_COLUMNS = (
    Job.id, Job.class_key, Job.project_id, Job.queue_id, Job.priority, Job.cpu_milli, Job.memory_bytes, Job.gpu_milli,
    Job.gpu_model, Job.replicas, Job.time_limit_s,
)  # fmt: skip
_IDS = bindparam("ids", type_=ARRAY(Uuid))
# The state stands in the statement's text: as a parameter it would hide the index of queued jobs from a prepared plan.
_QUEUED: BindParameter[StrEnum] = bindparam("queued", JobState.QUEUED, Word(JobState), literal_execute=True)
_WAITING = select(*_COLUMNS, Job.created_at).where(Job.state == _QUEUED)
_WAITING_AMONG = _WAITING.where(Job.id == any_(_IDS))
_GPUS = (
    select(func.json_agg(func.json_build_array(Gpu.index, AllocationGpu.milli)))
    .select_from(AllocationGpu)
    .join(Gpu, Gpu.id == AllocationGpu.gpu_id)
    .where(AllocationGpu.allocation_id == Allocation.id, AllocationGpu.live)
    .scalar_subquery()
)
_HOLDING = (
    select(
        *_COLUMNS, Job.state, Job.started_at, Allocation.node_id, _GPUS.label("gpus"),
        Allocation.cpu_milli.label("held_cpu"), Allocation.memory_bytes.label("held_memory"),
    )
    .join(Job, Job.id == Allocation.job_id)
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
    )


def _running(uow: UnitOfWork, classes: Classes, ids: Sequence[UUID] | None) -> Iterable[plain.RunningJob]:
    rows = uow.execute(_HOLDING) if ids is None else uow.execute(_HOLDING_AMONG, {"ids": ids})
    held: dict[UUID, tuple[Any, list[plain.Holding]]] = {}
    for row in rows:
        devices = tuple(sorted((index, milli) for index, milli in row.gpus or ()))
        holding = plain.Holding(str(row.node_id), row.held_cpu, row.held_memory, devices)
        held.setdefault(row.id, (row, []))[1].append(holding)
    now = uow.clock.now()
    for row, holdings in held.values():
        yield _holder(row, classes.of(row), tuple(holdings), now)


def _holder(
    row: Any, job_class: plain.JobClass, holdings: tuple[plain.Holding, ...], now: datetime
) -> plain.RunningJob:
    if row.state not in RUNNING:
        # It has ended or waits anew, and a node has not given back yet what an earlier attempt held.
        return plain.RunningJob(left_by(str(row.id)), job_class, holdings)
    ends_by = None
    if row.time_limit_s is not None:
        ends_by = float((row.started_at or now).timestamp() + row.time_limit_s)
    return plain.RunningJob(str(row.id), job_class, holdings, ends_by=ends_by)


def left_by(job_id: str) -> str:
    """The name under which the scheduler knows what an ended attempt of a job still holds."""
    return f"left by {job_id}"
