"""Secrets: how they are made, stored and compared. Keys derive from the one secret key, each for one purpose."""

import hashlib
import hmac
import secrets
import threading

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

# RFC 9106's second recommendation: 64 MiB, 3 passes; about 50 ms on two plain cores.
_PASSWORDS = PasswordHasher(time_cost=3, memory_cost=65536, parallelism=1)
# Each takes its 64 MiB: a flood of sign-ins waits its turn instead of eating the machine's memory.
_TURNS = threading.BoundedSemaphore(4)
_DECOY = _PASSWORDS.hash(secrets.token_urlsafe(16))


class Keyring:
    """Derived keys, so that a leaked cursor key forges no token."""

    def __init__(self, secret_key: str) -> None:
        self._root = secret_key.encode()

    def key(self, purpose: str) -> bytes:
        """32 bytes for one purpose (HMAC-SHA-256 as a key derivation, RFC 5869's expand step)."""
        return hmac.digest(self._root, b"trellis/" + purpose.encode() + b"\x01", "sha256")

    def signing_key(self, purpose: str) -> Ed25519PrivateKey:
        """A key to sign with, for one purpose; who is to check a signature needs its public half alone."""
        return Ed25519PrivateKey.from_private_bytes(self.key(purpose))

    def digest(self, purpose: str, secret: str) -> bytes:
        """What is stored in place of a random secret: keyed, so that a stolen table proves nothing."""
        return hmac.digest(self.key(purpose), secret.encode(), "sha256")


def new_secret(prefix: str) -> str:
    """256 random bits for a credential, recognisable by its prefix."""
    return f"{prefix}_{secrets.token_urlsafe(32)}"


def hash_password(password: str) -> str:
    """An argon2id hash with its parameters and salt."""
    with _TURNS:
        return _PASSWORDS.hash(password)


def password_matches(stored: str | None, password: str) -> bool:
    """Compare; an unknown user (None) costs as much time as a wrong password."""
    try:
        with _TURNS:
            _PASSWORDS.verify(stored or _DECOY, password)
    except (VerificationError, InvalidHashError):
        return False
    return stored is not None


def fingerprint(data: bytes) -> str:
    """SHA-256 in hex."""
    return hashlib.sha256(data).hexdigest()
