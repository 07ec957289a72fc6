"""Why the jobs of a queue wait: its classes in the order in which the scheduler tries them, each with its verdict."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any
from uuid import UUID

from sqlalchemy import func, select

from app.core.access import Permission
from app.core.uow import UnitOfWork
from app.jobs.models import ClassVerdict, Job
from app.queues.models import Queue
from app.resources.models import Gpu, Node
from app.scheduling.classes import Classes
from app.scheduling.cluster import load_accounts, plain_queue
from app.scheduling.jobs import load_blocked, load_waiting_in
from app.scheduling.policy import SchedulingPolicy, config_of, policy_in_force
from app.scheduling.predictions import expected_by
from app.tenancy.models import Project
from app.tenancy.usage import usage_by_actor
from scheduler import snapshot as plain
from scheduler.inheritance import inherit
from scheduler.order import Line, Waiting
from scheduler.standing import Standing
from scheduler.usage import Usage
from trellis.errors import NotFound
from trellis.vocabulary import JobState

MOST_HEADS = 200


@dataclass(frozen=True, slots=True)
class Head:
    """`count` jobs that wait for one reason, the first of them at `position` in the queue; of whose jobs it is only what
    the actor may see. `job_id` is the first of them.
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
    """A queue, by which policies its jobs are ranked, and the heads of what waits in it. `position` is that of the job
    which was asked about; the heads are then those before it.
    """

    queue: Queue
    policy: str
    second_policy: str
    heads: Sequence[Head]
    position: int | None = None


def explain_queue(uow: UnitOfWork, queue_id: UUID, job_id: UUID | None = None) -> QueueExplained:
    """The classes that wait in a queue in the scheduler's order, with why each waits; before one job, if it is named.

    Raises: NotFound, also for a job that does not wait there.
    """
    queue = uow.get(Queue, queue_id)
    usual, classes = policy_in_force(uow).policy, Classes()
    line = _line(uow, queue, usual, classes)
    position = None if job_id is None else _position(uow, line, job_id)
    groups = islice((pair for pair in line.in_order() if position is None or pair[0] < position), MOST_HEADS)
    heads = _heads(uow, list(groups), classes.keys)
    ranked = (queue.policy or usual.primary_policy, queue.second_policy or usual.secondary_policy)
    return QueueExplained(queue, *ranked, heads, position)


def _line(uow: UnitOfWork, queue: Queue, policy: SchedulingPolicy, classes: Classes) -> Line:
    """What waits in a queue, ranked as the scheduler ranks it."""
    expected = expected_by(uow, policy)
    waiting = load_waiting_in(uow, classes, expected, queue.id)
    lifts = inherit(load_blocked(uow, expected), {job.id: job for job in waiting})
    line = Line(plain_queue(queue), Standing(_usage(uow), config_of(policy), lifts))
    by_class: dict[plain.JobClass, list[plain.PendingJob]] = {}
    for job in waiting:
        by_class.setdefault(job.job_class, []).append(job)
    for job_class, jobs in by_class.items():
        line.add_all(job_class, jobs)
    return line


def _usage(uow: UnitOfWork) -> Usage:
    """Who has how much of all there is, now and lately."""
    usage = Usage([_whole_cluster(uow)], tuple(load_accounts(uow)))
    for (project_id, actor_id), has in usage_by_actor(uow).items():
        holder = plain.JobClass(str(project_id), "", (plain.Role(plain.Request(0, 0)),), user_id=str(actor_id or ""))
        usage.charge(holder, plain.Amounts(has.held.cpu_milli, has.held.memory_bytes, has.held.gpu_milli))
    return usage


def _whole_cluster(uow: UnitOfWork) -> plain.Node:
    """All machines as if they were one: of a share only the sum counts."""
    sums = select(func.coalesce(func.sum(Node.cpu_milli), 0), func.coalesce(func.sum(Node.memory_bytes), 0))
    cpu_milli, memory_bytes = map(int, uow.session.execute(sums).one())
    devices = uow.session.execute(select(func.count()).select_from(Gpu)).scalar_one()
    return plain.Node("", "", True, cpu_milli, memory_bytes, 0, 0, gpu_milli_free=(0,) * devices)


def _position(uow: UnitOfWork, line: Line, job_id: UUID) -> int:
    if uow.get(Job, job_id).state is JobState.QUEUED:
        for number, job in enumerate(line.jobs(), 1):
            if job.id == str(job_id):
                return number
    raise NotFound(f"job {job_id} does not wait in this queue")


def _heads(
    uow: UnitOfWork, groups: Sequence[tuple[int, Waiting]], keys: Mapping[plain.JobClass, str]
) -> Sequence[Head]:
    said = select(ClassVerdict).where(ClassVerdict.class_key.in_([keys[group.job_class] for _, group in groups]))
    verdicts = {verdict.class_key: verdict for verdict in uow.session.execute(said).scalars()}
    own = [
        group.head.id
        for _, group in groups
        # All jobs of a class are of one project.
        if uow.actor.holds(Permission.JOB_READ, UUID(group.job_class.project_id))
    ]
    named = select(Job.id, Job.name, Project.name.label("project")).join(Project, Project.id == Job.project_id)
    names = {row.id: row for row in uow.session.execute(named.where(Job.id.in_(map(UUID, own))))}
    return [
        _head(position, group, verdicts.get(keys[group.job_class]), names.get(UUID(group.head.id)))
        for position, group in groups
    ]


def _head(position: int, group: Waiting, verdict: ClassVerdict | None, named: Any) -> Head:
    since = datetime.fromtimestamp(min(job.submitted_at for job in group.jobs()), UTC)
    shown = Head(position, len(group), group.job_class.priority, verdict.reason if verdict else None, since)
    if named is None:
        return shown
    told = (verdict.message, verdict.starts_at, verdict.decided_at) if verdict else (None, None, None)
    return Head(
        shown.position, shown.count, shown.priority, shown.reason, shown.waiting_since,
        named.id, named.name, named.project, *told,
    )  # fmt: skip
