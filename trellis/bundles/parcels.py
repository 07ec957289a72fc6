"""Many contents in one body: each with its digest and length before it, so that none is taken for another.

A parcel is the 32 bytes of a SHA-256, eight bytes of length, most significant first, and so many bytes.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

HEAD_BYTES = 40
PIECE_BYTES = 1 << 20


class BadParcel(ValueError):
    """What arrived is not what was announced."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """One content on its way; `pieces` can be taken once, and raises BadParcel at its end where they are not it."""

    digest: str
    size_bytes: int
    pieces: Iterator[bytes]


def wrap(digest: str, size_bytes: int, pieces: Iterable[bytes]) -> Iterator[bytes]:
    """A parcel's bytes."""
    yield bytes.fromhex(digest) + size_bytes.to_bytes(8, "big")
    yield from pieces


def unwrap(read: Callable[[int], bytes]) -> Iterator[Parcel]:
    """The parcels of a body, one after the other; `read` returns at most so many bytes, none at its end.

    A parcel that was not read to its end is passed over. Raises BadParcel where the body ends within one.
    """
    while head := _exactly(read, HEAD_BYTES):
        if len(head) < HEAD_BYTES:
            raise BadParcel("the body ends within the head of a parcel")
        size = int.from_bytes(head[32:], "big")
        pieces = _checked(read, head[:32], size)
        yield Parcel(head[:32].hex(), size, pieces)
        for _ in pieces:
            pass


def reader(parts: Iterator[bytes]) -> Callable[[int], bytes]:
    """Parts of a body, of whatever length, as the `read` that `unwrap` takes."""
    rest = b""

    def read(most: int) -> bytes:
        nonlocal rest
        while not rest:
            part = next(parts, None)
            if part is None:
                return b""
            rest = part
        taken, rest = rest[:most], rest[most:]
        return taken

    return read


def _exactly(read: Callable[[int], bytes], count: int) -> bytes:
    taken = b""
    while len(taken) < count and (part := read(count - len(taken))):
        taken += part
    return taken


def _checked(read: Callable[[int], bytes], wanted: bytes, size: int) -> Iterator[bytes]:
    digest, left = hashlib.sha256(), size
    while left:
        piece = read(min(left, PIECE_BYTES))
        if not piece:
            raise BadParcel("the body ends within a parcel")
        digest.update(piece)
        left -= len(piece)
        if not left and digest.digest() != wanted:
            raise BadParcel(f"what came for {wanted.hex()} has SHA-256 {digest.hexdigest()}")
        yield piece
    if not size and digest.digest() != wanted:
        raise BadParcel(f"what came for {wanted.hex()} is empty")
