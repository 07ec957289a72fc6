"""Access tokens: JWTs of one pinned algorithm, short-lived, void once the account's token version is raised."""

from datetime import datetime, timedelta
from uuid import UUID

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey
from joserfc.jwt import Claims, ClaimsOption, JWTClaimsRegistry

from app.core.access import Actor
from app.core.crypto import Keyring
from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.tenancy import actors
from app.tenancy.models import User
from trellis.errors import Unauthenticated

ALGORITHM = "HS256"
HEADER = {"alg": ALGORITHM, "typ": "JWT"}
ISSUER = "trellis"
AUDIENCE = "trellis-api"
LIFETIME = timedelta(minutes=15)


class AccessTokens:
    """Signs and reads access tokens with the key that the keyring derives for them."""

    def __init__(self, keyring: Keyring) -> None:
        self._key = OctKey.import_key(keyring.key("jwt"))

    def issue(self, user: User, now: datetime) -> str:
        """A token for this user that holds from `now` for LIFETIME."""
        claims = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": str(user.id),
            "jti": str(new_id()),
            "iat": int(now.timestamp()),
            "exp": int((now + LIFETIME).timestamp()),
            "tv": user.token_version,
        }
        return jwt.encode(HEADER, claims, self._key, [ALGORITHM])

    def authenticate(self, uow: UnitOfWork, credential: str) -> Actor:
        """The actor a token stands for. Raises Unauthenticated for any fault, without naming it."""
        try:
            claims = self._signed_claims(credential)
            user_id = UUID(claims["sub"])
        except (JoseError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise Unauthenticated from error
        actor, token_version, now = actors.of_session(uow, user_id)
        try:
            _rules(now).validate(claims)
        except JoseError as error:
            raise Unauthenticated from error
        if claims.get("tv") != token_version or claims["tv"] is True:  # True == 1, to Python
            raise Unauthenticated
        return actor

    def _signed_claims(self, credential: str) -> Claims:
        token = jwt.decode(credential, self._key, [ALGORITHM])
        # Exactly our own header: no `jwk`, `jku`, `x5u`, `kid` or `crit` gets to say how it should be read.
        if token.header != HEADER:
            raise Unauthenticated
        return token.claims


def _rules(now: datetime) -> JWTClaimsRegistry:
    essential: ClaimsOption = {"essential": True}
    return JWTClaimsRegistry(
        now=int(now.timestamp()),
        iss={"essential": True, "value": ISSUER},
        aud={"essential": True, "value": AUDIENCE},
        sub=essential,
        jti=essential,
        iat=essential,
        exp=essential,
    )
