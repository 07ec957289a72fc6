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


class Checkpoint(ProjectOwned):
    """What one replica of a job can go on from. `key` is where the store holds its signed manifest.

    `new_bytes` is what earlier ones did not hold, `stored_bytes` what that took in the store. `at_step` is
    whatever the program counts.
    """

    __tablename__ = "checkpoints"
    __table_args__ = (
        CheckConstraint("size_bytes >= 0 AND new_bytes >= 0 AND stored_bytes >= 0", name="size"),
        Index("ix_checkpoints_job", "job_id", "replica_index", "created_at"),
    )
    read = Permission.JOB_READ

    job_id: Mapped[UUID]
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
    key: Mapped[str] = mapped_column(String(255), unique=True)
    damaged_at: Mapped[datetime | None]

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
