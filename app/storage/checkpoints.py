"""What jobs can go on from: recorded, found again, shared, removed."""

import logging
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from threading import Lock
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import and_, delete, func, insert, or_, select

from app.core.access import Permission
from app.core.crypto import Keyring
from app.core.ids import new_id
from app.core.settings import Settings
from app.core.uow import UnitOfWork
from app.storage.clusters import Cluster, read_clusters
from app.storage.models import Checkpoint, CheckpointGrant, CheckpointOrigin, CheckpointPack, Pack
from app.storage.retention import Held, Keep, decide_removed
from app.tenancy.models import Project
from trellis.errors import Conflict, Field, Invalid, NotFound, Unavailable
from trellis.stores.base import Store
from trellis.stores.manifests import Manifest, fetch_signed, sign
from trellis.stores.urls import SIGN, open_store
from trellis.units import LARGEST
from trellis.vocabulary import SaveReason
from trellis.wire import unpack

_log = logging.getLogger(__name__)
# So many of a replica are offered to its next attempt: where one is damaged, the one before it.
OFFERED = 3
METRICS_AT_MOST = 100
_KNOWN: set[str] = set()
# What is larger may take up to a gigabyte of memory while it is read: one at a time in a process.
_LARGE_BYTES = 4 << 20
_ONE_LARGE = Lock()


class PacksGone(Conflict):
    """The save builds upon chunks that have been deleted meanwhile: save again without them."""

    code = "packs_gone"
    title = "The checkpoint builds upon deleted chunks"


class Unreadable(Conflict):
    """The store does not hold it (any more) as it was saved, or it may not be read any more."""

    code = "checkpoint_unreadable"
    title = "The checkpoint can't be read"


@dataclass(frozen=True, slots=True)
class Place:
    """Where checkpoints lie, and the key that signs their manifests; and those of other clusters, by their keys."""

    url: str
    store: Store
    key: Ed25519PrivateKey
    clusters: Mapping[str, Cluster] = field(default_factory=dict)

    @classmethod
    def of(cls, settings: Settings, keyring: Keyring) -> "Place":
        """The one that the settings name. Raises SettingsError."""
        key = keyring.signing_key("checkpoints")
        return cls(settings.store, open_store(settings.store), key, read_clusters(settings.trusted_clusters))

    def ensure(self) -> None:
        """Leave a sign in the store by which nodes know that it is this one; looked at once a process.

        A store that is away holds up nobody here: nodes wait for the sign, and it is left when the store is back.
        """
        if self.url in _KNOWN:
            return
        try:
            if self.store.head(SIGN) is None:
                self.store.write(SIGN, [b"checkpoints of Trellis\n"])
        except OSError as error:
            _log.warning("the store %s can't be reached: %s", self.url, error)
        else:
            _KNOWN.add(self.url)

    @property
    def public_key(self) -> str:
        """What others check signatures with, in hex."""
        return self.key.public_key().public_bytes_raw().hex()


@dataclass(frozen=True, slots=True)
class Source:
    """Whose checkpoint it is, and how many of them its owner wants kept.

    It is one of `parts`, which are of use together only: one of each replica, all of one step of one attempt.
    """

    project_id: UUID
    job_id: UUID
    replica_id: UUID
    replica_index: int
    attempt: int
    fence: int
    keep: Keep
    parts: int = 1


def read_sent(block: bytes) -> Manifest:
    """What a node sent, checked; large ones one after the other. Raises Invalid."""
    if len(block) <= _LARGE_BYTES:
        return Manifest.decode(block)
    with _ONE_LARGE:
        return Manifest.decode(block)


def record(uow: UnitOfWork, place: Place, source: Source, manifest: Manifest) -> Checkpoint:
    """Sign and keep what a node has stored; the same save sent twice is kept once.

    All packs are in the store already. The manifest goes there before the row that makes it the latest is committed:
    whatever dies in between leaves an object that nobody refers to, and the checkpoint before it in its place.
    Raises: Invalid for a manifest that is not its replica's; PacksGone.
    """
    said = _Said.read(manifest.about)
    if source.parts > 1 and said.step is None:
        raise Invalid(Field("/manifest/about/step", "is missing: parts of one checkpoint are told by their step"))
    key = f"manifests/{source.project_id}/{source.job_id}/{source.replica_id}-{source.fence}-{said.save}"
    known = uow.session.execute(select(Checkpoint).where(Checkpoint.key == key)).scalar_one_or_none()
    if known is not None:
        return known
    _require_packs(uow, source, manifest, said)
    checkpoint = Checkpoint(
        id=new_id(), project_id=source.project_id, job_id=source.job_id, replica_index=source.replica_index,
        attempt=source.attempt, fence=source.fence, reason=said.reason, at_step=said.step, metrics=said.metrics,
        files=len(manifest.files), size_bytes=manifest.size_bytes, new_bytes=said.new_bytes,
        stored_bytes=sum(said.packs.values()), key=key, created_at=uow.clock.now(), parts=source.parts,
    )  # fmt: skip
    about = {
        "id": str(checkpoint.id), "job_id": str(source.job_id), "project_id": str(source.project_id),
        "replica_index": source.replica_index, "attempt": source.attempt, "step": said.step, "metrics": said.metrics,
        "saved_at": uow.clock.now().isoformat(), "reason": said.reason.value, "packs": said.packs,
        "marked": said.marked,
    }  # fmt: skip
    block = sign(Manifest(manifest.files, about), place.key)
    place.store.write(key, [block])
    _store(uow, checkpoint, manifest.packs, {**said.packs, key: len(block)})
    uow.emit(
        "checkpoint.saved", checkpoint, step=said.step, size_bytes=checkpoint.size_bytes, reason=said.reason.value,
        new_bytes=checkpoint.new_bytes, stored_bytes=checkpoint.stored_bytes, replica_index=source.replica_index,
    )  # fmt: skip
    _retain(uow, source)
    return checkpoint


