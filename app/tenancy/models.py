"""Tables of organisations, projects, people and their credentials."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ColumnElement, ForeignKey, Index, String, UniqueConstraint, select, text, true
from sqlalchemy.orm import Mapped, mapped_column

from app.core.access import Actor, Permission
from app.core.tables import Entity, ProjectOwned, Word
from trellis.vocabulary import Role


class Organisation(Entity):
    """The roof over projects."""

    __tablename__ = "organisations"
    read = Permission.PROJECT_READ

    name: Mapped[str] = mapped_column(String(63), unique=True)

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """Those that hold a project of the actor's."""
        if actor.sees_all:
            return true()
        mine = select(Project.organisation_id).where(Project.id.in_(actor.projects_with(cls.read)))
        return cls.id.in_(mine)


class Project(Entity):
    """What jobs, artifacts and rights belong to. `hang_after_s` is that of jobs which say nothing of it."""

    __tablename__ = "projects"
    __table_args__ = (UniqueConstraint("organisation_id", "name"),)
    read = Permission.PROJECT_READ

    organisation_id: Mapped[UUID] = mapped_column(ForeignKey("organisations.id"))
    name: Mapped[str] = mapped_column(String(63))
    hang_after_s: Mapped[int | None]

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """Those the actor is a member of."""
        return true() if actor.sees_all else cls.id.in_(actor.projects_with(cls.read))


class Quota(Entity):
    """How much an organisation, a project, or an actor in a project may have.

    Amounts are what is held at once, `jobs` those that have not ended; amounts that are left out: no limit. `burst`
    comes on top of `hard` for `burst_s` seconds, at most once in `burst_every_s`, and began last at `burst_began_at`.
    """

    __tablename__ = "quotas"
    __table_args__ = (
        CheckConstraint("(organisation_id IS NULL) <> (project_id IS NULL)", name="one_subject"),
        CheckConstraint("actor_id IS NULL OR project_id IS NOT NULL", name="actor_in_project"),
        CheckConstraint("hard_jobs >= 0 AND soft_jobs >= 0", name="jobs"),
        CheckConstraint("burst_s BETWEEN 0 AND burst_every_s", name="burst"),
        Index("uq_quotas_organisation", "organisation_id", unique=True, postgresql_where=text("project_id IS NULL")),
        Index("uq_quotas_project", "project_id", unique=True, postgresql_where=text("actor_id IS NULL")),
        Index("uq_quotas_actor", "project_id", "actor_id", unique=True),
    )
    read = Permission.QUOTA_READ

    organisation_id: Mapped[UUID | None] = mapped_column(ForeignKey("organisations.id"))
    project_id: Mapped[UUID | None] = mapped_column(ForeignKey("projects.id"))
    actor_id: Mapped[UUID | None]
    hard: Mapped[dict[str, Any]] = mapped_column(default=dict)
    hard_jobs: Mapped[int | None]
    soft: Mapped[dict[str, Any]] = mapped_column(default=dict)
    soft_jobs: Mapped[int | None]
    burst: Mapped[dict[str, Any]] = mapped_column(default=dict)
    burst_s: Mapped[int] = mapped_column(default=0)
    burst_every_s: Mapped[int] = mapped_column(default=0)
    burst_began_at: Mapped[datetime | None]
    soft_exceeded_at: Mapped[datetime | None]

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """Those of the actor's projects, and of the organisations that these are in."""
        if actor.sees_all:
            return true()
        mine = actor.projects_with(cls.read)
        above = select(Project.organisation_id).where(Project.id.in_(mine))
        return cls.project_id.in_(mine) | cls.organisation_id.in_(above)


class User(Entity):
    """A person who signs in. `token_version` is part of every token: raising it ends all sessions at once."""

    __tablename__ = "users"
    read = Permission.USER_WRITE

    username: Mapped[str] = mapped_column(String(63), unique=True)
    password_hash: Mapped[str]
    platform_admin: Mapped[bool] = mapped_column(default=False)
    token_version: Mapped[int] = mapped_column(default=1)
    disabled_at: Mapped[datetime | None]

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """Oneself, and everybody to platform administrators."""
        return true() if actor.sees_all else cls.id == actor.id


class Membership(Entity):
    """A user's role in a project."""

    __tablename__ = "memberships"
    __table_args__ = (UniqueConstraint("project_id", "user_id"), Index("ix_memberships_user_id", "user_id"))
    read = Permission.PROJECT_READ

    project_id: Mapped[UUID] = mapped_column(ForeignKey("projects.id"))
    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"))
    role: Mapped[Role] = mapped_column(Word(Role))

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """Those of the actor's projects."""
        return true() if actor.sees_all else cls.project_id.in_(actor.projects_with(cls.read))


class ServiceAccount(ProjectOwned):
    """A program with a role in one project."""

    __tablename__ = "service_accounts"
    __table_args__ = (
        # Of those that live: a name is free again once its account is removed.
        Index(
            "uq_service_accounts_name", "project_id", "name", unique=True, postgresql_where=text("removed_at IS NULL")
        ),
    )
    read = Permission.PROJECT_READ

    name: Mapped[str] = mapped_column(String(63))
    role: Mapped[Role] = mapped_column(Word(Role))
    removed_at: Mapped[datetime | None]


class ApiKey(Entity):
    """A credential of one user or one service account; only its keyed digest is kept."""

    __tablename__ = "api_keys"
    __table_args__ = (CheckConstraint("(user_id IS NULL) <> (service_account_id IS NULL)", name="one_owner"),)
    read = Permission.OWN_KEYS

    name: Mapped[str] = mapped_column(String(63))
    prefix: Mapped[str] = mapped_column(String(16))
    digest: Mapped[bytes] = mapped_column(unique=True)
    user_id: Mapped[UUID | None] = mapped_column(ForeignKey("users.id"), index=True)
    service_account_id: Mapped[UUID | None] = mapped_column(ForeignKey("service_accounts.id"), index=True)
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """One's own; those of service accounts to whoever administers their project."""
        if actor.sees_all:
            return true()
        administered = actor.projects_with(Permission.MEMBER_WRITE)
        accounts = select(ServiceAccount.id).where(ServiceAccount.project_id.in_(administered))
        own = (cls.user_id == actor.id) | (cls.service_account_id == actor.id)
        return own | cls.service_account_id.in_(accounts)


class FeatureSwitch(Entity):
    """What was said of a feature (`trellis.features`): for one project, or, where that is null, for the platform."""

    __tablename__ = "features"
    __table_args__ = (UniqueConstraint("name", "project_id", postgresql_nulls_not_distinct=True),)
    read = Permission.PROJECT_READ

    name: Mapped[str] = mapped_column(String(63))
    project_id: Mapped[UUID | None] = mapped_column(ForeignKey("projects.id"))
    enabled: Mapped[bool]

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """The platform's to everybody, a project's to its members."""
        return (
            true() if actor.sees_all else cls.project_id.is_(None) | cls.project_id.in_(actor.projects_with(cls.read))
        )


class RefreshToken(Entity):
    """One link of a chain of sign-in tokens: each is used once, and using an old one again ends the chain."""

    __tablename__ = "refresh_tokens"
    read = Permission.OWN_KEYS

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id"), index=True)
    chain_id: Mapped[UUID] = mapped_column(index=True)
    digest: Mapped[bytes] = mapped_column(unique=True)
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]

    @classmethod
    def visible_to(cls, actor: Actor) -> ColumnElement[bool]:
        """One's own."""
        return true() if actor.sees_all else cls.user_id == actor.id
