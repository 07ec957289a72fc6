"""Arrays and workflows: many jobs that are looked at and changed as one. Each job stays a row of its own."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, and_, exists, func, or_, select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import aliased

from app.core.access import Permission
from app.core.uow import UnitOfWork
from app.jobs.arrays import join_lines
from app.jobs.models import Job, Replica
from app.jobs.service import end_job, submit_again
from app.jobs.suspensions import hold_back, let_go_on
from trellis.errors import Field, Invalid, NotFound
from trellis.vocabulary import ENDED_JOB_STATES, GroupKind, JobState

Conditions = Callable[[Any], Collection[ColumnElement[bool]]]


@dataclass(frozen=True, slots=True)
class Group:
    """An array or a workflow, by its id."""

    kind: GroupKind
    id: UUID

    def holds(self, jobs: Any = Job) -> ColumnElement[bool]:
        """Whether a row of `jobs` is of it."""
        column: ColumnElement[Any] = jobs.array_id if self.kind is GroupKind.ARRAY else jobs.workflow_id
        return column == self.id


@dataclass(frozen=True, slots=True)
class Change:
    """What is to become of a group's jobs: of those elements of an array, or of all."""

    action: str
    reason: str = ""
    force: bool = False
    elements: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """A group as one: its first job, how many there are and in which states. A retried element counts as its retry."""

    group: Group
    first: Job
    states: Mapping[JobState, int]

    @property
    def count(self) -> int:
        """How many jobs."""
        return sum(self.states.values())


def summarise(uow: UnitOfWork, group: Group) -> Summary:
    """The group as one. Raises NotFound."""
    first = uow.session.execute(uow.visible(Job).where(group.holds()).order_by(*_order()).limit(1)).scalar_one_or_none()
    if first is None:
        raise NotFound(f"there is no {group.kind} {group.id}")
    return Summary(group, first, _states(uow, [group])[group])


def groups_of(uow: UnitOfWork, jobs: Iterable[Job]) -> dict[UUID, Summary]:
    """Summaries of the groups that these jobs stand for, by the id of the job."""
    standing = {job.id: (group, job) for job in jobs if (group := group_of(job))}
    states = _states(uow, [group for group, _ in standing.values()]) if standing else {}
    return {job_id: Summary(group, job, states[group]) for job_id, (group, job) in standing.items()}


def group_of(job: Job) -> Group | None:
    """The group that a job is of."""
    if job.array_id is not None:
        return Group(GroupKind.ARRAY, job.array_id)
    return None if job.workflow_id is None else Group(GroupKind.WORKFLOW, job.workflow_id)


def is_first(conditions: Conditions) -> ColumnElement[bool]:
    """Whether a job stands for its group in a list: the first of those of it that meet the conditions."""
    other = aliased(Job)
    of_array = and_(
        other.array_id == Job.array_id,
        or_(other.array_index < Job.array_index, and_(other.array_index == Job.array_index, other.id > Job.id)),
    )
    of_workflow = and_(other.workflow_id == Job.workflow_id, other.id < Job.id)
    return and_(
        or_(Job.array_id.is_(None), ~exists().where(of_array, *conditions(other))),
        or_(Job.workflow_id.is_(None), ~exists().where(of_workflow, *conditions(other))),
    )


def change_group(uow: UnitOfWork, group: Group, change: Change) -> int:
    """Cancel, suspend, resume or retry all jobs of a group, or some elements of an array; how many it concerned.

    Those that it makes no sense for are left alone. Raises: NotFound; Invalid for elements that there are not.
    """
    first = summarise(uow, group).first
    uow.require(Permission.JOB_WRITE, first.project_id)
    jobs = _latest(_locked(uow, group))
    if change.elements is not None:
        there = {job.array_index for job in jobs}
        if missing := sorted(set(change.elements) - there):
            raise Invalid(Field("/elements", f"has {missing[0]}, which {group.kind} {group.id} has not"))
        jobs = [job for job in jobs if job.array_index in change.elements]
    if change.action == "retry":
        failed = [job for job in jobs if job.state in ENDED_JOB_STATES and job.state is not JobState.SUCCEEDED]
        line_up = partial(join_lines, uow, group.id) if group.kind is GroupKind.ARRAY else None
        return len(submit_again(uow, failed, line_up)) if failed else 0
    return _change_all(uow, [job for job in jobs if job.state not in ENDED_JOB_STATES], change)


def _change_all(uow: UnitOfWork, jobs: Sequence[Job], change: Change) -> int:
    live: dict[UUID, list[Replica]] = {job.id: [] for job in jobs}
    begun = [job.id for job in jobs if job.fence > 0]
    running = select(Replica).where(Replica.job_id.in_(begun), Replica.ended_at.is_(None)).order_by(Replica.index)
    for replica in uow.session.execute(running).scalars() if begun else ():
        live[replica.job_id].append(replica)
    changed = 0
    for job in jobs:
        if change.action == "cancel":
            end_job(uow, job, live[job.id], reason=change.reason, force=change.force)
        elif change.action == "suspend" and job.suspend_asked_at is None and job.cancel_asked_at is None:
            hold_back(uow, job, live[job.id], change.reason)
        elif change.action == "resume" and job.suspend_asked_at is not None:
            let_go_on(uow, job, live[job.id], change.reason)
        else:
            continue
        changed += 1
    return changed


def _locked(uow: UnitOfWork, group: Group) -> Sequence[Job]:
    statement = select(Job).where(group.holds()).order_by(Job.id).with_for_update(key_share=True)
    return uow.session.execute(statement.execution_options(populate_existing=True)).scalars().all()


def _latest(jobs: Sequence[Job]) -> list[Job]:
    """Of each element of an array its last retry; in order of age, as they came."""
    newest = {job.id if job.array_index is None else job.array_index: job for job in jobs}
    return list(newest.values())


def _order() -> tuple[ColumnElement[Any], ...]:
    return Job.array_index.asc(), Job.id.asc()


def _states(uow: UnitOfWork, groups: Collection[Group]) -> dict[Group, Counter[JobState]]:
    """How many jobs of each are in which state."""
    found: dict[Group, Counter[JobState]] = {group: Counter() for group in groups}
    arrays = [group.id for group in groups if group.kind is GroupKind.ARRAY]
    if arrays:
        newest = (
            select(Job.array_id.label("id"), Job.state)
            .ext(distinct_on(Job.array_id, Job.array_index))
            .where(Job.array_id.in_(arrays))
            .order_by(Job.array_id, Job.array_index, Job.id.desc())
            .subquery()
        )
        counted = select(newest.c.id, newest.c.state, func.count()).group_by(newest.c.id, newest.c.state)
        for array_id, state, count in uow.session.execute(counted):
            found[Group(GroupKind.ARRAY, array_id)][state] += count
    workflows = [group.id for group in groups if group.kind is GroupKind.WORKFLOW]
    if workflows:
        by_state = select(Job.workflow_id, Job.state, func.count()).where(Job.workflow_id.in_(workflows))
        for workflow_id, state, count in uow.session.execute(by_state.group_by(Job.workflow_id, Job.state)):
            if workflow_id is not None:
                found[Group(GroupKind.WORKFLOW, workflow_id)][state] += count
    return found
