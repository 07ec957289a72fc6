"""Files beside a job's results: what they are called, how much room they take, whose they are."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from errno import EDQUOT, EFBIG, ENOSPC
from typing import Any
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import insert

from app.core.access import Permission
from app.core.ids import new_id
from app.core.locks import wait_lock
from app.core.paging import Page, PageRequest, page
from app.core.settings import Settings
from app.core.uow import UnitOfWork
from app.storage.kinds import kind_of, media_type_of
from app.storage.models import Artifact, Discard, Part, Upload
from trellis.errors import Field, Invalid, NotFound, QuotaExceeded, StoreFull, Unavailable
from trellis.stores.base import Store, Written
from trellis.units import format_bytes

# A name is only shown: the store's key is made by the server. Segments all the same, for whoever saves it as a file.
_NAME = re.compile(r"(?=.{1,255}\Z)[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*", re.ASCII)
_KIND = re.compile(r"[a-z][a-z0-9_-]{0,39}", re.ASCII)
_MEDIA_TYPE = re.compile(r"(?=.{3,100}\Z)[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]*", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)
DETAILS_BYTES = 16 * 1024
A_JOB = 10_000
_PIECE_BYTES = 4 << 20
_FULL = frozenset({ENOSPC, EDQUOT, EFBIG})


@dataclass(frozen=True, slots=True)
class Label:
    """What a file is called and what it is; of what its owner does not say, the name decides."""

    name: str
    kind: str = ""
    media_type: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def check(self) -> None:
        """Raises Invalid, naming each field at fault."""
        text = json.dumps(self.details, allow_nan=False)
        faults = [
            (_NAME.fullmatch(self.name), "/name", ("must be a relative path of up to 255 characters, its parts of letters, "
             "digits, '.', '-' and '_', none beginning with '.' or '-'")),
            (not self.kind or _KIND.fullmatch(self.kind), "/type", "must be a word such as model: up to 40 of a-z, 0-9, '_' and '-'"),
            (not self.media_type or _MEDIA_TYPE.fullmatch(self.media_type), "/media_type", "must be such as image/png"),
            (len(text) <= DETAILS_BYTES, "/metadata", f"is larger than {DETAILS_BYTES // 1024} KiB: save it as a file"),
            ("\\u0000" not in text, "/metadata", "must not hold NUL characters"),
        ]  # fmt: skip
        if wrong := [Field(pointer, message) for fine, pointer, message in faults if not fine]:
            raise Invalid(*wrong)

    def columns(self) -> dict[str, Any]:
        """As an artifact or an upload holds it."""
        kind, media = self.kind or kind_of(self.name), self.media_type or media_type_of(self.name)
        return {"name": self.name, "kind": kind, "media_type": media, "details": dict(self.details)}


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose file it is: a job's, or that of one of its replicas."""

    project_id: UUID
    job_id: UUID
    replica_id: UUID | None = None

    def new_key(self, identity: UUID, part: str = "") -> str:
        """A key of the store that nothing else has or will have."""
        return f"artifacts/{self.project_id}/{self.job_id}/{identity}{part}"


@dataclass(frozen=True, slots=True)
class Content:
    """What is in a file: its SHA-256 in hex, and its size."""

    digest: str
    size_bytes: int

    def check(self) -> None:
        """Raises Invalid for what is no digest."""
        if not _DIGEST.fullmatch(self.digest):
            raise Invalid(Field("/digest", "must be the file's SHA-256 in 64 hex digits"))


def find_same(uow: UnitOfWork, owner: Owner, label: Label, digest: str) -> Artifact | None:
    """The artifact that has this name, content and description already."""
    found = _named(uow, owner, label.name)
    same = found is not None and found.digest == digest
    return found if same and all(getattr(found, key) == value for key, value in label.columns().items()) else None


def hold_room(uow: UnitOfWork, owner: Owner, size_bytes: int, settings: Settings) -> None:
    """Let a file of this size in, or raise QuotaExceeded. Until the unit ends, nobody else is let in in this project."""
    if size_bytes > settings.artifact_bytes:
        size, most = format_bytes(size_bytes), format_bytes(settings.artifact_bytes)
        raise QuotaExceeded(
            f"a file of {size} is larger than an artifact may be ({most}): cut it, or keep it elsewhere"
        )
    wait_lock(uow, f"artifacts/{owner.project_id}")
    held = _sum(uow, Artifact, owner.project_id) + _sum(uow, Upload, owner.project_id)
    if held + size_bytes > settings.project_artifact_bytes:
        raise QuotaExceeded(
            f"there is no room for {format_bytes(size_bytes)} more of artifacts in this project, which keeps "
            f"{format_bytes(held)} of {format_bytes(settings.project_artifact_bytes)}: `trellis artifacts rm` makes room"
        )
    counts = [select(func.count()).where(kind.job_id == owner.job_id) for kind in (Artifact, Upload)]
    if sum(uow.execute(count).scalar_one() for count in counts) >= A_JOB:
        raise QuotaExceeded(f"this job keeps {A_JOB} artifacts already: remove some, or pack many small files into one")


def _sum(uow: UnitOfWork, kind: type[Artifact | Upload], project_id: UUID) -> int:
    size = func.coalesce(func.sum(kind.size_bytes), 0)
    return int(uow.execute(select(size).where(kind.project_id == project_id)).scalar_one())


