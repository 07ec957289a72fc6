"""Where jobs wait."""

from uuid import UUID

from sqlalchemy import CheckConstraint, ColumnElement, Index, String, text, true
from sqlalchemy.orm import Mapped, mapped_column

from app.core.access import Actor, Permission
from app.core.tables import Entity, Word
from trellis.vocabulary import QueueState


class Queue(Entity):
    """A named queue: of one project, or shared by all where `project_id` is null."""

    __tablename__ = "queues"
    __table_args__ = (
        Index("uq_queues_shared", "name", unique=True, postgresql_where=text("project_id IS NULL")),
        Index("uq_queues_project", "project_id", "name", unique=True, postgresql_where=text("project_id IS NOT NULL")),
        CheckConstraint("weight BETWEEN 1 AND 1000", name="weight"),
    )
    read = Permission.QUEUE_READ

    name: Mapped[str] = mapped_column(String(63))
    project_id: Mapped[UUID | None]
    state: Mapped[QueueState] = mapped_column(Word(QueueState), default=QueueState.OPEN)
    weight: Mapped[int] = mapped_column(default=1)
    policy: Mapped[str] = mapped_column(String(40), default="")

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """The shared ones, and those of the actor's projects."""
        if actor.sees_all:
            return true()
        return cls.project_id.is_(None) | cls.project_id.in_(actor.projects_with(cls.read))
