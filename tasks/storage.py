"""What nobody refers to any more leaves the store."""

from functools import partial

from app.core.access import SYSTEM
from app.core.uow import UnitOfWork, run
from app.jobs import checkpoints, logs
from app.pipelines.code import needed
from app.storage import blobs, bundles, discards, packs, uploads
from tasks import queues
from tasks.base import MOST_UNITS, control, task
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
    """Delete what was stored and never recorded: a process died in between, or its replica was given up."""
    place = control()
    store = open_store(place.settings.store)
    now = run(place.sessions, SYSTEM, lambda uow: uow.clock.now()).timestamp()
    for some in packs.orphans(store, ORPHANED_S, now):
        packs.delete_from(store, run(place.sessions, SYSTEM, partial(checkpoints.abandoned, keys=some)))
    lost = list(discards.orphans(store, ORPHANED_S, now))
    for start in range(0, len(lost), packs.AT_ONCE):
        some = lost[start : start + packs.AT_ONCE]
        packs.delete_from(store, run(place.sessions, SYSTEM, partial(discards.unknown, keys=some)))
    if isinstance(store, LocalStore):
        store.sweep(ORPHANED_S, now)


@task(queue=queues.CONTROL)
def drop_logs(uow: UnitOfWork) -> bool:
    """Forget what was printed long ago; True while there is more."""
    days = control().settings.log_days
    return days > 0 and logs.drop_old(uow, days)


@task(queue=queues.CONTROL)
def give_up_uploads(uow: UnitOfWork) -> bool:
    """Forget uploads that nobody goes on with; True while there may be more."""
    return uploads.give_up_stale(uow) == uploads.BATCH


@control().celery.task(name="tasks.storage.delete_discards", queue=queues.CONTROL)
def delete_discards() -> None:
    """Delete the bytes of artifacts that were removed or replaced, outside of any transaction; twice does no harm."""
    place = control()
    store = open_store(place.settings.store)
    for _ in range(MOST_UNITS):
        due = run(place.sessions, SYSTEM, discards.list_due)
        gone = packs.delete_from(store, due)
        run(place.sessions, SYSTEM, partial(discards.forget, keys=gone))
        if len(gone) < packs.AT_ONCE:
            return


@task(queue=queues.CONTROL)
def drop_code(uow: UnitOfWork) -> bool:
    """Give out no more the code that no job has asked for in a long time; True while there is more."""
    forgotten = bundles.drop_unused(uow, control().settings.bundle_days, needed)
    return bool(forgotten + blobs.drop_loose(uow))


@control().celery.task(name="tasks.storage.erase_code", queue=queues.CONTROL)
def erase_code() -> None:
    """Delete the bytes of what was dropped, then its rows: the store is asked outside of any transaction."""
    place = control()
    store = open_store(place.settings.store)
    for _ in range(MOST_UNITS):
        dropped = run(place.sessions, SYSTEM, blobs.list_dropped)
        if not dropped:
            return
        for key in dropped.values():
            store.delete(key)
        run(place.sessions, SYSTEM, partial(blobs.forget, ids=list(dropped)))
