"""Jobs that wait for other jobs."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, select, text
from sqlalchemy.orm import aliased

from app.core.uow import UnitOfWork
from app.jobs.models import Dependency, Job
from app.jobs.spec import DependencySpec
from trellis.vocabulary import ENDED_JOB_STATES, DependencyKind, JobState

_WAITING = frozenset({JobState.PENDING, JobState.SUSPENDED})
# Elements of an array wait in lines, as many as may run at once. Who waits for one that left its line before its turn
# waits from then on for whom that one waited for.
_MOVE_UP = text(
    """
    WITH RECURSIVE line(job_id, was, on_job_id, place) AS (
        SELECT job_id, on_job_id, on_job_id, 0 FROM dependencies WHERE job_id = ANY(:ids) AND NOT met
        UNION ALL
        SELECT line.job_id, line.was, ahead.on_job_id, line.place + 1
        FROM line
        JOIN jobs waiting ON waiting.id = line.job_id
        JOIN jobs gone ON gone.id = line.on_job_id AND gone.array_id = waiting.array_id
            AND gone.ended_at IS NOT NULL AND gone.fence = 0
        JOIN dependencies ahead ON ahead.job_id = gone.id AND NOT ahead.met
        JOIN jobs other ON other.id = ahead.on_job_id AND other.array_id = gone.array_id
    ), moved AS (
        SELECT DISTINCT ON (job_id, was) job_id, was, on_job_id FROM line WHERE place > 0
        ORDER BY job_id, was, place DESC
    )
    UPDATE dependencies SET on_job_id = moved.on_job_id FROM moved
    WHERE dependencies.job_id = moved.job_id AND dependencies.on_job_id = moved.was
    """
).bindparams(bindparam("ids", type_=ARRAY(Uuid)))


def is_met(kind: DependencyKind, state: JobState) -> bool | None:
    """Whether a job that is in `state` satisfies `kind`; None while that is open."""
    if state not in ENDED_JOB_STATES:
        return None
    if kind is DependencyKind.AFTER_ANY:
        return True
    return (state is JobState.SUCCEEDED) == (kind is DependencyKind.AFTER_SUCCESS)


def add_dependencies(uow: UnitOfWork, jobs: Sequence[Job], wanted: Sequence[DependencySpec]) -> list[Dependency]:
    """Make new `jobs` wait, each for all that is wanted; what has ended already is settled at once."""
    # FOR SHARE: an ending job waits for our commit, so its event finds the rows that are made of this.
    statement = select(Job.id, Job.state).where(Job.id.in_([w.job for w in wanted])).order_by(Job.id)
    states = {row.id: row.state for row in uow.session.execute(statement.with_for_update(read=True))}
    found = []
    for job in jobs:
        for dependency in wanted:
            outcome = is_met(dependency.kind, states[dependency.job])
            found.append(_row(job, dependency.job, dependency.kind, met=outcome is True))
            if outcome is None:
                job.waiting_for += 1
            elif outcome is False and job.state is JobState.PENDING:
                _give_up(uow, job, dependency.job, states[dependency.job])
    return found


def wait_for(job: Job, other: Job, kind: DependencyKind) -> Dependency:
    """Make a new job wait for another new one."""
    job.waiting_for += 1
    return _row(job, other.id, kind, met=False)


def _row(job: Job, on_job_id: UUID, kind: DependencyKind, *, met: bool) -> Dependency:
    return Dependency(job_id=job.id, on_job_id=on_job_id, kind=kind, met=met)


def release_dependents_of(uow: UnitOfWork, ended_ids: Collection[UUID]) -> None:
    """Queue the jobs that waited for these; end those that now wait in vain. Already settled ones are left alone."""
    open_ones = select(Dependency.job_id).where(Dependency.on_job_id.in_(ended_ids), ~Dependency.met)
    waiting_ids = sorted(set(uow.session.execute(open_ones).scalars()))
    if not waiting_ids:
        return
    locked = select(Job).where(Job.id.in_(waiting_ids)).order_by(Job.id).with_for_update(key_share=True)
    waiting = {job.id: job for job in uow.session.execute(locked).scalars()}
    pairs = _ended_ones(uow, waiting)
    # In whose line the one ahead ended before its turn to run had come.
    behind = {
        row.Dependency.job_id
        for row in pairs
        if row.fence == 0 and row.array_id is not None and row.array_id == waiting[row.Dependency.job_id].array_id
    }
    if behind:
        uow.execute(_MOVE_UP, {"ids": list(behind)})
        pairs = _ended_ones(uow, waiting)
    for row in pairs:
        _settle(uow, waiting[row.Dependency.job_id], row.Dependency, row.state)


def _ended_ones(uow: UnitOfWork, waiting: Mapping[UUID, Job]) -> Sequence[Any]:
    """What those that still wait do so for, and has ended."""
    still = [job_id for job_id, job in waiting.items() if job.state in _WAITING]
    pairs = (
        select(Dependency, Job.state, Job.fence, Job.array_id)
        .join(Job, Job.id == Dependency.on_job_id)
        .where(Dependency.job_id.in_(still), ~Dependency.met, Job.ended_at.is_not(None))
        .order_by(Dependency.job_id, Dependency.on_job_id)
    )
    return uow.session.execute(pairs).all()


def _settle(uow: UnitOfWork, job: Job, dependency: Dependency, state: JobState) -> None:
    outcome = is_met(dependency.kind, state)
    if job.state not in _WAITING or outcome is None:
        return
    if outcome is False:
        _give_up(uow, job, dependency.on_job_id, state)
        return
    dependency.met = True
    job.waiting_for -= 1
    if job.waiting_for == 0 and job.state is JobState.PENDING:
        uow.move(job, JobState.QUEUED)


def _give_up(uow: UnitOfWork, job: Job, on_job_id: UUID, state: JobState) -> None:
    job.message = f"it waited for job {on_job_id}, which ended {state}"
    uow.move(job, JobState.CANCELLED, reason=job.message)


def release_forgotten(uow: UnitOfWork) -> None:
    """Settle the dependencies on jobs that have ended, should the message about it have been lost."""
    waiting = aliased(Job)
    ended = (
        select(Dependency.on_job_id)
        .join(Job, Job.id == Dependency.on_job_id)
        .join(waiting, waiting.id == Dependency.job_id)
        # Who waited in vain keeps its open rows: there is nothing to settle in them any more.
        .where(~Dependency.met, Job.ended_at.is_not(None), waiting.ended_at.is_(None))
        .distinct()
        .limit(500)
    )
    ids = list(uow.session.execute(ended).scalars())
    if ids:
        release_dependents_of(uow, ids)
