"""The scheduler's turn."""

from app.core.uow import UnitOfWork
from app.scheduling import cycle
from tasks import queues
from tasks.base import task


@task(queue=queues.SCHEDULING)
def run_cycle(uow: UnitOfWork) -> None:
    """Plan and apply; with a cycle waiting its turn already, nothing."""
    cycle.run_cycle(uow)


@task(queue=queues.SCHEDULING)
def run_due_cycle(uow: UnitOfWork) -> None:
    """The net below lost messages: a cycle, if something happened since the last."""
    if cycle.is_due(uow):
        cycle.run_cycle(uow)
