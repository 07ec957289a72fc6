"""Running jobs that are told to move: they save their state, end, and wait for a place elsewhere."""

from collections.abc import Callable
from dataclasses import replace
from uuid import UUID

from app.core.access import Permission
from app.core.constraints import Term
from app.core.uow import UnitOfWork
from app.jobs.asks import Asks, key_of
from app.jobs.models import Job
from app.jobs.service import ask_stop, live_replicas
from app.resources.models import Node
from trellis.errors import Conflict, Field, IllegalTransition, Invalid
from trellis.vocabulary import JobState, StopReason, TermOperator

_RUNNING = frozenset({JobState.STARTING, JobState.RUNNING, JobState.CHECKPOINTING})
WhyNever = Callable[[UnitOfWork, Job], str]


class NotCheckpointable(Conflict):
    """Who can't go on elsewhere would lose what it has done."""

    code = "not_checkpointable"
    title = "The job can't go on where it was"


def migrate_job(
    uow: UnitOfWork, job_id: UUID, version: int | None, why_never: WhyNever, *, to: str = "", reason: str = ""
) -> Job:
    """Have a running job go on elsewhere: on the node `to`, or on any but those where it is.

    It has its grace to save its state, and is queued again; no retry is spent. Raises: IllegalTransition for one that
    does not run or is ending, NotCheckpointable, Invalid for a node that there is not, or that it could never run on.
    """
    job = uow.get(Job, job_id, lock=True)
    uow.require(Permission.JOB_WRITE, job.project_id)
    uow.expect_version(job, version)
    live = live_replicas(uow, job)
    if job.state not in _RUNNING or job.suspend_asked_at is not None or any(one.stop_reason for one in live):
        raise IllegalTransition(f"job {job.id} is {job.state}, or ending: only one that runs can move")
    if not Asks.read(job.asks).checkpointable:
        raise NotCheckpointable(f"job {job.id} was not submitted as checkpointable: it would begin anew")
    here = tuple(sorted({replica.node_name for replica in live}))
    if to and uow.session.execute(uow.visible(Node).where(Node.name == to)).scalar_one_or_none() is None:
        raise Invalid(Field("/to", f"there is no node {to!r}: `trellis nodes` lists them"))
    if to and here == (to,):
        raise Invalid(Field("/to", "is where it runs already"))
    _point(job, Term("name", TermOperator.IN, (to,)) if to else Term("name", TermOperator.NOT_IN, here))
    if never := why_never(uow, job):
        raise Invalid(Field("/to", f"is no place for it: {never}"))
    job.message = reason
    job.version += 1
    uow.emit("job.migration_asked", job, reason=reason, nodes=list(here), to=to)
    for replica in live:
        if replica.stop_reason is None:
            ask_stop(uow, replica, StopReason.MIGRATED, int(job.spec["grace_s"]))
    return job


def _point(job: Job, term: Term) -> None:
    """Let a job ask for another place until its next attempt, which puts back what it asked for."""
    if job.usual is None:
        job.usual = {"asks": job.asks, "class_key": job.class_key}
    asks = Asks.read(job.usual["asks"])
    constraints = replace(asks.constraints, selector=(*asks.constraints.selector, term)).settled(asks.constraints.pool)
    job.asks = replace(asks, constraints=constraints).stored()
    job.class_key = key_of(job)
