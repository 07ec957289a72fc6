"""When the scheduler last looked, and how it is told to decide."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ColumnElement, String, false, true
from sqlalchemy.orm import Mapped, mapped_column

from app.core.access import Actor, Permission
from app.core.tables import Base, Entity


class Cycle(Base):
    """The one row that says up to which event the last cycle has looked."""

    __tablename__ = "cycles"

    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int]
    at: Mapped[datetime]


class PastUse(Base):
    """How much of the cluster an account used, faded, as a fraction over the window; as of `at`."""

    __tablename__ = "past_uses"

    account_id: Mapped[str] = mapped_column(String(80), primary_key=True)
    used: Mapped[float]
    at: Mapped[datetime]


class PolicyVersion(Entity):
    """One version of the scheduling policy; the highest `number` is in force, none is ever changed."""

    __tablename__ = "policies"
    __table_args__ = (CheckConstraint("number > 0", name="number"),)
    read = Permission.POLICY_READ

    number: Mapped[int] = mapped_column(unique=True)
    body: Mapped[dict[str, Any]]
    actor_name: Mapped[str] = mapped_column(String(200))

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """Everybody who is signed in may know how jobs are ranked."""
        return true() if actor.sees_all or actor.is_person else false()
