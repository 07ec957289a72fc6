"""What leaves the store: keys that rows let go of, and keys that never came to have a row."""

from collections.abc import Collection, Iterator
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, select

from app.core.uow import UnitOfWork
from app.storage.models import Artifact, Blob, Discard, Part
from app.storage.packs import AT_ONCE, READERS_S
from trellis.stores.base import Store

# Below these everything has a row, or is on its way to one.
PREFIXES = ("artifacts", "blobs")


def list_due(uow: UnitOfWork, readers_s: float = READERS_S) -> list[str]:
    """The keys that nobody can be reading any more, some at most."""
    edge = uow.clock.now() - timedelta(seconds=readers_s)
    statement = select(Discard.key).where(Discard.at < edge).order_by(Discard.at).limit(AT_ONCE)
    return list(uow.session.execute(statement).scalars())


def forget(uow: UnitOfWork, keys: Collection[str]) -> None:
    """They are deleted."""
    uow.execute(delete(Discard).where(Discard.key.in_(keys)))


def orphans(store: Store, older_than_s: float, now: float) -> Iterator[str]:
    """Keys that are old enough to belong to nothing under way; some may be known all the same."""
    for prefix in PREFIXES:
        for stored in store.find(prefix):
            if stored.modified_at < now - older_than_s:
                yield stored.key


def unknown(uow: UnitOfWork, keys: Collection[str]) -> list[str]:
    """Those of `keys` that no row names."""
    known: set[str] = set()
    # In the order in which a key goes from one to the next: none is overlooked that does so meanwhile.
    for column in (Part.key, Artifact.key, Discard.key):
        known |= set(uow.session.execute(select(column).where(column.in_(keys))).scalars())
    ids = [found for key in keys if (found := _blob_id(key)) is not None]
    known |= set(uow.session.execute(select(Blob.key).where(Blob.id.in_(ids))).scalars())
    return [key for key in keys if key not in known]


def _blob_id(key: str) -> UUID | None:
    """A content's key ends in its row's id, by which it is found fast."""
    try:
        return UUID(key.rpartition("/")[2]) if key.startswith("blobs/") else None
    except ValueError:
        return None
