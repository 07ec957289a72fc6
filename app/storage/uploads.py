"""Files on their way from a person: begun with their size and digest, then appended to until all is there.

What has arrived of a part when its connection breaks is kept, so an upload goes on from the byte where it stopped.
Nothing of it is listed before the whole of it has the digest that was announced.
"""

import hashlib
from datetime import timedelta
from uuid import UUID

from sqlalchemy import delete, func, select

from app.core.access import Permission
from app.core.ids import new_id
from app.core.settings import Settings
from app.core.uow import UnitOfWork
from app.storage import artifacts
from app.storage.artifacts import Content, Label, Owner
from app.storage.models import Artifact, Part, Upload
from trellis.errors import Conflict, Field, Invalid, NotFound
from trellis.stores.base import Store

# An upload that nobody touches for so long is given up.
STALE = timedelta(days=1)
PARTS_AT_MOST = 10_000
BATCH = 100


class OffsetMismatch(Conflict):
    """Bytes that do not begin where the upload stands; its detail says where that is."""

    code = "offset_mismatch"
    title = "The upload stands elsewhere"


def begin(uow: UnitOfWork, owner: Owner, label: Label, content: Content, settings: Settings) -> Artifact | Upload:
    """Begin an upload, or find the one that the actor began of the same file; the artifact, where it is there already.

    Raises: Invalid, Forbidden for a mere viewer, QuotaExceeded.
    """
    uow.require(Permission.JOB_WRITE, owner.project_id)
    label.check()
    content.check()
    if same := artifacts.find_same(uow, owner, label, content.digest):
        return same
    columns = label.columns() | {"digest": content.digest, "size_bytes": content.size_bytes}
    mine = select(Upload).where(Upload.job_id == owner.job_id, Upload.actor_id == uow.actor.id)
    mine = mine.where(*(getattr(Upload, name) == value for name, value in columns.items()))
    if begun := uow.session.execute(mine.limit(1)).scalar_one_or_none():
        return begun
    artifacts.hold_room(uow, owner, content.size_bytes, settings)
    upload = Upload(
        id=new_id(), project_id=owner.project_id, job_id=owner.job_id, actor_id=uow.actor.id,
        received_bytes=0, touched_at=uow.clock.now(), **columns,
    )  # fmt: skip
    uow.session.add(upload)
    uow.session.flush()
    return upload


def get(uow: UnitOfWork, job_id: UUID, upload_id: UUID, *, lock: bool = False) -> Upload:
    """The upload, for who began it. Raises NotFound for anybody else."""
    upload = uow.get(Upload, upload_id, lock=lock)
    if upload.job_id != job_id or upload.actor_id != uow.actor.id:
        raise NotFound(f"there is no upload {upload_id}")
    uow.require(Permission.JOB_WRITE, upload.project_id)
    return upload


def stand_at(upload: Upload, offset: int) -> None:
    """Raises OffsetMismatch where the upload is not at `offset`."""
    if upload.received_bytes != offset:
        raise OffsetMismatch(
            f"the upload has {upload.received_bytes} of {upload.size_bytes} bytes: send on from byte {upload.received_bytes}"
        )


def new_key(upload: Upload) -> str:
    """Where the next part goes: nobody who sends the same bytes at the same time has this key."""
    owner = Owner(upload.project_id, upload.job_id)
    return owner.new_key(upload.id, f"/{upload.received_bytes}-{new_id()}")


def append(uow: UnitOfWork, job_id: UUID, upload_id: UUID, part: Part) -> Upload:
    """Note a part that the store holds. Raises OffsetMismatch where another came first, NotFound."""
    upload = get(uow, job_id, upload_id, lock=True)
    stand_at(upload, part.offset)
    count = uow.execute(select(func.count()).where(Part.file_id == upload_id)).scalar_one()
    if count and not part.size_bytes:  # of a file of no bytes, sent before: the answer to that was lost
        artifacts.discard(uow, [part.key])
        return upload
    if count >= PARTS_AT_MOST:
        raise Invalid(Field("", f"an upload has at most {PARTS_AT_MOST} parts: begin anew, with larger ones"))
    uow.session.add(part)
    upload.received_bytes += part.size_bytes
    upload.touched_at = uow.clock.now()
    uow.session.flush()
    return upload


def places(uow: UnitOfWork, job_id: UUID, upload_id: UUID) -> list[tuple[str, int]]:
    """Where what has arrived lies, as `artifacts.pieces` wants it. Raises NotFound."""
    get(uow, job_id, upload_id)
    return [(part.key, part.size_bytes) for part in artifacts.parts_of(uow, upload_id)]


def digest_of(store: Store, parts: list[tuple[str, int]]) -> str:
    """The SHA-256 of what was sent, read back from the store. Raises StoreFull, Unavailable."""
    digest = hashlib.sha256()
    with artifacts.as_answers():
        for piece in artifacts.pieces(store, parts, 0, sum(size for _, size in parts)):
            digest.update(piece)
    return digest.hexdigest()


def finish(uow: UnitOfWork, job_id: UUID, upload_id: UUID) -> Artifact:
    """Turn an upload, whose parts were found to have its digest, into an artifact."""
    upload = get(uow, job_id, upload_id, lock=True)
    owner, parts = Owner(upload.project_id, upload.job_id), artifacts.parts_of(uow, upload_id)
    label = Label(upload.name, upload.kind, upload.media_type, upload.details)
    key = parts[0].key
    if len(parts) == 1:
        uow.session.delete(parts[0])
    uow.session.delete(upload)
    uow.session.flush()
    return artifacts.keep(uow, owner, label, Content(upload.digest, upload.size_bytes), key, upload.id)


def give_up(uow: UnitOfWork, upload: Upload) -> None:
    """Forget an upload and what has arrived of it."""
    artifacts.discard(uow, (part.key for part in artifacts.parts_of(uow, upload.id)))
    uow.execute(delete(Part).where(Part.file_id == upload.id))
    uow.session.delete(upload)
    uow.session.flush()


def give_up_stale(uow: UnitOfWork) -> int:
    """Forget uploads that nobody has gone on with in a day; how many, of some at most."""
    old = select(Upload).where(Upload.touched_at < uow.clock.now() - STALE).order_by(Upload.touched_at).limit(BATCH)
    found = uow.session.execute(old.with_for_update(skip_locked=True)).scalars().all()
    for upload in found:
        give_up(uow, upload)
    return len(found)
