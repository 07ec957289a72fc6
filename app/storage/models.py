"""What was saved, and whose it is."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from app.core.access import Permission
from app.core.tables import Base, ProjectOwned


class Artifact(ProjectOwned):
    """A file that a job asked to keep. `key` is where the store holds it: made by the server, never from a name."""

    __tablename__ = "artifacts"
    __table_args__ = (
        UniqueConstraint("replica_id", "name"),
        CheckConstraint("size_bytes >= 0", name="size"),
    )
    read = Permission.JOB_READ

    job_id: Mapped[UUID] = mapped_column(index=True)
    replica_id: Mapped[UUID]
    name: Mapped[str] = mapped_column(String(255))
    size_bytes: Mapped[int]
    digest: Mapped[str] = mapped_column(String(64))
    key: Mapped[str] = mapped_column(String(255))


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
