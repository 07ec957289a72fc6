"""Signing in: chains of refresh tokens. Each is used once; using an old one again ends its chain.

What a refusal must leave behind (a chain that ended, an event) has to be committed, so refusals that change
something are returned as errors, not raised.
"""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select, update

from app.core.access import Actor
from app.core.crypto import Keyring, hash_password, new_secret, password_matches
from app.core.ids import new_id
from app.core.throttle import Throttle
from app.core.uow import UnitOfWork
from app.tenancy import actors
from app.tenancy.models import RefreshToken, User
from app.tenancy.tokens import LIFETIME, AccessTokens
from trellis.errors import Field, Forbidden, Invalid, Unauthenticated
from trellis.vocabulary import ActorKind

REFRESH_PREFIX = "trr"
REFRESH_PURPOSE = "refresh-token"
REFRESH_LIFETIME = timedelta(days=30)
WRONG = "the username or the password is wrong"
VOID = "the refresh token does not hold: sign in again"


@dataclass(frozen=True, slots=True)
class Session:
    """What a sign-in hands out: a short-lived access token, and the one token that gets the next pair."""

    access_token: str
    refresh_token: str
    expires_in: int = int(LIFETIME.total_seconds())
    token_type: str = "Bearer"  # the scheme's name, not a secret


class SignIns:
    """The rules of signing in, with what they need beside rows: the keys, and a count of tries."""

    def __init__(self, keyring: Keyring) -> None:
        self._keyring = keyring
        self._tokens = AccessTokens(keyring)
        self._by_name = Throttle(limit=10, period_s=300)
        self._by_address = Throttle(limit=100, period_s=300)

    def open_session(self, uow: UnitOfWork, username: str, password: str, address: str) -> Session | Unauthenticated:
        """Sign in. Raises RateLimited; returns the error for a wrong name or password."""
        place = f"{username}\0{address}"
        # Read first: a try that the database could not answer is none, or an outage would lock everybody out.
        user = uow.session.execute(select(User).where(User.username == username)).scalar_one_or_none()
        self._by_address.spend(address)
        self._by_name.spend(place)
        known = user if user and user.disabled_at is None else None
        version = user and user.token_version
        matches = password_matches(known.password_hash if known else None, password)
        # Locked and read again: a password changed while we compared must not leave a session of the old one.
        if known is None or not matches or _lock(uow, known.id).token_version != version:
            if user is not None:
                uow.emit("user.sign_in_refused", user, address=address)
            return Unauthenticated(WRONG)
        self._by_name.give_back(place)
        self._by_address.give_back(address)
        uow.actor = Actor(ActorKind.USER, known.id, known.username, known.platform_admin)
        uow.emit("user.signed_in", known, address=address)
        return self._link(uow, known, new_id())

    def continue_session(self, uow: UnitOfWork, refresh_token: str) -> Session | Unauthenticated:
        """Trade a refresh token for the next pair. One that was used already ends its chain."""
        link = self._locked(uow, refresh_token)
        if link is None or link.expires_at <= uow.clock.now():
            return Unauthenticated(VOID)
        user = uow.session.get_one(User, link.user_id)
        if link.used_at is not None:
            end_chain(uow, link.chain_id)
            uow.emit("user.refresh_token_reused", user, chain_id=str(link.chain_id))
            return Unauthenticated("the refresh token was used before, so its session was ended: sign in again")
        if user.disabled_at is not None:
            return Unauthenticated(VOID)
        link.used_at = uow.clock.now()
        uow.actor = actors.of_user(uow, user.id)
        return self._link(uow, user, link.chain_id)

    def close_session(self, uow: UnitOfWork, refresh_token: str) -> None:
        """Sign out: end the chain of this token; one that is not known has none."""
        if (link := self._locked(uow, refresh_token)) is not None:
            end_chain(uow, link.chain_id)

    def _link(self, uow: UnitOfWork, user: User, chain_id: UUID) -> Session:
        now, secret = uow.clock.now(), new_secret(REFRESH_PREFIX)
        digest = self._keyring.digest(REFRESH_PURPOSE, secret)
        link = RefreshToken(user_id=user.id, chain_id=chain_id, digest=digest, expires_at=now + REFRESH_LIFETIME)
        uow.session.add(link)
        return Session(self._tokens.issue(user, now), secret)

    def _locked(self, uow: UnitOfWork, refresh_token: str) -> RefreshToken | None:
        digest = self._keyring.digest(REFRESH_PURPOSE, refresh_token)
        statement = select(RefreshToken).where(RefreshToken.digest == digest)
        link = uow.session.execute(statement).scalar_one_or_none()
        if link is None:
            return None
        # The owner's row is the lock of all their chains: of two requests with one token the second is the reuse,
        # and a chain that is being ended grows no link behind the update that ends it.
        _lock(uow, link.user_id)
        return uow.session.execute(statement.execution_options(populate_existing=True)).scalar_one()


def _lock(uow: UnitOfWork, user_id: UUID) -> User:
    statement = select(User).where(User.id == user_id).with_for_update(key_share=True)
    return uow.session.execute(statement.execution_options(populate_existing=True)).scalar_one()


def change_own_password(uow: UnitOfWork, current: str, new: str) -> None:
    """Set a new password and end every session of the actor. Raises Invalid where `current` is wrong."""
    if uow.actor.kind is not ActorKind.USER or uow.actor.id is None:
        raise Forbidden("only people have a password")
    user = uow.get(User, uow.actor.id, lock=True)
    if not password_matches(user.password_hash, current):
        raise Invalid(Field("/current", "is not your password"))
    set_password(uow, user, new)
    uow.emit("user.changed", user, changed=["password"])


def set_password(uow: UnitOfWork, user: User, password: str) -> None:
    """Store a (locked) user's new password; whoever was signed in with the old one no longer is."""
    user.password_hash = hash_password(password)
    end_sessions(uow, user)


def end_sessions(uow: UnitOfWork, user: User) -> None:
    """Void every access and refresh token of a (locked) user."""
    user.token_version += 1
    user.version += 1
    expire = update(RefreshToken).where(RefreshToken.user_id == user.id, RefreshToken.expires_at > uow.clock.now())
    uow.session.execute(expire.values(expires_at=uow.clock.now()))


def end_chain(uow: UnitOfWork, chain_id: UUID) -> None:
    """Void the refresh tokens of one sign-in."""
    chain = update(RefreshToken).where(RefreshToken.chain_id == chain_id)
    uow.session.execute(chain.values(expires_at=uow.clock.now()))
