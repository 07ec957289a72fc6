"""Bytes by key, wherever they lie."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

PART_BYTES = 1 << 20
_SEGMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}", re.ASCII)
_LONGEST = 512


@dataclass(frozen=True, slots=True)
class Written:
    """What was stored: how much, and its SHA-256 in hex."""

    size_bytes: int
    digest: str


@dataclass(frozen=True, slots=True)
class Stored:
    """One key of a store: how much it holds, and when it was written (seconds since the epoch, the store's clock)."""

    key: str
    size_bytes: int
    modified_at: float


class Store(Protocol):
    """Keeps bytes under keys: relative paths of safe segments, made by the platform, never by a user.

    Every method raises ValueError for a key that `segments` refuses, and OSError where the store can't.
    """

    def write(self, key: str, parts: Iterable[bytes]) -> Written:
        """Store all of `parts`, or nothing: no reader sees the key before the whole is safe."""
        ...

    def read(self, key: str) -> Iterator[bytes]:
        """The bytes again, in parts. Raises FileNotFoundError."""
        ...

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer only where the key holds no more. Raises FileNotFoundError."""
        ...

    def head(self, key: str) -> int | None:
        """How many bytes the key holds; None where there is no such key."""
        ...

    def find(self, prefix: str) -> Iterator[Stored]:
        """All keys below `prefix`, which is a key without its last segments; in no order."""
        ...

    def folders(self, prefix: str) -> Iterator[str]:
        """The prefixes of one segment more than `prefix` below which there are keys, or were; in no order."""
        ...

    def delete(self, key: str) -> None:
        """Forget the key; unknown ones are no error."""
        ...

    def locate(self, key: str) -> str:
        """Where a person finds it: a URL."""
        ...


def segments(key: str) -> list[str]:
    """The parts of a key. The one place where keys are checked: none of them leads out of a store's root.

    Raises: ValueError for what is empty, longer than 512 characters, or has a part that is not 1 to 128 letters,
        digits, dots, dashes and underscores, or that begins with a dot.
    """
    parts = key.split("/")
    if len(key) > _LONGEST or not all(_SEGMENT.fullmatch(part) for part in parts):
        raise ValueError(f"{key!r} is not a safe key")
    return parts
