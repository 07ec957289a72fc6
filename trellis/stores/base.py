"""Bytes by key."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Written:
    """What was stored: how much, and its SHA-256 in hex."""

    size_bytes: int
    digest: str


class Store(Protocol):
    """Keeps bytes under keys: relative paths of safe segments, made by the server, never by a user."""

    def write(self, key: str, parts: Iterable[bytes]) -> Written:
        """Store all of `parts`, or nothing. Raises ValueError for an unsafe key, OSError where it can't."""
        ...

    def read(self, key: str) -> Iterator[bytes]:
        """The bytes again, in parts. Raises FileNotFoundError."""
        ...

    def delete(self, key: str) -> None:
        """Forget the key; unknown ones are no error."""
        ...

    def locate(self, key: str) -> str:
        """Where a person finds it: a URL."""
        ...
