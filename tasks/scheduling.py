"""The scheduler's turn."""

from app.core.uow import UnitOfWork
from app.scheduling import cycle, shares
from app.scheduling.mirror import Mirror
from tasks import queues
from tasks.base import task

MIRROR = Mirror()


@task(queue=queues.SCHEDULING)
def run_cycle(uow: UnitOfWork) -> bool:
    """Plan and apply; with a cycle waiting its turn already, nothing."""
    return cycle.run_cycle(uow, MIRROR).more


@task(queue=queues.CONTROL)
def measure_use(uow: UnitOfWork) -> None:
    """What is held now becomes past use, little by little."""
    shares.measure_use(uow)


@task(queue=queues.SCHEDULING)
def run_due_cycle(uow: UnitOfWork) -> bool:
    """The net below lost messages: a cycle, if something happened since the last."""
    return cycle.is_due(uow) and cycle.run_cycle(uow, MIRROR).more
