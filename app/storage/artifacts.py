"""Files that jobs asked to keep."""

from collections.abc import Iterable
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select

from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.storage.models import Artifact
from trellis.errors import Field, Invalid
from trellis.stores.base import Store


@dataclass(frozen=True, slots=True)
class Upload:
    """A file on its way: whose it is, what it is called, and the digest its sender computed (SHA-256, hex)."""

    project_id: UUID
    job_id: UUID
    replica_id: UUID
    name: str
    digest: str


def save(uow: UnitOfWork, store: Store, upload: Upload, parts: Iterable[bytes]) -> Artifact:
    """Store a file and its row. The same file sent twice is kept once; a new one of that name takes its place.

    Raises: Invalid where the bytes do not have the digest that was announced.
    """
    known = select(Artifact).where(Artifact.replica_id == upload.replica_id, Artifact.name == upload.name)
    artifact = uow.session.execute(known).scalar_one_or_none()
    if artifact is not None and artifact.digest == upload.digest:
        return artifact
    identity = new_id()
    key = f"artifacts/{upload.project_id}/{upload.job_id}/{identity}"
    written = store.write(key, parts)
    if written.digest != upload.digest:
        store.delete(key)
        raise Invalid(Field("/digest", f"the bytes that arrived have SHA-256 {written.digest}: send them again"))
    if artifact is None:
        artifact = Artifact(
            id=identity, project_id=upload.project_id, job_id=upload.job_id,
            replica_id=upload.replica_id, name=upload.name,
        )  # fmt: skip
        uow.session.add(artifact)
    artifact.size_bytes, artifact.digest, artifact.key = written.size_bytes, written.digest, key
    artifact.created_at = uow.clock.now()
    uow.session.flush()
    uow.emit("artifact.saved", artifact, name=artifact.name, size_bytes=artifact.size_bytes)
    return artifact


def list_artifacts(uow: UnitOfWork, job_id: UUID) -> list[Artifact]:
    """What a job kept, by name."""
    statement = uow.visible(Artifact).where(Artifact.job_id == job_id).order_by(Artifact.name, Artifact.id).limit(1000)
    return list(uow.session.execute(statement).scalars())
