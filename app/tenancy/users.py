"""People: made and changed by platform administrators alone."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import select

from app.core.access import Permission
from app.core.crypto import hash_password
from app.core.paging import Page, PageRequest, page
from app.core.uow import UnitOfWork
from app.tenancy.models import User
from app.tenancy.sessions import end_sessions, set_password
from trellis.errors import AlreadyExists, Conflict

SHORTEST_PASSWORD, LONGEST_PASSWORD = 12, 200


@dataclass(frozen=True, slots=True)
class UserSpec:
    """A new person."""

    username: str
    password: str
    platform_admin: bool = False


@dataclass(frozen=True, slots=True)
class UserChange:
    """What shall change; None leaves it."""

    password: str | None = None
    platform_admin: bool | None = None
    disabled: bool | None = None


def create_user(uow: UnitOfWork, spec: UserSpec) -> User:
    """Make a person. Raises AlreadyExists for a name in use."""
    uow.require(Permission.USER_WRITE)
    if uow.session.execute(select(User.id).where(User.username == spec.username)).first():
        raise AlreadyExists(f"there is a user {spec.username} already")
    user = User(username=spec.username, password_hash=hash_password(spec.password), platform_admin=spec.platform_admin)
    uow.session.add(user)
    uow.session.flush()
    uow.emit("user.created", user, username=user.username, platform_admin=user.platform_admin)
    return user


def list_users(uow: UnitOfWork, request: PageRequest) -> Page[User]:
    """Everybody, to platform administrators."""
    uow.require(Permission.USER_WRITE)
    return page(uow, uow.visible(User), User, request)


def change_user(uow: UnitOfWork, user_id: UUID, change: UserChange, version: int | None) -> User:
    """Change a person. A new password, and being disabled, ends every session of theirs.

    Raises: Conflict where nobody would be left to administer the platform; StaleVersion.
    """
    uow.require(Permission.USER_WRITE)
    demoted = change.platform_admin is False or change.disabled is True
    if demoted:
        _keep_an_admin(uow, user_id)
    user = uow.get(User, user_id, lock=True)
    uow.expect_version(user, version)
    before = {"platform_admin": user.platform_admin, "disabled": user.disabled_at is not None}
    if change.platform_admin is not None:
        user.platform_admin = change.platform_admin
    if change.disabled is not None:
        user.disabled_at = (user.disabled_at or uow.clock.now()) if change.disabled else None
    user.version += 1
    if change.password is not None:
        set_password(uow, user, change.password)
    elif demoted:
        end_sessions(uow, user)
    after = {"platform_admin": user.platform_admin, "disabled": user.disabled_at is not None}
    uow.emit("user.changed", user, before=before, after=after, password=change.password is not None)
    return user


def _keep_an_admin(uow: UnitOfWork, leaving: UUID) -> None:
    # All of them are locked, by id: two who would each dismiss the other must not both succeed.
    admins = select(User.id).where(User.platform_admin, User.disabled_at.is_(None)).order_by(User.id)
    ids = uow.session.execute(admins.with_for_update(key_share=True)).scalars().all()
    if list(ids) == [leaving]:
        raise Conflict("this is the last platform administrator: name another one first")