@dataclass(frozen=True, slots=True)
class _Said:
    """What the node says of a save beside its files."""

    save: str
    reason: SaveReason
    step: int | None
    metrics: dict[str, float]
    new_bytes: int
    packs: dict[str, int]
    marked: bool

    @classmethod
    def read(cls, about: Mapping[str, Any]) -> "_Said":
        """Checked as if an enemy had said it. Raises Invalid."""
        try:
            said = unpack(cls, {name: about.get(name) for name in cls.__slots__})
        except ValueError as error:
            raise Invalid(Field("/manifest/about", f"is not what a save says of itself: {error}")) from error
        if not (said.save.isascii() and said.save.isalnum()) or len(said.save) > 64:
            raise Invalid(Field("/manifest/about/save", "must be 1 to 64 letters and digits"))
        amounts = [abs(said.step or 0), said.new_bytes, *said.packs.values()]
        if any(not 0 <= number <= LARGEST for number in amounts):
            raise Invalid(Field("/manifest/about", "holds a step or a size that is out of range"))
        named = all(0 < len(name) <= 128 and name.isprintable() for name in said.metrics)
        finite = all(math.isfinite(value) for value in said.metrics.values())
        if len(said.metrics) > METRICS_AT_MOST or not (named and finite):
            raise Invalid(Field("/manifest/about/metrics", f"must be up to {METRICS_AT_MOST} finite numbers by name"))
        return said


def _require_packs(uow: UnitOfWork, source: Source, manifest: Manifest, said: _Said) -> None:
    own = f"packs/{source.project_id}/"
    needed = set(manifest.packs)
    if foreign := {key for key in needed if not key.startswith(own)}:
        raise Invalid(Field("/manifest/packs", f"{min(foreign)} is not of this project"))
    # By their very form: what a save may say is new is deleted when nobody needs it any more.
    fresh = re.compile(rf"{own}{source.job_id}/{source.replica_id}-{source.fence}-{said.save}-\d{{1,9}}", re.ASCII)
    if alien := {key for key in said.packs if not fresh.fullmatch(key)}:
        raise Invalid(Field("/manifest/about/packs", f"{min(alien)[:200]} is no pack of this save"))
    old = needed - said.packs.keys()
    # Shared locks: the sweep dooms a pack under a stronger one, so either it sees our reference or we see its mark.
    alive = select(Pack.key).where(Pack.key.in_(old), Pack.doomed_at.is_(None)).with_for_update(read=True)
    if missing := old - set(uow.session.execute(alive).scalars()):
        raise PacksGone(f"{len(missing)} of the packs that it builds upon are gone: save it again, whole")


def _store(uow: UnitOfWork, checkpoint: Checkpoint, packs: Collection[str], new: Mapping[str, int]) -> None:
    uow.session.add(checkpoint)
    uow.session.flush()
    rows = [
        {"key": key, "project_id": checkpoint.project_id, "size_bytes": size, "created_at": uow.clock.now()}
        for key, size in new.items()
    ]
    uow.execute(insert(Pack), rows)
    links = [{"checkpoint_id": checkpoint.id, "pack_key": key} for key in {*packs, checkpoint.key}]
    uow.execute(insert(CheckpointPack), links)


