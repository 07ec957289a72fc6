"""Forgetting what is kept for nobody any more."""

from app.core.uow import UnitOfWork
from app.jobs.code import needed
from app.storage import blobs, bundles
from tasks import queues
from tasks.base import control, task
from trellis.stores.local import LocalStore


@task(queue=queues.CONTROL)
def sweep_code(uow: UnitOfWork) -> bool:
    """Drop the code that no job has asked for in a long time, and the bytes of what was dropped before."""
    settings = control().settings
    # Bytes first: what is dropped below is only dropped once this unit is through.
    more = blobs.erase_dropped(uow, LocalStore(settings.home / "store"))
    forgotten = bundles.drop_unused(uow, settings.bundle_days, needed)
    return bool(more or forgotten + blobs.drop_loose(uow))
