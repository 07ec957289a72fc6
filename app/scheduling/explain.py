"""Why the jobs of a queue wait: its classes in order, each with the verdict on its first job."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from app.core.access import Permission
from app.core.uow import UnitOfWork
from app.jobs.models import ClassVerdict, Job
from app.queues.models import Queue
from app.scheduling.policy import policy_in_force
from app.tenancy.models import Project
from trellis.vocabulary import JobState

MOST_HEADS = 200


@dataclass(frozen=True, slots=True)
class Head:
    """`count` jobs that wait for one reason, at `position` in the queue; of whose jobs it is only what the actor may
    see. `job_id` is the eldest of them.
    """

    position: int
    count: int
    priority: int
    reason: str | None
    waiting_since: datetime
    job_id: UUID | None = None
    name: str | None = None
    project: str | None = None
    message: str | None = None
    starts_at: datetime | None = None
    decided_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class QueueExplained:
    """A queue, by which policies its jobs are ranked, and the heads of what waits in it."""

    queue: Queue
    policy: str
    second_policy: str
    heads: Sequence[Head]


def explain_queue(uow: UnitOfWork, queue_id: UUID) -> QueueExplained:
    """The classes that wait in a queue, by priority and age, with why each waits. Raises NotFound."""
    queue = uow.get(Queue, queue_id)
    rows = _classes(uow, queue)
    keys = [row.class_key for row in rows]
    said = uow.session.execute(select(ClassVerdict).where(ClassVerdict.class_key.in_(keys))).scalars()
    verdicts = {verdict.class_key: verdict for verdict in said}
    named = select(Project.id, Project.name).where(Project.id.in_({row.project_id for row in rows}))
    projects = {row.id: row.name for row in uow.session.execute(named)}
    heads, position = [], 1
    for row in rows:
        heads.append(_head(uow, row, position, verdicts.get(row.class_key), projects))
        position += row.count
    usual = policy_in_force(uow).policy
    ranked = (queue.policy or usual.primary_policy, queue.second_policy or usual.secondary_policy)
    return QueueExplained(queue, *ranked, heads)


def _classes(uow: UnitOfWork, queue: Queue) -> Sequence[Any]:
    """Of every class the eldest job, and how many there are."""
    eldest = (
        select(
            Job.class_key, Job.id, Job.name, Job.project_id, Job.priority, Job.created_at,
            func.count().over(partition_by=Job.class_key).label("count"),
        )
        .where(Job.queue_id == queue.id, Job.state == JobState.QUEUED)
        .distinct(Job.class_key)
        .order_by(Job.class_key, Job.created_at, Job.id)
        .subquery()
    )  # fmt: skip
    in_order = (eldest.c.priority.desc(), eldest.c.created_at, eldest.c.id)
    # By position: a Row has a `count` of its own.
    names = ("class_key", "id", "name", "project_id", "priority", "created_at", "count")
    found = uow.session.execute(select(eldest).order_by(*in_order).limit(MOST_HEADS))
    return [_Class(**dict(zip(names, row, strict=True))) for row in found]


@dataclass(frozen=True, slots=True)
class _Class:
    class_key: str
    id: UUID
    name: str
    project_id: UUID
    priority: int
    created_at: datetime
    count: int


def _head(
    uow: UnitOfWork, row: _Class, position: int, verdict: ClassVerdict | None, projects: Mapping[UUID, str]
) -> Head:
    shown = Head(position, row.count, row.priority, verdict.reason if verdict else None, row.created_at)
    # All jobs of a class are of one project.
    if not uow.actor.holds(Permission.JOB_READ, row.project_id):
        return shown
    told = (verdict.message, verdict.starts_at, verdict.decided_at) if verdict else (None, None, None)
    return Head(
        shown.position, shown.count, shown.priority, shown.reason, shown.waiting_since,
        row.id, row.name, projects.get(row.project_id), *told,
    )  # fmt: skip