def _retain(uow: UnitOfWork, source: Source) -> None:
    rows = uow.session.execute(
        select(Checkpoint)
        .where(Checkpoint.job_id == source.job_id, Checkpoint.replica_index == source.replica_index)
        .order_by(Checkpoint.id)
        .with_for_update()  # so that who hands one out at this moment either sees it gone or has it kept
    ).scalars()
    by_id = {row.id: row for row in rows}
    held = [
        Held(row.id, row.created_at, row.metrics.get(source.keep.metric), row.damaged_at is not None)
        for row in by_id.values()
    ]
    whole = whole_of(uow, [source.job_id]).get(source.job_id, {}) if source.parts > 1 else {}
    now = uow.clock.now()
    for identity in decide_removed(held, source.keep, now):
        row = by_id[identity]
        promised = (
            row.exported_until is not None and row.exported_until > now
        )  # another cluster may be about to read it
        if row.key not in whole.values() and not promised:  # others may be slower: what all of them have stays
            _remove(uow, row, "retention")


def _remove(uow: UnitOfWork, checkpoint: Checkpoint, reason: str) -> None:
    uow.emit("checkpoint.removed", checkpoint, reason=reason, step=checkpoint.at_step)
    uow.session.delete(checkpoint)
    uow.session.flush()


def remove_checkpoint(uow: UnitOfWork, checkpoint_id: UUID) -> None:
    """Forget a checkpoint at once; what only it held leaves the store with one of the next sweeps."""
    checkpoint = uow.get(Checkpoint, checkpoint_id, lock=True)
    uow.require(Permission.JOB_WRITE, checkpoint.project_id)
    _remove(uow, checkpoint, "asked")


def list_checkpoints(uow: UnitOfWork, job_id: UUID) -> list[Checkpoint]:
    """What there is of a job, newest first."""
    statement = uow.visible(Checkpoint).where(Checkpoint.job_id == job_id)
    ordered = statement.order_by(Checkpoint.created_at.desc(), Checkpoint.id.desc()).limit(1000)
    return list(uow.session.execute(ordered).scalars())


def offered(uow: UnitOfWork, replicas: Collection[tuple[UUID, int]]) -> dict[tuple[UUID, int], list[str]]:
    """By job and replica index, the manifests that each of `replicas` may go on from, newest first.

    Its own, or where it has none those of replica 0; OFFERED at most, of those that are good.
    """
    owner = (Checkpoint.job_id, Checkpoint.replica_index)
    newest = func.row_number().over(partition_by=owner, order_by=(Checkpoint.created_at.desc(), Checkpoint.id.desc()))
    good = (
        select(*owner, Checkpoint.key, newest.label("rank"))
        .where(Checkpoint.job_id.in_({job_id for job_id, _ in replicas}), Checkpoint.damaged_at.is_(None))
        .where(Checkpoint.replica_index.in_({0} | {index for _, index in replicas}))
        .subquery()
    )
    found: dict[tuple[UUID, int], list[str]] = {}
    for row in uow.session.execute(select(good).where(good.c.rank <= OFFERED).order_by(good.c.rank)):
        found.setdefault((row.job_id, row.replica_index), []).append(row.key)
    return {(job_id, index): found.get((job_id, index)) or found.get((job_id, 0), []) for job_id, index in replicas}


def whole_of(uow: UnitOfWork, job_ids: Collection[UUID]) -> dict[UUID, dict[int, str]]:
    """By job, the newest checkpoint of which every part is there and good: manifests by replica index."""
    step = (Checkpoint.job_id, Checkpoint.fence, Checkpoint.at_step)
    good = (Checkpoint.job_id.in_(job_ids), Checkpoint.damaged_at.is_(None), Checkpoint.parts > 1)
    newest = func.row_number().over(
        partition_by=Checkpoint.job_id, order_by=(func.max(Checkpoint.created_at).desc(), Checkpoint.fence.desc())
    )
    sets = (
        select(*step, newest.label("rank"))
        .where(*good)
        .group_by(*step)
        .having(func.count(Checkpoint.replica_index.distinct()) >= func.max(Checkpoint.parts))
        .subquery()
    )
    same = [column == sets.c[column.key] for column in step]
    rows = (
        select(Checkpoint.job_id, Checkpoint.replica_index, Checkpoint.key)
        .join(sets, and_(*same))
        .where(*good, sets.c.rank == 1)
        .order_by(Checkpoint.created_at, Checkpoint.id)
    )
    found: dict[UUID, dict[int, str]] = {}
    for row in uow.session.execute(rows):  # of one saved twice the later counts
        found.setdefault(row.job_id, {})[row.replica_index] = row.key
    return found


def find_keys(uow: UnitOfWork, keys: Collection[str], named: UUID | None = None) -> dict[str, Checkpoint]:
    """The checkpoints with these manifests, by their keys; of those that were imported the one of the id `named`."""
    imported = and_(Checkpoint.id == named, CheckpointOrigin.key.in_(keys))
    rows = uow.session.execute(
        select(Checkpoint, CheckpointOrigin.key)
        .outerjoin(CheckpointOrigin)
        .where(or_(Checkpoint.key.in_(keys), imported))
    )
    return {key or row.key: row for row, key in rows}


