"""Directories of code that jobs run in: sent once, kept while they are used."""

import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select, update

from app.core.access import Permission
from app.core.ids import new_id
from app.core.paging import Page, PageRequest, page
from app.core.settings import Settings
from app.core.uow import UnitOfWork
from app.storage import blobs
from app.storage.models import Bundle
from app.tenancy.service import find_project
from trellis.bundles.manifest import BadManifest, Manifest, largest_of
from trellis.bundles.parcels import wrap
from trellis.errors import Conflict, Field, Invalid
from trellis.stores.base import Store
from trellis.units import format_bytes
from trellis.wire import pack, unpack

# How exactly it is known when a bundle was last used: a write an hour, not one a job.
USED_WITHIN = timedelta(hours=1)
BATCH = 100


class BundleInUse(Conflict):
    """A job that has not ended runs in it."""

    code = "bundle_in_use"
    title = "A job still needs this bundle"


@dataclass(frozen=True, slots=True)
class Draft:
    """A directory that somebody wants to keep."""

    manifest: Manifest
    project: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Kept:
    """The bundle, or the digests of what must be sent before there can be one."""

    bundle: Bundle | None
    missing: tuple[str, ...] = ()


def keep(uow: UnitOfWork, draft: Draft, settings: Settings) -> Kept:
    """Keep a directory whose contents are here, or say which are not. The same one again is the same bundle.

    Raises: Invalid for a manifest that may not be, or is too large; QuotaExceeded where the project has no room.
    """
    project_id = find_project(uow, draft.project, Permission.JOB_WRITE).id
    manifest = draft.manifest
    _check(manifest, settings)
    known = uow.session.execute(
        select(Bundle).where(Bundle.project_id == project_id, Bundle.digest == manifest.digest).with_for_update()
    ).scalar_one_or_none()
    if known is not None:
        known.used_at = uow.clock.now()
        return Kept(known)
    here = blobs.sizes_of(uow, project_id, manifest.blobs)
    if missing := tuple(digest for digest in manifest.blobs if digest not in here):
        more = sum(manifest.blobs[digest] for digest in missing)
        if blobs.held_bytes(uow, project_id) + more > settings.project_code_bytes:
            raise blobs.no_room(more)
        return Kept(None, missing)
    _refuse_sizes(manifest, here)
    bundle = _new(uow, draft, project_id)
    if not blobs.attach(uow, bundle.id, project_id, manifest.blobs):
        raise Conflict("a part of it was dropped at this very moment: send it again")
    uow.emit("bundle.created", bundle, digest=bundle.digest, size_bytes=bundle.size_bytes)
    return Kept(bundle)


def _check(manifest: Manifest, settings: Settings) -> None:
    try:
        manifest.check()
    except BadManifest as error:
        place = "/files" if error.number is None else f"/files/{error.number}"
        raise Invalid(Field(place, str(error))) from error
    if manifest.size_bytes > settings.bundle_bytes:
        size, most = format_bytes(manifest.size_bytes), format_bytes(settings.bundle_bytes)
        largest = largest_of(manifest.files)
        raise Invalid(
            Field("/files", f"hold {size}, more than a bundle may ({most}); the largest are {largest}: name what the "
                  "job does not need in .trellisignore")
        )  # fmt: skip


def _refuse_sizes(manifest: Manifest, here: dict[str, int]) -> None:
    for number, entry in enumerate(manifest.files):
        if not entry.link and here[entry.digest] != entry.size_bytes:
            raise Invalid(Field(f"/files/{number}", f"{entry.path!r} has another size than what has its digest"))


def _new(uow: UnitOfWork, draft: Draft, project_id: UUID) -> Bundle:
    manifest = draft.manifest
    bundle = Bundle(
        id=new_id(), project_id=project_id, digest=manifest.digest, name=draft.name, files=len(manifest.files),
        size_bytes=manifest.size_bytes, manifest=zlib.compress(json.dumps(pack(manifest)).encode()), actor_name=uow.actor.name, used_at=uow.clock.now(),
    )  # fmt: skip
    uow.session.add(bundle)
    uow.session.flush()
    return bundle


def list_bundles(uow: UnitOfWork, project: str, request: PageRequest) -> Page[Bundle]:
    """Those of the actor's projects, or of one of them."""
    statement = uow.visible(Bundle)
    if project:
        statement = statement.where(Bundle.project_id == find_project(uow, project, Permission.JOB_READ).id)
    return page(uow, statement, Bundle, request)


def manifest_of(bundle: Bundle) -> Manifest:
    """What is in a bundle."""
    return unpack(Manifest, json.loads(zlib.decompress(bundle.manifest)))


def contents(uow: UnitOfWork, store: Store, bundle_id: UUID, digests: list[str] | None = None) -> Iterator[bytes]:
    """The contents of a bundle as parcels, those of `digests` or all; what it does not hold is left out."""
    places = blobs.keys_of(uow, bundle_id, digests)
    return (part for digest, (key, size) in places.items() for part in wrap(digest, size, store.read(key)))


def use(uow: UnitOfWork, bundle_id: UUID, project_id: UUID, *, lock: bool) -> Bundle:
    """The bundle, for a job of that project; locked it is not dropped before the unit ends. Raises Invalid."""
    statement = select(Bundle).where(Bundle.id == bundle_id, Bundle.project_id == project_id)
    if lock:
        statement = statement.with_for_update(key_share=True, read=True)
    bundle = uow.session.execute(statement).scalar_one_or_none()
    if bundle is None:
        message = f"is no bundle of this project (any more): {bundle_id}; `trellis submit --dir` sends one"
        raise Invalid(Field("/bundle", message))
    if lock and bundle.used_at < uow.clock.now() - USED_WITHIN:
        fresh = update(Bundle).where(Bundle.id == bundle_id).values(used_at=uow.clock.now())
        uow.execute(fresh)
    return bundle


Needed = Callable[[UnitOfWork, list[UUID]], set[UUID]]


def remove(uow: UnitOfWork, bundle_id: UUID, needed: Needed) -> None:
    """Forget a bundle; its contents go when no other has them. Raises BundleInUse. `needed`: which a job still needs."""
    bundle = uow.get(Bundle, bundle_id)
    uow.require(Permission.JOB_WRITE, bundle.project_id)
    locked = select(Bundle).where(Bundle.id == bundle_id).with_for_update()
    uow.session.execute(locked.execution_options(populate_existing=True))
    if needed(uow, [bundle_id]):
        raise BundleInUse(f"a job that has not ended runs in bundle {bundle_id}: cancel it first, or wait")
    _remove(uow, bundle)


def drop_unused(uow: UnitOfWork, days: int, needed: Needed) -> int:
    """Forget the bundles that nobody has used for so many days; how many, of some at most, were looked at."""
    old = select(Bundle).where(Bundle.used_at < uow.clock.now() - timedelta(days=days)).limit(BATCH)
    found = uow.session.execute(old.order_by(Bundle.used_at).with_for_update(skip_locked=True)).scalars().all()
    still = needed(uow, [bundle.id for bundle in found]) if found else set()
    for bundle in found:
        if bundle.id in still:
            bundle.used_at = uow.clock.now()  # or these would be all that is looked at, for as long as they run
        else:
            _remove(uow, bundle)
    return len(found)


def _remove(uow: UnitOfWork, bundle: Bundle) -> None:
    uow.emit("bundle.removed", bundle, digest=bundle.digest)
    uow.session.delete(bundle)
