"""Rows to what the scheduler is told of jobs: of all of them once, and after that of those that changed."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BindParameter, Uuid, any_, bindparam, func, select

from app.core.tables import Word
from app.core.uow import UnitOfWork
from app.jobs.models import Dependency, Job, Replica
from app.resources.models import Allocation, AllocationGpu, Gpu
from app.scheduling.classes import Classes
from app.scheduling.predictions import Expected
from scheduler import snapshot as plain
from trellis.vocabulary import JobState, StopReason

RUNNING = (JobState.SCHEDULED, JobState.STARTING, JobState.RUNNING, JobState.CHECKPOINTING)


@dataclass(frozen=True, slots=True)
class Jobs:
    """Jobs that wait, and whoever holds something: jobs that run, and what ended ones have not given back yet.

    `blocked` are the ids of those that wait for others.
    """

    pending: tuple[plain.PendingJob, ...]
    running: tuple[plain.RunningJob, ...]
    blocked: frozenset[str] = frozenset()


def load_jobs(uow: UnitOfWork, classes: Classes, expected: Expected, ids: Sequence[UUID] | None = None) -> Jobs:
    """The jobs that wait or hold something; of those named by `ids` only, where it is given."""
    rows = uow.execute(_WAITING) if ids is None else uow.execute(_WAITING_AMONG, {"ids": ids})
    pending, blocked = [], []
    for row in rows:
        if row.state is JobState.QUEUED:
            pending.append(pending_job(row, classes, expected))
        else:
            blocked.append(str(row.id))
    return Jobs(tuple(pending), tuple(_running(uow, classes, expected, ids)), frozenset(blocked))


def load_waiting_in(uow: UnitOfWork, classes: Classes, expected: Expected, queue_id: UUID) -> list[plain.PendingJob]:
    """The jobs that wait in one queue."""
    return [pending_job(row, classes, expected) for row in uow.execute(_WAITING_IN, {"queue_id": queue_id})]


def load_blocked(uow: UnitOfWork, expected: Expected) -> tuple[plain.BlockedJob, ...]:
    """The jobs that wait for others, as far as these have not ended: at most MOST_NEEDS of such pairs."""
    needs: dict[UUID, tuple[Any, list[str]]] = {}
    for row in uow.execute(_BLOCKED):
        needs.setdefault(row.id, (row, []))[1].append(str(row.on_job_id))
    return tuple(
        plain.BlockedJob(
            str(row.id), str(row.project_id), row.priority, tuple(others), _seconds(row.deadline_at),
            expected.of(row.actor_id, row.time_limit_s) or row.time_limit_s or 0.0,
        )
        for row, others in needs.values()
    )  # fmt: skip


def pending_job(row: Any, classes: Classes, expected: Expected) -> plain.PendingJob:
    """What a job that waits is to the scheduler; `row` is one of `jobs`, or a `Job` that is not stored (yet)."""
    return plain.PendingJob(
        str(row.id),
        row.created_at.timestamp(),
        classes.of(row),
        deadline=_seconds(row.deadline_at),
        expected_s=expected.of(row.actor_id, row.time_limit_s),
        owed=() if row.owed is None else tuple(map(read_holding, row.owed)),
    )


def _seconds(at: datetime | None) -> float | None:
    return None if at is None else at.timestamp()


def write_holding(holding: plain.Holding) -> dict[str, Any]:
    """A holding as JSON."""
    kept: dict[str, Any] = {
        "node_id": holding.node_id, "cpu_milli": holding.cpu_milli, "memory_bytes": holding.memory_bytes,
        "gpus": [list(pair) for pair in holding.gpus], "role": holding.role,
    }  # fmt: skip
    if holding.slices:
        kept["slices"] = [[piece.device, piece.profile, piece.start] for piece in holding.slices]
    return kept


def read_holding(kept: dict[str, Any]) -> plain.Holding:
    """What `write_holding` wrote."""
    gpus = tuple((index, milli) for index, milli in kept["gpus"])
    slices = tuple(plain.Slice(*piece) for piece in kept.get("slices", ()))
    return plain.Holding(kept["node_id"], kept["cpu_milli"], kept["memory_bytes"], gpus, slices, kept["role"])


MOST_NEEDS = 50_000
_COLUMNS = (
    Job.id, Job.class_key, Job.project_id, Job.queue_id, Job.priority, Job.cpu_milli, Job.memory_bytes, Job.gpu_milli,
    Job.gpu_model, Job.asks, Job.replicas, Job.time_limit_s, Job.actor_id, Job.owed,
)  # fmt: skip
_IDS = bindparam("ids", type_=ARRAY(Uuid))
# The state stands in the statement's text: as a parameter it would hide the index of queued jobs from a prepared plan.
_QUEUED: BindParameter[StrEnum] = bindparam("queued", JobState.QUEUED, Word(JobState), literal_execute=True)
_PENDING: BindParameter[StrEnum] = bindparam("pending", JobState.PENDING, Word(JobState), literal_execute=True)
_EVERY = select(*_COLUMNS, Job.state, Job.created_at, Job.deadline_at)
_WAITING = _EVERY.where(Job.state == _QUEUED)
_WAITING_AMONG = _EVERY.where(Job.state.in_((JobState.QUEUED, JobState.PENDING)), Job.id == any_(_IDS))
_BLOCKED = (
    select(Job.id, Job.project_id, Job.priority, Job.deadline_at, Job.time_limit_s, Job.actor_id, Dependency.on_job_id)
    .join(Dependency, Dependency.job_id == Job.id)
    .where(Job.state == _PENDING, ~Dependency.met)
    .order_by(Job.id, Dependency.on_job_id)
    .limit(MOST_NEEDS)
)
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
        *_COLUMNS, Job.state, Job.started_at, Job.paused_ms, Job.preemptions, Allocation.node_id, _GPUS.label("gpus"),
        Allocation.cpu_milli.label("held_cpu"), Allocation.memory_bytes.label("held_memory"),
        Allocation.id.label("allocation_id"), Allocation.project_id.label("holder"), Allocation.expires_at,
        Allocation.exclusive,
        Replica.stop_asked_at, Replica.stop_grace_s, Replica.stop_reason, Replica.role, Replica.slices,
    )
    .outerjoin_from(Allocation, Job, Job.id == Allocation.job_id)
    .outerjoin(Replica, Replica.id == Allocation.id)
    .where(Allocation.released_at.is_(None))
    .order_by(Allocation.id)
)  # fmt: skip
_HOLDING_AMONG = _HOLDING.where(Allocation.job_id == any_(_IDS))


def _running(
    uow: UnitOfWork, classes: Classes, expected: Expected, ids: Sequence[UUID] | None
) -> Iterable[plain.RunningJob]:
    rows = uow.execute(_HOLDING) if ids is None else uow.execute(_HOLDING_AMONG, {"ids": ids})
    held: dict[UUID, tuple[list[Any], list[plain.Holding]]] = {}
    for row in rows:
        holding = _holding(row)
        if row.id is None:
            yield _held_without_job(row, holding)
        else:
            replicas, holdings = held.setdefault(row.id, ([], []))
            replicas.append(row)
            holdings.append(holding)
    now = uow.clock.now()
    for replicas, holdings in held.values():
        job_class = classes.of(replicas[0])
        yield _holder(
            replicas, job_class, tuple(holdings), expected.of(replicas[0].actor_id, job_class.time_limit_s), now
        )


def _holding(row: Any) -> plain.Holding:
    devices = tuple(sorted((index, milli) for index, milli in row.gpus or ()))
    slices = tuple(plain.Slice(one["index"], one["profile"], one["start"]) for one in row.slices or ())
    leaves_at = _told(row) if row.stop_reason is StopReason.SURPLUS else None
    return plain.Holding(str(row.node_id), row.held_cpu, row.held_memory, devices, slices, row.role or 0, leaves_at)


def _told(row: Any) -> float:
    """By when a replica that was told to end has."""
    at: float = row.stop_asked_at.timestamp() + row.stop_grace_s
    return at


def _held_without_job(row: Any, holding: plain.Holding) -> plain.RunningJob:
    asked = plain.Request(row.held_cpu, row.held_memory, sum(milli for _, milli in holding.gpus))
    alone = plain.Constraints(exclusive=True) if row.exclusive else plain.ANYWHERE
    job_class = plain.JobClass(str(row.holder), "", (plain.Role(asked),), constraints=alone, preemptible=False)
    name = f"allocation {row.allocation_id}"
    return plain.RunningJob(name, job_class, (holding,), ends_by=row.expires_at.timestamp())


def _holder(
    replicas: Sequence[Any],
    job_class: plain.JobClass,
    holdings: tuple[plain.Holding, ...],
    expected_s: float | None,
    now: datetime,
) -> plain.RunningJob:
    row = replicas[0]
    if row.state not in RUNNING:
        # It has ended or waits anew, and a node has not given back yet what an earlier attempt held: nobody to evict.
        return plain.RunningJob(
            left_by(str(row.id)), replace(job_class, preemptible=False, checkpointable=False), holdings
        )
    # Time that it stood still does not count.
    started_at = (row.started_at or now).timestamp() + row.paused_ms / 1000
    told = [_told(one) for one in replicas if one.stop_reason not in (None, StopReason.SURPLUS)]
    return plain.RunningJob(
        str(row.id), job_class, holdings, started_at,
        ends_by=None if row.time_limit_s is None else started_at + row.time_limit_s,
        expected_by=None if expected_s is None else started_at + expected_s,
        releasing_at=max(told, default=None),
        preemptions=row.preemptions,
        owed=() if row.owed is None else tuple(map(read_holding, row.owed)),
    )  # fmt: skip


def left_by(job_id: str) -> str:
    """The name under which the scheduler knows what an ended attempt of a job still holds."""
    return f"left by {job_id}"
