"""What the store holds that nobody refers to any more: marked in one transaction, deleted long after it.

A pack is doomed only under a lock that a save which refers to it would hold, and only if after getting that lock nobody
does. What is doomed is never referred to again: a save that tries is told to store its chunks anew. Deleting waits, so
that a restore or a download that has just begun can end.
"""

import logging
from collections.abc import Collection, Iterable, Iterator
from datetime import timedelta
from itertools import islice

from sqlalchemy import delete, exists, select, update

from app.core.uow import UnitOfWork
from app.storage.models import CheckpointPack, Pack
from trellis.stores.base import Store

_log = logging.getLogger(__name__)
READERS_S = 600
AT_ONCE = 500


def doom_unreferenced(uow: UnitOfWork) -> int:
    """Mark packs that no checkpoint needs; how many."""
    unneeded = ~exists().where(CheckpointPack.pack_key == Pack.key)
    candidates = select(Pack.key).where(Pack.doomed_at.is_(None), unneeded).order_by(Pack.key).limit(AT_ONCE)
    locked = uow.session.execute(candidates.with_for_update(skip_locked=True)).scalars().all()
    # Asked again under the locks, in a statement that sees what was committed before we had them.
    needed = set(
        uow.session.execute(select(CheckpointPack.pack_key).where(CheckpointPack.pack_key.in_(locked))).scalars()
    )
    doomed = [key for key in locked if key not in needed]
    uow.execute(update(Pack).where(Pack.key.in_(doomed)).values(doomed_at=uow.clock.now()))
    return len(doomed)


def list_doomed(uow: UnitOfWork, readers_s: float = READERS_S) -> list[str]:
    """The keys whose time has come."""
    edge = uow.clock.now() - timedelta(seconds=readers_s)
    statement = select(Pack.key).where(Pack.doomed_at < edge).order_by(Pack.doomed_at).limit(AT_ONCE)
    return list(uow.session.execute(statement).scalars())


def delete_from(store: Store, keys: Iterable[str]) -> list[str]:
    """Delete them, as far as the store lets us; those that are gone. One that can't be deleted keeps no other."""
    gone = []
    for key in keys:
        try:
            store.delete(key)
        except OSError as error:
            _log.warning("the store keeps %s: %s", key, error)
        else:
            gone.append(key)
    return gone


def forget(uow: UnitOfWork, keys: Collection[str]) -> None:
    """They are deleted."""
    uow.execute(delete(Pack).where(Pack.key.in_(keys), Pack.doomed_at.is_not(None)))


def orphans(store: Store, older_than_s: float, now: float) -> Iterator[list[str]]:
    """Keys in the store that are old enough to belong to no save under way; some may be known all the same.

    AT_ONCE at most a time, listed project by project: however much there is, not all of it is held in memory.
    """
    old = (
        stored.key
        for top in ("packs", "manifests")
        for project in store.folders(top)
        for stored in store.find(project)
        if stored.modified_at < now - older_than_s
    )
    while page := list(islice(old, AT_ONCE)):
        yield page


def unknown(uow: UnitOfWork, keys: Collection[str]) -> list[str]:
    """Those of `keys` that no row names."""
    known = set(uow.session.execute(select(Pack.key).where(Pack.key.in_(keys))).scalars())
    return [key for key in keys if key not in known]