def keep(
    uow: UnitOfWork, owner: Owner, label: Label, content: Content, key: str, identity: UUID | None = None
) -> Artifact:
    """Write down a file that the store holds; one that had the name before gives way to it."""
    wait_lock(uow, f"artifacts/{owner.project_id}")
    if (before := _named(uow, owner, label.name)) is not None:
        _drop(uow, before)
    artifact = Artifact(
        id=identity or new_id(), project_id=owner.project_id, job_id=owner.job_id, replica_id=owner.replica_id,
        saved_by=uow.actor.name, digest=content.digest, size_bytes=content.size_bytes, key=key, **label.columns(),
        created_at=uow.clock.now(),
    )  # fmt: skip
    uow.session.add(artifact)
    uow.session.flush()
    uow.emit("artifact.saved", artifact, name=artifact.name, size_bytes=artifact.size_bytes)
    return artifact


def remove(uow: UnitOfWork, job_id: UUID, artifact_id: UUID) -> None:
    """Forget an artifact; its bytes leave the store soon after. Raises NotFound, Forbidden for a mere viewer."""
    artifact = get(uow, job_id, artifact_id, lock=True)
    uow.require(Permission.JOB_WRITE, artifact.project_id)
    _drop(uow, artifact)
    uow.emit("artifact.removed", artifact, name=artifact.name, size_bytes=artifact.size_bytes)


def get(uow: UnitOfWork, job_id: UUID, artifact_id: UUID, *, lock: bool = False) -> Artifact:
    """The artifact of that job. Raises NotFound."""
    artifact = uow.get(Artifact, artifact_id, lock=lock)
    if artifact.job_id != job_id:
        raise NotFound(f"there is no artifact {artifact_id}")
    return artifact


def list_artifacts(uow: UnitOfWork, job_id: UUID, wanted: Mapping[str, str], request: PageRequest) -> Page[Artifact]:
    """Those of a job; `under` keeps a folder (or the one name), `type` a kind, `name` a part of the name."""
    statement = uow.visible(Artifact).where(Artifact.job_id == job_id)
    if under := wanted.get("under", "").rstrip("/"):
        statement = statement.where((Artifact.name == under) | Artifact.name.startswith(f"{under}/", autoescape=True))
    if kind := wanted.get("type"):
        statement = statement.where(Artifact.kind == kind)
    if name := wanted.get("name"):
        statement = statement.where(Artifact.name.contains(name, autoescape=True))
    return page(uow, statement, Artifact, request)


def parts_of(uow: UnitOfWork, file_id: UUID) -> Sequence[Part]:
    """The parts of an upload or an artifact, in order; none where it is in one piece."""
    return uow.session.execute(select(Part).where(Part.file_id == file_id).order_by(Part.offset)).scalars().all()


def discard(uow: UnitOfWork, keys: Iterable[str]) -> None:
    """Have the store forget these keys some time after this unit."""
    rows = [{"key": key, "at": uow.clock.now()} for key in keys]
    if rows:
        uow.session.execute(insert(Discard).on_conflict_do_nothing(), rows)


def _named(uow: UnitOfWork, owner: Owner, name: str) -> Artifact | None:
    statement = select(Artifact).where(Artifact.job_id == owner.job_id, Artifact.name == name)
    statement = statement.where(Artifact.replica_id.is_not_distinct_from(owner.replica_id))
    return uow.session.execute(statement).scalar_one_or_none()


def _drop(uow: UnitOfWork, artifact: Artifact) -> None:
    parts = parts_of(uow, artifact.id)
    discard(uow, {artifact.key, *(part.key for part in parts)})
    for part in parts:
        uow.session.delete(part)
    uow.session.delete(artifact)
    uow.session.flush()


@contextmanager
def as_answers() -> Iterator[None]:
    """What goes wrong in the store, in words for whoever sends. Raises StoreFull, Unavailable."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull(
                f"the store has no room ({error.strerror}): what was taken in before is safe; its operator must make "
                "room, then the upload can go on where it stopped"
            ) from error
        raise Unavailable(f"the store can't take it now: {error.strerror or type(error).__name__}") from error


def write(store: Store, key: str, parts: Iterable[bytes]) -> Written:
    """Store bytes, all or nothing. Raises StoreFull, Unavailable."""
    with as_answers():
        return store.write(key, parts)


def pieces(store: Store, parts: Sequence[tuple[str, int]], start: int, end: int) -> Iterator[bytes]:
    """Bytes `start` to `end` of what lies under these keys, one behind the other, each of so many bytes."""
    offset = 0
    for key, size in parts:
        at, until = max(start - offset, 0), min(end - offset, size)
        while at < until:
            piece = store.read_range(key, at, min(_PIECE_BYTES, until - at))
            if not piece:
                raise OSError(f"{key} is shorter than it was")  # breaks the answer off: no reader takes it for whole
            yield piece
            at += len(piece)
        offset += size


def opened(artifact: Artifact, parts: Sequence[Part]) -> list[tuple[str, int]]:
    """Where an artifact's bytes lie, as `pieces` wants it."""
    return [(part.key, part.size_bytes) for part in parts] or [(artifact.key, artifact.size_bytes)]


Reader = Callable[[int], bytes]


def incoming(read: Reader, most: int) -> Iterator[bytes]:
    """The first `most` bytes of a request's body, piece by piece. One that breaks off ends: what came until then counts."""
    while most and (piece := read(min(most, _PIECE_BYTES))):
        yield piece
        most -= len(piece)
