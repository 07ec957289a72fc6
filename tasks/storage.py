"""What nobody refers to any more leaves the store."""

from functools import partial

from app.core.access import SYSTEM
from app.core.uow import UnitOfWork, run
from app.jobs import checkpoints
from app.storage import packs
from tasks import queues
from tasks.base import control, task
from trellis.stores.local import LocalStore
from trellis.stores.urls import open_store

# A save writes no key for longer than this before it is recorded, or given up with its replica.
ORPHANED_S = 86_400.0


@task(queue=queues.CONTROL)
def doom_packs(uow: UnitOfWork) -> bool:
    """Mark what no checkpoint needs; True while there is more."""
    return packs.doom_unreferenced(uow) == packs.AT_ONCE


@control().celery.task(name="tasks.storage.delete_packs", queue=queues.CONTROL)
def delete_packs() -> None:
    """Delete what was marked long enough ago. The store is asked outside of any transaction; twice does no harm."""
    place = control()
    store = open_store(place.settings.store)
    doomed = run(place.sessions, SYSTEM, packs.list_doomed)
    if gone := packs.delete_from(store, doomed):
        run(place.sessions, SYSTEM, lambda uow: packs.forget(uow, gone))


@control().celery.task(name="tasks.storage.sweep_orphans", queue=queues.CONTROL)
def sweep_orphans() -> None:
    """Delete what saves left that were never recorded: their node died, or their replica was given up."""
    place = control()
    store = open_store(place.settings.store)
    now = run(place.sessions, SYSTEM, lambda uow: uow.clock.now()).timestamp()
    keys = list(packs.orphans(store, ORPHANED_S, now))
    for start in range(0, len(keys), packs.AT_ONCE):
        some = keys[start : start + packs.AT_ONCE]
        packs.delete_from(store, run(place.sessions, SYSTEM, partial(checkpoints.abandoned, keys=some)))
    if isinstance(store, LocalStore):
        store.sweep(ORPHANED_S, now)
