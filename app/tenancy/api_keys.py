"""API keys: shown once, kept as a keyed digest, void the moment they are revoked."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, func, or_, select

from app.core.access import Permission
from app.core.crypto import Keyring, new_secret
from app.core.paging import Page, PageRequest, page
from app.core.uow import UnitOfWork
from app.tenancy.actors import API_KEY_PREFIX, API_KEY_PURPOSE
from app.tenancy.models import ApiKey
from app.tenancy.service_accounts import get_service_account
from trellis.errors import Field, Forbidden, Invalid, QuotaExceeded
from trellis.vocabulary import ActorKind

MOST_KEYS = 50
SHOWN_CHARACTERS = 12


@dataclass(frozen=True, slots=True)
class ApiKeySpec:
    """A key to be made; without `expires_at` it holds until it is revoked."""

    name: str
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class NewApiKey:
    """A key at the one moment at which its secret is known."""

    id: UUID
    name: str
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    key: str


def create_own_key(uow: UnitOfWork, keyring: Keyring, spec: ApiKeySpec) -> NewApiKey:
    """Make a key that stands for the actor. Raises Forbidden for anybody but a person."""
    uow.require(Permission.OWN_KEYS)
    if uow.actor.kind is not ActorKind.USER:
        raise Forbidden("keys of a service account are made by the administrators of its project")
    return _create(uow, keyring, spec, ApiKey(user_id=uow.actor.id), ApiKey.user_id == uow.actor.id)


def create_account_key(uow: UnitOfWork, keyring: Keyring, account_id: UUID, spec: ApiKeySpec) -> NewApiKey:
    """Make a key that stands for a service account."""
    account = get_service_account(uow, account_id)
    uow.require(Permission.MEMBER_WRITE, account.project_id)
    owned = ApiKey.service_account_id == account.id
    return _create(uow, keyring, spec, ApiKey(service_account_id=account.id), owned)


def list_own_keys(uow: UnitOfWork, request: PageRequest) -> Page[ApiKey]:
    """The actor's own that are not revoked."""
    mine = or_(ApiKey.user_id == uow.actor.id, ApiKey.service_account_id == uow.actor.id)
    statement = uow.visible(ApiKey).where(mine, ApiKey.revoked_at.is_(None))
    return page(uow, statement, ApiKey, request)


def list_account_keys(uow: UnitOfWork, account_id: UUID, request: PageRequest) -> Page[ApiKey]:
    """A service account's that are not revoked, to the administrators of its project."""
    account = get_service_account(uow, account_id)
    uow.require(Permission.MEMBER_WRITE, account.project_id)
    statement = uow.visible(ApiKey).where(ApiKey.service_account_id == account.id, ApiKey.revoked_at.is_(None))
    return page(uow, statement, ApiKey, request)


def revoke_key(uow: UnitOfWork, key_id: UUID) -> None:
    """Void a key from the next request on; doing so twice is no fault."""
    key = uow.get(ApiKey, key_id, lock=True)
    if key.revoked_at is None:
        key.revoked_at = uow.clock.now()
        key.version += 1
        uow.emit("api_key.revoked", key, name=key.name, prefix=key.prefix)


def _create(uow: UnitOfWork, keyring: Keyring, spec: ApiKeySpec, key: ApiKey, owned: ColumnElement[bool]) -> NewApiKey:
    now = uow.clock.now()
    if spec.expires_at is not None and spec.expires_at <= now:
        raise Invalid(Field("/expires_at", "lies in the past"))
    live = select(func.count()).where(owned, ApiKey.revoked_at.is_(None))
    if uow.session.execute(live).scalar_one() >= MOST_KEYS:
        raise QuotaExceeded(f"{MOST_KEYS} keys are the most: revoke one first")
    secret = new_secret(API_KEY_PREFIX)
    key.name, key.expires_at, key.created_at = spec.name, spec.expires_at, now
    key.prefix, key.digest = secret[:SHOWN_CHARACTERS], keyring.digest(API_KEY_PURPOSE, secret)
    uow.session.add(key)
    uow.session.flush()
    uow.emit("api_key.created", key, name=key.name, prefix=key.prefix)
    return NewApiKey(key.id, key.name, key.prefix, now, key.expires_at, secret)
