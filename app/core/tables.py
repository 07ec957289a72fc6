"""What every table is made of."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar
from uuid import UUID

from sqlalchemy import BigInteger, ColumnElement, DateTime, MetaData, String, func, true
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from app.core.access import Actor, Permission
from app.core.ids import new_id


class Word(TypeDecorator[StrEnum]):
    """A word of the vocabulary, stored as text: a new word needs no change of the schema."""

    impl = String(40)
    cache_ok = True

    def __init__(self, kind: type[StrEnum]) -> None:
        super().__init__()
        self.kind = kind

    def process_bind_param(self, value: StrEnum | None, dialect: Any) -> str | None:
        """Only words of the vocabulary get in."""
        return None if value is None else str(self.kind(value))

    def process_result_value(self, value: str | None, dialect: Any) -> StrEnum | None:
        """Text out of the database is the word again."""
        return None if value is None else self.kind(value)


class Base(DeclarativeBase):
    """Root of all tables; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(column_0_N_label)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar[dict[Any, Any]] = {
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB,
        list[Any]: JSONB,
        int: BigInteger,
    }


class Entity(Base):
    """A row with an identity: an id made before flush, a version that grows with every change, a birthday.

    `read` is the permission it takes to see one; machines see none of them unless `seen_by_nodes`. `told` are columns
    that every event about a row says, where they are set.
    """

    __abstract__ = True
    read: ClassVar[Permission]
    seen_by_nodes: ClassVar[bool] = False
    told: ClassVar[tuple[str, ...]] = ()

    id: Mapped[UUID] = mapped_column(primary_key=True, default=new_id)
    version: Mapped[int] = mapped_column(default=1)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """Which rows this actor may see; deny by default."""
        raise NotImplementedError(f"{cls.__name__} says nobody may see it")


class ProjectOwned(Entity):
    """A row that belongs to a project and is seen by its members."""

    __abstract__ = True

    project_id: Mapped[UUID] = mapped_column(index=True)

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """Those of the projects in which the actor holds the read permission."""
        if actor.sees_all:
            return true()
        return cls.project_id.in_(actor.projects_with(cls.read))
