"""Who a credential stands for: one statement that brings the account, its roles and the time.

This runs on every request, so it is one round trip; what no longer holds (disabled, removed, revoked, expired)
is left out by the statement itself.
"""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Row, Select, Uuid, bindparam, func, or_, select

from app.core.access import Actor
from app.core.crypto import Keyring
from app.core.uow import UnitOfWork
from app.http.auth import Authenticator
from app.tenancy.models import ApiKey, Membership, ServiceAccount, User
from trellis.errors import Unauthenticated
from trellis.vocabulary import ActorKind, Role

API_KEY_PREFIX = "trk"
API_KEY_PURPOSE = "api-key"

_ROLES = (
    select(func.jsonb_object_agg(Membership.project_id, Membership.role))
    .where(Membership.user_id == User.id)
    .correlate(User)
    .scalar_subquery()
    .label("roles")
)
_USER = (User.id, User.username, User.platform_admin, User.token_version, _ROLES, func.now().label("now"))
_BY_ID: Select[Any] = select(*_USER).where(User.id == bindparam("id", type_=Uuid()), User.disabled_at.is_(None))
_ACCOUNT = (
    ServiceAccount.id.label("account_id"),
    ServiceAccount.name.label("account_name"),
    ServiceAccount.project_id.label("account_project_id"),
    ServiceAccount.role.label("account_role"),
)
_BY_KEY: Select[Any] = (
    select(*_USER, *_ACCOUNT)
    .select_from(ApiKey)
    .outerjoin(User, User.id == ApiKey.user_id)
    .outerjoin(ServiceAccount, ServiceAccount.id == ApiKey.service_account_id)
    .where(
        ApiKey.digest == bindparam("digest"),
        ApiKey.revoked_at.is_(None),
        or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.now()),
        User.disabled_at.is_(None),
        ServiceAccount.removed_at.is_(None),
    )
)


def of_user(uow: UnitOfWork, user_id: UUID) -> Actor:
    """The user as an actor. Raises Unauthenticated where there is none or it is disabled."""
    actor, _, _ = of_session(uow, user_id)
    return actor


def of_session(uow: UnitOfWork, user_id: UUID) -> tuple[Actor, int, datetime]:
    """The user as an actor, their token version, and the database's time. Raises Unauthenticated."""
    row = uow.execute(_BY_ID, {"id": user_id}).one_or_none()
    if row is None:
        raise Unauthenticated
    uow.clock.set(row.now)
    return _user(row), row.token_version, row.now


def by_api_key(keyring: Keyring) -> Authenticator:
    """How an API key becomes an actor: found by its keyed digest, so that a timing says nothing of a near miss."""

    def authenticate(uow: UnitOfWork, credential: str) -> Actor:
        digest = keyring.digest(API_KEY_PURPOSE, credential)
        row = uow.execute(_BY_KEY, {"digest": digest}).one_or_none()
        if row is None:
            raise Unauthenticated
        uow.clock.set(row.now)
        if row.account_id is None:
            return _user(row)
        roles = {row.account_project_id: row.account_role}
        return Actor(ActorKind.SERVICE_ACCOUNT, row.account_id, row.account_name, roles=roles)

    return authenticate


def _user(row: Row[Any]) -> Actor:
    roles = {UUID(project): Role(role) for project, role in (row.roles or {}).items()}
    return Actor(ActorKind.USER, row.id, row.username, row.platform_admin, roles)


def of_owner(uow: UnitOfWork, kind: ActorKind, owner_id: UUID | None) -> Actor:
    """Whoever began something that goes on by itself, with the roles they hold now. Raises Unauthenticated."""
    if owner_id is None:
        raise Unauthenticated
    if kind is ActorKind.USER:
        return of_user(uow, owner_id)
    wanted = select(*_ACCOUNT).where(ServiceAccount.id == owner_id, ServiceAccount.removed_at.is_(None))
    row = uow.execute(wanted).one_or_none()
    if row is None:
        raise Unauthenticated
    roles = {row.account_project_id: row.account_role}
    return Actor(ActorKind.SERVICE_ACCOUNT, row.account_id, row.account_name, roles=roles)
