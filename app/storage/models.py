"""What was saved, and whose it is."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ColumnElement, ForeignKey, Index, String, UniqueConstraint, select, text, true
from sqlalchemy.orm import Mapped, mapped_column

from app.core.access import Actor, Permission
from app.core.tables import Base, ProjectOwned, Word
from trellis.vocabulary import SaveReason


class Artifact(ProjectOwned):
    """A file that a job saved, or that somebody put beside its results (`replica_id` is null then).

    `key` is where the store holds it, the first part of it where there are several (`Part`): made by the server, never
    from a name. A row never changes: another content under the same name is another artifact, in the place of this one.
    `kind` and `details` are its owner's words.
    """

    __tablename__ = "artifacts"
    __table_args__ = (
        UniqueConstraint("replica_id", "name"),
        Index("ix_artifacts_key", "key"),
        Index("uq_artifacts_put", "job_id", "name", unique=True, postgresql_where=text("replica_id IS NULL")),
        CheckConstraint("size_bytes >= 0", name="size"),
    )
    read = Permission.JOB_READ

    job_id: Mapped[UUID] = mapped_column(index=True)
    replica_id: Mapped[UUID | None]
    name: Mapped[str] = mapped_column(String(255))
    kind: Mapped[str] = mapped_column(String(40), server_default="file")
    media_type: Mapped[str] = mapped_column(String(100), server_default="application/octet-stream")
    details: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'::jsonb"))
    saved_by: Mapped[str] = mapped_column(String(200), server_default="")
    size_bytes: Mapped[int]
    digest: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(255))


class Upload(ProjectOwned):
    """A file on its way to becoming an artifact: `received_bytes` of it are safe in the store. Only who began goes on."""

    __tablename__ = "uploads"
    __table_args__ = (
        CheckConstraint("received_bytes BETWEEN 0 AND size_bytes", name="received"),
        Index("ix_uploads_touched_at", "touched_at"),
    )
    read = Permission.JOB_READ

    job_id: Mapped[UUID] = mapped_column(index=True)
    actor_id: Mapped[UUID | None]
    name: Mapped[str] = mapped_column(String(255))
    kind: Mapped[str] = mapped_column(String(40))
    media_type: Mapped[str] = mapped_column(String(100))
    details: Mapped[dict[str, Any]]
    size_bytes: Mapped[int]
    digest: Mapped[str] = mapped_column(String(64))
    received_bytes: Mapped[int] = mapped_column(default=0)
    touched_at: Mapped[datetime]


class Part(Base):
    """Bytes of an upload, or of the artifact that it became, from `offset` on; they bear the same id."""

    __tablename__ = "artifact_parts"

    file_id: Mapped[UUID] = mapped_column(primary_key=True)
    offset: Mapped[int] = mapped_column(primary_key=True)
    size_bytes: Mapped[int]
    key: Mapped[str] = mapped_column(String(255), unique=True)


class Discard(Base):
    """A key of the store that no row names any more; deleted once whoever reads it has had time to end."""

    __tablename__ = "discards"
    __table_args__ = (Index("ix_discards_at", "at"),)

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    at: Mapped[datetime]


class Blob(ProjectOwned):
    """One content that bundles of a project hold, kept once a project: nobody learns by a digest what others have.

    `key` is where the store holds it. Once `dropped_at` is set it is no longer given out, and its bytes may be gone.
    """

    __tablename__ = "blobs"
    __table_args__ = (
        Index("uq_blobs_live", "project_id", "digest", unique=True, postgresql_where=text("dropped_at IS NULL")),
        Index("ix_blobs_dropped", "id", postgresql_where=text("dropped_at IS NOT NULL")),
        CheckConstraint("size_bytes >= 0", name="size"),
    )
    read = Permission.JOB_READ

    digest: Mapped[str] = mapped_column(String(64))
    size_bytes: Mapped[int]
    key: Mapped[str] = mapped_column(String(255))
    dropped_at: Mapped[datetime | None]


class Bundle(ProjectOwned):
    """A directory of code as it was sent: `digest` is its manifest's, which is kept as packed JSON.

    `used_at` is when a job last asked for it, give or take an hour; `files` counts links too.
    """

    __tablename__ = "bundles"
    __table_args__ = (
        UniqueConstraint("project_id", "digest"),
        Index("ix_bundles_used", "used_at"),
        CheckConstraint("size_bytes >= 0", name="size"),
    )
    read = Permission.JOB_READ

    digest: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(200))
    size_bytes: Mapped[int]
    files: Mapped[int]
    manifest: Mapped[bytes] = mapped_column(deferred=True)
    actor_name: Mapped[str] = mapped_column(String(200))
    used_at: Mapped[datetime]


class BundleBlob(Base):
    """The bundle holds this content."""

    __tablename__ = "bundle_blobs"
    __table_args__ = (Index("ix_bundle_blobs_blob_id", "blob_id"),)

    bundle_id: Mapped[UUID] = mapped_column(ForeignKey("bundles.id", ondelete="CASCADE"), primary_key=True)
    blob_id: Mapped[UUID] = mapped_column(ForeignKey("blobs.id"), primary_key=True)


class Checkpoint(ProjectOwned):
    """What one replica of a job can go on from. `key` is where the store holds its signed manifest.

    `new_bytes` is what earlier ones did not hold, `stored_bytes` what that took in the store. `at_step` is
    whatever the program counts. One that was imported is of no job here, has a `CheckpointOrigin`, and nothing of it
    is in this cluster's store. Until `exported_until` another cluster may read it, and retention leaves it alone.
    """

    __tablename__ = "checkpoints"
    __table_args__ = (
        CheckConstraint("size_bytes >= 0 AND new_bytes >= 0 AND stored_bytes >= 0", name="size"),
        Index("ix_checkpoints_job", "job_id", "replica_index", "created_at"),
    )
    read = Permission.JOB_READ

    job_id: Mapped[UUID | None]
    replica_index: Mapped[int]
    attempt: Mapped[int]
    fence: Mapped[int]
    reason: Mapped[SaveReason] = mapped_column(Word(SaveReason))
    at_step: Mapped[int | None]
    metrics: Mapped[dict[str, Any]]
    files: Mapped[int]
    size_bytes: Mapped[int]
    new_bytes: Mapped[int]
    stored_bytes: Mapped[int]
    parts: Mapped[int] = mapped_column(default=1, server_default="1")
    key: Mapped[str] = mapped_column(String(255), unique=True)
    damaged_at: Mapped[datetime | None]
    exported_until: Mapped[datetime | None]

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """To its project's members, and to those of projects that it is shared with."""
        if actor.sees_all:
            return true()
        mine = actor.projects_with(cls.read)
        shared = select(CheckpointGrant.checkpoint_id).where(CheckpointGrant.project_id.in_(mine))
        return cls.project_id.in_(mine) | cls.id.in_(shared)


