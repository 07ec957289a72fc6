"""Watching over nodes."""

from app.core.uow import UnitOfWork
from app.jobs import leaving
from app.jobs.losses import end_attempts_on_lost_nodes
from app.resources import usage
from app.resources.allocations import release_expired
from app.resources.nodes import mark_silent
from app.resources.reservations import follow_windows
from tasks import queues
from tasks.base import control, task


@task(queue=queues.CONTROL)
def watch_nodes(uow: UnitOfWork) -> None:
    """Note which nodes fell silent; what ran on those that are lost is tried elsewhere. What is held for a time ends."""
    settings = control().settings
    mark_silent(uow, settings.heartbeat_s, settings.node_lost_s)
    uow.session.flush()
    end_attempts_on_lost_nodes(uow)
    release_expired(uow)
    follow_windows(uow)


@task(queue=queues.CONTROL)
def empty_nodes(uow: UnitOfWork) -> None:
    """Have jobs leave the nodes that are drained or not healthy, and note which are quiet."""
    leaving.empty_nodes(uow)


@task(queue=queues.CONTROL)
def note_idle(uow: UnitOfWork) -> None:
    """Note which devices are held and do nothing."""
    usage.note_idle(uow)
