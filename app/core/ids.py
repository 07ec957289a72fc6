"""Ids: UUID version 7 (RFC 9562), made before a row is flushed; they sort by the moment they were made."""

import os
import time
from uuid import UUID

_last = [0]


def read_id(text: str) -> UUID | None:
    """The id that `text` spells, None where it spells none: it may be a name then."""
    try:
        return UUID(text)
    except ValueError:
        return None


def new_id() -> UUID:
    """A fresh id: 48 bits of milliseconds, 12 bits of their fraction, 62 random bits."""
    # Two ids of one process never share a stamp, so that a batch keeps its order.
    stamp = _last[0] = max(time.time_ns() * 4096 // 1_000_000, _last[0] + 1)
    milliseconds, fraction = divmod(stamp, 4096)
    random = int.from_bytes(os.urandom(8)) & (2**62 - 1)
    return UUID(int=(milliseconds & (2**48 - 1)) << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random)