class Pack(Base):
    """An object of the store that holds chunks. One that no checkpoint refers to is doomed, and some time later deleted."""

    __tablename__ = "packs"
    __table_args__ = (Index("ix_packs_doomed_at", "doomed_at", postgresql_where=text("doomed_at IS NOT NULL")),)

    key: Mapped[str] = mapped_column(String(255), primary_key=True)
    project_id: Mapped[UUID] = mapped_column(index=True)
    size_bytes: Mapped[int]
    created_at: Mapped[datetime]
    doomed_at: Mapped[datetime | None]


class CheckpointPack(Base):
    """That a checkpoint needs a pack."""

    __tablename__ = "checkpoint_packs"
    __table_args__ = (Index("ix_checkpoint_packs_pack_key", "pack_key"),)

    checkpoint_id: Mapped[UUID] = mapped_column(ForeignKey("checkpoints.id", ondelete="CASCADE"), primary_key=True)
    pack_key: Mapped[str] = mapped_column(ForeignKey("packs.key"), primary_key=True)


class CheckpointGrant(Base):
    """That another project may read and go on from a checkpoint, until the grant is taken back."""

    __tablename__ = "checkpoint_grants"

    checkpoint_id: Mapped[UUID] = mapped_column(ForeignKey("checkpoints.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[UUID] = mapped_column(primary_key=True, index=True)
    created_at: Mapped[datetime]


class CheckpointOrigin(Base):
    """Of a checkpoint that was imported: the manifest's key in the store of the cluster with that public key (hex).

    It may be read until `until`.
    """

    __tablename__ = "checkpoint_origins"
    __table_args__ = (UniqueConstraint("project_id", "public_key", "key"),)

    checkpoint_id: Mapped[UUID] = mapped_column(ForeignKey("checkpoints.id", ondelete="CASCADE"), primary_key=True)
    project_id: Mapped[UUID]
    public_key: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(512))
    until: Mapped[datetime]
