"""What follows for jobs from events and from time."""

from datetime import timedelta
from uuid import UUID

from app.core.idempotency import forget_old
from app.core.uow import UnitOfWork
from app.jobs import condensing, dependencies, service
from app.tenancy.quotas import watch_quotas
from tasks import queues
from tasks.base import control, task


@task(queue=queues.CONTROL)
def release_dependents(uow: UnitOfWork, job_ids: list[str]) -> None:
    """Queue the jobs that waited for these; those already released are left alone."""
    dependencies.release_dependents_of(uow, [UUID(job_id) for job_id in job_ids])


@task(queue=queues.CONTROL)
def wake_due(uow: UnitOfWork) -> None:
    """Jobs whose pause is over, and jobs whose deadline has passed."""
    service.requeue_due(uow)
    service.end_overdue(uow)


@task(queue=queues.CONTROL)
def sweep(uow: UnitOfWork) -> None:
    """The net below lost messages: dependents of jobs that have ended; what has grown old; who is over a quota."""
    dependencies.release_forgotten(uow)
    watch_quotas(uow)
    forget_old(uow)


@task(queue=queues.CONTROL)
def condense_metrics(uow: UnitOfWork) -> bool:
    """Make metrics coarser that have grown old; True while there is more."""
    settings = control().settings
    keeping = condensing.Keeping(
        timedelta(hours=settings.metric_points_hours), timedelta(days=settings.metric_minutes_days),
        timedelta(days=settings.metric_days),
    )  # fmt: skip
    return condensing.condense(uow, keeping)
