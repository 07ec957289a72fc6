"""Who calls: the one place where a credential becomes an actor.

Domains register how their kind of credential is read (`Authenticator`); which one answers is told by the
credential's prefix, so that no credential is tried in two ways.
"""

from collections.abc import Callable

from flask import Request

from app.core.access import Actor
from app.core.uow import UnitOfWork
from trellis.errors import Field, Invalid, Unauthenticated

Authenticator = Callable[[UnitOfWork, str], Actor]


class Door:
    """The authenticators by the prefix of the credentials they read; "" reads what has no known prefix."""

    def __init__(self, authenticators: dict[str, Authenticator]) -> None:
        self._by_prefix = authenticators

    def actor(self, uow: UnitOfWork, credential: str) -> Actor:
        """The actor this credential stands for. Raises Unauthenticated, never says why in detail."""
        if not credential or len(credential) > 4096 or not credential.isascii():
            raise Unauthenticated
        prefix, _, rest = credential.partition("_")
        known = prefix if rest and prefix in self._by_prefix else ""
        return self._by_prefix[known](uow, credential)


def credential_of(request: Request) -> str:
    """The one bearer credential of a request. Raises Unauthenticated for none, Invalid for several."""
    value = request.headers.get("Authorization", "")
    if "," in value:  # WSGI servers join the headers of one name with a comma, which no credential of ours holds
        raise Invalid(Field("/authorization", "exactly one Authorization header is allowed"))
    scheme, _, credential = value.partition(" ")
    if scheme.lower() != "bearer" or not credential.strip():
        raise Unauthenticated("send `Authorization: Bearer <token or API key>`; `trellis login` gets one")
    return credential.strip()
