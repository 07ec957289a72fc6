"""Rows to `Snapshot`, in a fixed number of statements."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import select, text

from app.core.uow import UnitOfWork
from app.jobs.models import Job
from app.queues.models import Queue
from app.resources.models import Allocation, AllocationGpu, Gpu, Node
from scheduler import snapshot as plain
from scheduler.plan import Plan
from trellis.vocabulary import JobState, NodeState, QueueState

# Of jobs that are equal in all but age, the eldest are enough for one plan: those behind can't start before them.
WINDOW = 100
_RUNNING = (JobState.SCHEDULED, JobState.STARTING, JobState.RUNNING, JobState.CHECKPOINTING)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A snapshot, and the class of each of its pending jobs, eldest first."""

    snapshot: plain.Snapshot
    class_keys: Mapping[str, str]

    def exhausted_by(self, made: Plan) -> bool:
        """Whether the plan starts all that was loaded of a class of which there may be more."""
        loaded = Counter(self.class_keys.values())
        placed = Counter(self.class_keys[placement.job_id] for placement in made.placements)
        return any(loaded[key] >= WINDOW and placed[key] == loaded[key] for key in placed)


def load_snapshot(uow: UnitOfWork) -> Loaded:
    """The cluster, what runs on it, and of every class of queued jobs the eldest WINDOW."""
    rows = _pending(uow)
    pending = _pending_jobs(rows)
    snapshot = plain.Snapshot(
        now=uow.clock.now().timestamp(),
        nodes=_nodes(uow) if pending else (),
        queues=_queues(uow) if pending else (),
        pending=pending,
        running=_running(uow) if pending else (),
    )
    return Loaded(snapshot, {job.id: row.class_key for job, row in zip(pending, rows, strict=True)})


def _nodes(uow: UnitOfWork) -> tuple[plain.Node, ...]:
    free: dict[UUID, list[int]] = {}
    for node_id, used in uow.session.execute(select(Gpu.node_id, Gpu.milli_used).order_by(Gpu.node_id, Gpu.index)):
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
        for row in uow.session.execute(select(*columns).order_by(Node.id))
    )


def _queues(uow: UnitOfWork) -> tuple[plain.Queue, ...]:
    columns = (Queue.id, Queue.name, Queue.state, Queue.weight, Queue.policy)
    return tuple(
        plain.Queue(str(row.id), row.name, row.state is QueueState.PAUSED, row.weight, row.policy)
        for row in uow.session.execute(select(*columns).order_by(Queue.id))
    )


# From class to class by the index of queued jobs, and of each the eldest: what this costs depends on the number of
# classes, not on how many wait.
_PENDING = text(
    """
    WITH RECURSIVE classes AS (
        (SELECT class_key FROM jobs WHERE state = 'queued' ORDER BY class_key LIMIT 1)
        UNION ALL
        SELECT (SELECT next.class_key FROM jobs next
                WHERE next.state = 'queued' AND next.class_key > classes.class_key ORDER BY next.class_key LIMIT 1)
        FROM classes WHERE classes.class_key IS NOT NULL
    )
    SELECT eldest.* FROM classes CROSS JOIN LATERAL (
        SELECT id, class_key, project_id, queue_id, priority, created_at, cpu_milli, memory_bytes, gpu_milli, gpu_model,
               replicas, time_limit_s
        FROM jobs WHERE state = 'queued' AND class_key = classes.class_key
        ORDER BY priority, created_at, id LIMIT :window
    ) eldest
    WHERE classes.class_key IS NOT NULL
    ORDER BY created_at, id
    """
)


def _pending(uow: UnitOfWork) -> Sequence[Any]:
    return uow.session.execute(_PENDING, {"window": WINDOW}).all()


def _pending_jobs(rows: Sequence[Any]) -> tuple[plain.PendingJob, ...]:
    classes: dict[str, plain.JobClass] = {}
    for row in rows:
        if row.class_key not in classes:
            classes[row.class_key] = _job_class(row)
    return tuple(plain.PendingJob(str(row.id), row.created_at.timestamp(), classes[row.class_key]) for row in rows)


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


def _running(uow: UnitOfWork) -> tuple[plain.RunningJob, ...]:
    gpus = _held_gpus(uow)
    columns = (Job.id, Job.project_id, Job.queue_id, Job.priority, Job.started_at, Job.time_limit_s,
               Job.gpu_milli, Job.gpu_model, Job.replicas, Allocation.id.label("held"), Allocation.node_id,
               Allocation.cpu_milli, Allocation.memory_bytes)  # fmt: skip
    statement = (
        select(*columns)
        .join(Allocation, (Allocation.job_id == Job.id) & Allocation.released_at.is_(None))
        .where(Job.state.in_(_RUNNING))
        .order_by(Job.id, Allocation.id)
    )
    now = uow.clock.now()
    found: dict[UUID, tuple[Any, list[plain.Holding]]] = {}
    for row in uow.session.execute(statement):
        holding = plain.Holding(str(row.node_id), row.cpu_milli, row.memory_bytes, tuple(gpus.get(row.held, ())))
        found.setdefault(row.id, (row, []))[1].append(holding)
    return tuple(
        plain.RunningJob(str(job_id), _job_class(row), tuple(held), ends_by=_ends_by(row, now))
        for job_id, (row, held) in found.items()
    )


def _ends_by(row: Any, now: datetime) -> float | None:
    if row.time_limit_s is None:
        return None
    return float((row.started_at or now).timestamp() + row.time_limit_s)


def _held_gpus(uow: UnitOfWork) -> Mapping[UUID, list[tuple[int, int]]]:
    held: dict[UUID, list[tuple[int, int]]] = {}
    statement = (
        select(AllocationGpu.allocation_id, Gpu.index, AllocationGpu.milli)
        .join(Gpu, Gpu.id == AllocationGpu.gpu_id)
        .where(AllocationGpu.live)
        .order_by(AllocationGpu.allocation_id, Gpu.index)
    )
    for allocation_id, index, milli in uow.session.execute(statement):
        held.setdefault(allocation_id, []).append((index, milli))
    return held
