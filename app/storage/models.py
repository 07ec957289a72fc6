"""What was saved, and whose it is."""

from uuid import UUID

from sqlalchemy import CheckConstraint, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.core.access import Permission
from app.core.tables import ProjectOwned


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
