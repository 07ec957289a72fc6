"""How a client shows who it is: a key that stays, or a session whose short token is renewed."""

import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from trellis.errors import Unauthenticated

Exchange = Callable[[str, dict[str, Any]], dict[str, Any]]
"""Posts a body to a path without any credential and answers the JSON object; raises TrellisError."""

# A token this close to its end would be refused by the time it arrives.
_MARGIN_S = 20.0


class Credential(Protocol):
    """Something that yields bearer tokens."""

    def token(self, exchange: Exchange) -> str | None:
        """The token to send now; None sends none."""

    def renew(self, refused: str | None, exchange: Exchange) -> bool:
        """Called when the server answered 401 to `refused`; whether trying again with a new token makes sense."""


class Key:
    """An API key, or a JWT that somebody else looks after; None is nobody."""

    def __init__(self, secret: str | None) -> None:
        self._secret = secret

    def token(self, exchange: Exchange) -> str | None:  # noqa: ARG002  # needs no exchange
        """Always the same."""
        return self._secret

    def renew(self, refused: str | None, exchange: Exchange) -> bool:  # noqa: ARG002  # there is no other
        """A key that is refused stays refused."""
        return False


class Session:
    """Signs in with a password when first needed, and renews the token before it ends; one at a time over threads."""

    def __init__(self, username: str, password: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._username, self._password, self._clock = username, password, clock
        self._lock = threading.Lock()
        self._access: str | None = None
        self._refresh: str | None = None
        self._ends_at = 0.0

    def token(self, exchange: Exchange) -> str | None:
        """A token that holds for some seconds at least."""
        with self._lock:
            if self._access is None or self._clock() > self._ends_at - _MARGIN_S:
                self._begin(exchange)
            return self._access

    def renew(self, refused: str | None, exchange: Exchange) -> bool:
        """Get another token, unless another thread has done so since."""
        with self._lock:
            if self._access == refused:
                self._begin(exchange)
            return True

    def _begin(self, exchange: Exchange) -> None:
        granted = self._refreshed(exchange)
        if granted is None:
            granted = exchange("/auth/token", {"username": self._username, "password": self._password})
        self._access, self._refresh = str(granted["access_token"]), granted.get("refresh_token")
        lifetime_s = float(granted.get("expires_in") or 60.0)
        # A token shorter than the margin is used for half its life; it must not be fetched anew for every call.
        self._ends_at = self._clock() + max(lifetime_s, _MARGIN_S + lifetime_s / 2)

    def _refreshed(self, exchange: Exchange) -> dict[str, Any] | None:
        # Taken before it is used: a refresh token holds once, and showing it twice ends the whole session.
        spent, self._refresh = self._refresh, None
        if spent is None:
            return None
        try:
            return exchange("/auth/refresh", {"refresh_token": spent})
        except Unauthenticated:
            return None
