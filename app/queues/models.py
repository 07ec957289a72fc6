"""Where jobs wait."""

from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ColumnElement, ForeignKey, Index, String, text, true
from sqlalchemy.orm import Mapped, mapped_column

from app.core.access import Actor, Permission
from app.core.tables import Entity, Word
from trellis.vocabulary import QueueState


class Queue(Entity):
    """A named queue: of one project, or shared by all where `project_id` is null.

    What its jobs hold is charged to its pool and stays within `most` (amounts that are left out: no limit) and
    `most_running` jobs. Policies are names of the scheduler's; empty: the platform's own.
    """

    __tablename__ = "queues"
    __table_args__ = (
        Index("uq_queues_shared", "name", unique=True, postgresql_where=text("project_id IS NULL")),
        Index("uq_queues_project", "project_id", "name", unique=True, postgresql_where=text("project_id IS NOT NULL")),
        CheckConstraint("weight BETWEEN 1 AND 1000", name="weight"),
        CheckConstraint("most_running >= 0", name="most_running"),
    )
    read = Permission.QUEUE_READ

    name: Mapped[str] = mapped_column(String(63))
    project_id: Mapped[UUID | None]
    state: Mapped[QueueState] = mapped_column(Word(QueueState), default=QueueState.OPEN)
    weight: Mapped[int] = mapped_column(default=1)
    policy: Mapped[str] = mapped_column(String(40), default="")
    second_policy: Mapped[str] = mapped_column(String(40), default="")
    pool_id: Mapped[UUID | None] = mapped_column(ForeignKey("pools.id"), index=True)
    most: Mapped[dict[str, Any]] = mapped_column(default=dict)
    most_running: Mapped[int | None]

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """The shared ones, and those of the actor's projects."""
        if actor.sees_all:
            return true()
        return cls.project_id.is_(None) | cls.project_id.in_(actor.projects_with(cls.read))