def note_damaged(uow: UnitOfWork, checkpoint: Checkpoint, reason: str) -> None:
    """It could not be restored: it is offered no more."""
    checkpoint.damaged_at = uow.clock.now()
    uow.emit("checkpoint.damaged", checkpoint, step=checkpoint.at_step, reason=reason)


def share(uow: UnitOfWork, checkpoint_id: UUID, project_id: UUID) -> None:
    """Let another project read it and go on from it. Sharing again changes nothing."""
    checkpoint = uow.get(Checkpoint, checkpoint_id, lock=True)
    uow.require(Permission.PROJECT_WRITE, checkpoint.project_id)
    if uow.session.get(Project, project_id) is None:
        raise NotFound(f"there is no project {project_id}")
    if uow.session.get(CheckpointGrant, (checkpoint.id, project_id)) is None:
        uow.session.add(CheckpointGrant(checkpoint_id=checkpoint.id, project_id=project_id, created_at=uow.clock.now()))
        uow.emit("checkpoint.shared", checkpoint, with_project=str(project_id))


def unshare(uow: UnitOfWork, checkpoint_id: UUID, project_id: UUID) -> None:
    """Take the grant back. Copies that were made while it stood stay where they are."""
    checkpoint = uow.get(Checkpoint, checkpoint_id, lock=True)
    uow.require(Permission.PROJECT_WRITE, checkpoint.project_id)
    uow.execute(
        delete(CheckpointGrant).where(
            CheckpointGrant.checkpoint_id == checkpoint.id, CheckpointGrant.project_id == project_id
        )
    )
    uow.emit("checkpoint.unshared", checkpoint, with_project=str(project_id))


def read_manifest(uow: UnitOfWork, place: Place, checkpoint: Checkpoint) -> tuple[Store, Manifest]:
    """Its manifest out of the store, checked, and the store that its chunks are in.

    Raises: Conflict where it was altered or is gone, or where it was imported and may not be read any more;
        Unavailable where the store can't be reached.
    """
    store, key, public_key = place.store, checkpoint.key, place.public_key
    if checkpoint.job_id is None:
        origin = uow.session.execute(
            select(CheckpointOrigin).where(CheckpointOrigin.checkpoint_id == checkpoint.id)
        ).scalar_one()
        if why := closed(origin, uow.clock.now()):
            raise Unreadable(why)
        store, key, public_key = trusted(origin, place).store, origin.key, origin.public_key
    try:
        return store, fetch_signed(store, key, public_key)
    except FileNotFoundError as error:
        raise Unreadable("its manifest is not in the store any more") from error
    except OSError as error:
        raise Unavailable(f"the store can't be reached: {error}") from error
    except Invalid as error:
        raise Unreadable(f"its manifest {error.fields[0].message}") from error


def closed(origin: CheckpointOrigin, now: datetime) -> str:
    """Why an imported checkpoint may not be read any more; "" while it may."""
    if origin.until > now:
        return ""
    return f"the ticket that it came with ran out at {origin.until.isoformat()}: import it with another one"


def trusted(origin: CheckpointOrigin, place: Place) -> Cluster:
    """The cluster that an imported checkpoint is from. Raises Unreadable where the operator names it no more."""
    cluster = place.clusters.get(origin.public_key)
    if cluster is None:
        raise Unreadable(f"the cluster that it is from is not trusted here any more (key {origin.public_key[:16]})")
    return cluster


def origins_of(uow: UnitOfWork, rows: Iterable[Checkpoint]) -> dict[UUID, CheckpointOrigin]:
    """By id, where those of `rows` are from that were imported."""
    imported = [row.id for row in rows if row.job_id is None]
    if not imported:
        return {}
    found = uow.session.execute(select(CheckpointOrigin).where(CheckpointOrigin.checkpoint_id.in_(imported))).scalars()
    return {origin.checkpoint_id: origin for origin in found}


def present(row: Checkpoint, place: Place, origin: CheckpointOrigin | None = None) -> dict[str, Any]:
    """As it is answered; `origin` is that of one that was imported."""
    names = ("id", "job_id", "project_id", "attempt", "reason", "metrics", "files", "size_bytes", "new_bytes", "parts")
    more = ("stored_bytes", "created_at", "exported_until")
    cluster = place.clusters.get(origin.public_key) if origin else None
    source, key = (cluster.store if cluster else None, origin.key) if origin else (place.store, row.key)
    return {name: getattr(row, name) for name in (*names, *more)} | {
        "replica": row.replica_index,
        "step": row.at_step,
        "damaged": row.damaged_at is not None,
        "url": source.locate(key) if source else "",
        "cluster": cluster.name if cluster else origin.public_key[:16] if origin else "",
        "until": origin.until if origin else None,
    }
