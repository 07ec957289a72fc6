"""The contents that bundles are made of, kept once a project."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ARRAY, ColumnElement, String, Uuid, any_, delete, exists, func, literal, select, update
from sqlalchemy.dialects.postgresql import insert

from app.core.access import Permission
from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.storage.models import Blob, BundleBlob
from app.tenancy.service import find_project
from trellis.bundles.parcels import BadParcel, Parcel, unwrap
from trellis.errors import Field, Invalid, QuotaExceeded
from trellis.stores.base import Store
from trellis.units import format_bytes

# What belongs to no bundle yet may still be on its way into one.
LOOSE = timedelta(days=1)
BATCH = 500


@dataclass(frozen=True, slots=True)
class Depot:
    """Whose contents these are, and how many more bytes there is room for."""

    project_id: UUID
    room_bytes: int


@dataclass(frozen=True, slots=True)
class Stored:
    """A content that the store holds, and that no row speaks of yet."""

    id: UUID
    digest: str
    size_bytes: int
    key: str


def open_depot(uow: UnitOfWork, project: str, most_bytes: int) -> Depot:
    """Where the actor may send contents to. Raises Invalid for no such project, Forbidden for a mere viewer."""
    project_id = find_project(uow, project, Permission.JOB_WRITE).id
    return Depot(project_id, most_bytes - held_bytes(uow, project_id))


def held_bytes(uow: UnitOfWork, project_id: UUID) -> int:
    """What a project's contents take."""
    statement = select(func.coalesce(func.sum(Blob.size_bytes), 0))
    return int(uow.execute(statement.where(Blob.project_id == project_id, Blob.dropped_at.is_(None))).scalar_one())


def take_in(store: Store, depot: Depot, read: Callable[[int], bytes], kept: list[Stored]) -> None:
    """Store the contents of a body of parcels, and note each in `kept` once it is whole.

    Raises: Invalid for a content that does not have its digest, QuotaExceeded where the project has no room for more.
    """
    room = depot.room_bytes
    try:
        for parcel in unwrap(read):
            room -= parcel.size_bytes
            if room < 0:
                raise no_room(parcel.size_bytes)
            kept.append(_store(store, depot.project_id, parcel))
    except BadParcel as error:
        raise Invalid(Field("", f"{error}: send what is still missing again"), detail=str(error)) from error


def _store(store: Store, project_id: UUID, parcel: Parcel) -> Stored:
    identity = new_id()
    # By its own id, not by its digest: what is dropped and comes again must not meet under one key.
    key = f"blobs/{project_id}/{identity}"
    store.write(key, parcel.pieces)
    return Stored(identity, parcel.digest, parcel.size_bytes, key)


def no_room(more_bytes: int) -> QuotaExceeded:
    """Why a project may send no more code."""
    return QuotaExceeded(
        f"there is no room for {format_bytes(more_bytes)} more of code in this project: `trellis bundles` lists what "
        "it keeps, `trellis bundles delete` makes room"
    )


def record(uow: UnitOfWork, project_id: UUID, kept: Sequence[Stored]) -> list[str]:
    """Write down what the store holds now. Returns the keys of what was there already, to be deleted again."""
    uow.require(Permission.JOB_WRITE, project_id)
    if not kept:
        return []
    rows = [
        {
            "id": s.id,
            "project_id": project_id,
            "digest": s.digest,
            "size_bytes": s.size_bytes,
            "key": s.key,
            "version": 1,
        }
        for s in kept
    ]
    fresh = insert(Blob).on_conflict_do_nothing().returning(Blob.id)
    written = set(uow.session.execute(fresh, rows).scalars())
    return [s.key for s in kept if s.id not in written]


def sizes_of(uow: UnitOfWork, project_id: UUID, digests: Collection[str]) -> dict[str, int]:
    """Those of `digests` that the project has, with their sizes in bytes."""
    known = select(Blob.digest, Blob.size_bytes).where(
        Blob.project_id == project_id, _digest_in(digests), Blob.dropped_at.is_(None)
    )
    return {row.digest: row.size_bytes for row in uow.execute(known)}


def keys_of(uow: UnitOfWork, bundle_id: UUID, digests: Collection[str] | None = None) -> dict[str, tuple[str, int]]:
    """Where a bundle's contents are, those of `digests` or all: digest to the store's key and the size in bytes."""
    known = select(Blob.digest, Blob.key, Blob.size_bytes).join(BundleBlob, BundleBlob.blob_id == Blob.id)
    known = known.where(BundleBlob.bundle_id == bundle_id)
    if digests is not None:
        known = known.where(_digest_in(digests))
    return {row.digest: (row.key, row.size_bytes) for row in uow.execute(known)}


def attach(uow: UnitOfWork, bundle_id: UUID, project_id: UUID, blobs: Mapping[str, int]) -> bool:
    """Note that a bundle holds these contents; False where one of them was dropped meanwhile."""
    live = select(Blob.id).where(Blob.project_id == project_id, _digest_in(blobs), Blob.dropped_at.is_(None))
    # Locked, so that who drops what belongs to no bundle either sees this or is seen.
    ids = uow.session.execute(live.with_for_update(key_share=True, read=True)).scalars().all()
    if len(ids) < len(blobs):
        return False
    if ids:
        uow.session.execute(insert(BundleBlob), [{"bundle_id": bundle_id, "blob_id": blob_id} for blob_id in ids])
    return True


def drop_loose(uow: UnitOfWork) -> int:
    """Give out no more what has belonged to no bundle for a day; how many there were, of some at most."""
    in_bundle = exists().where(BundleBlob.blob_id == Blob.id)
    old = uow.clock.now() - LOOSE
    loose = select(Blob.id).where(Blob.dropped_at.is_(None), Blob.created_at < old, ~in_bundle).limit(BATCH)
    ids = uow.session.execute(loose.with_for_update(skip_locked=True)).scalars().all()
    # Looked at again now that they are locked: a bundle may have taken one in between the look and the lock.
    still = update(Blob).where(_id_in(ids), ~in_bundle).values(dropped_at=uow.clock.now())
    return uow.execute(still).rowcount if ids else 0


def list_dropped(uow: UnitOfWork) -> dict[UUID, str]:
    """Some of what is given out no more: ids and the store's keys, of which none is ever used again."""
    dropped = select(Blob.id, Blob.key).where(Blob.dropped_at.is_not(None)).order_by(Blob.id).limit(BATCH)
    return {row.id: row.key for row in uow.execute(dropped)}


def forget(uow: UnitOfWork, ids: Sequence[UUID]) -> None:
    """Their bytes are deleted."""
    uow.execute(delete(Blob).where(_id_in(ids), Blob.dropped_at.is_not(None)))


def _digest_in(digests: Collection[str]) -> ColumnElement[bool]:
    return Blob.digest == any_(literal(list(digests), ARRAY(String)))


def _id_in(ids: Collection[UUID]) -> ColumnElement[bool]:
    return Blob.id == any_(literal(list(ids), ARRAY(Uuid)))
