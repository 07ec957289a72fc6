"""How often a thing may be tried, and how many may do it at once: bounded, in this process."""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

from trellis.errors import RateLimited

MOST_KEYS = 10_000


class Throttle:
    """At most `limit` tries a key within `period_s`; remembers the keys used last, MOST_KEYS of them.

    Each process counts for itself: with N processes the limit is N times as high, which is still no speed
    for guessing a password.
    """

    def __init__(self, limit: int, period_s: float) -> None:
        self._limit = limit
        self._period_s = period_s
        self._tries: OrderedDict[str, tuple[int, float]] = OrderedDict()
        self._lock = threading.Lock()

    def spend(self, key: str) -> None:
        """Count a try before it is made, so that tries at the same moment count too.

        Raises: RateLimited, with the seconds until the period of this key ends.
        """
        now = time.monotonic()
        with self._lock:
            tries, since = self._tries.get(key, (0, now))
            if now - since >= self._period_s:
                tries, since = 0, now
            if tries >= self._limit:
                raise RateLimited("too many attempts", retry_after_s=self._period_s - (now - since))
            self._tries[key] = (tries + 1, since)
            self._tries.move_to_end(key)
            if len(self._tries) > MOST_KEYS:
                self._tries.popitem(last=False)

    def give_back(self, key: str) -> None:
        """The try was rightful: it does not count."""
        with self._lock:
            if (known := self._tries.get(key)) is not None:
                self._tries[key] = (max(0, known[0] - 1), known[1])


class OneAtATime:
    """A thing that costs so much that a process does it for one caller after the other; nobody waits in line."""

    def __init__(self, retry_after_s: float) -> None:
        self._retry_after_s = retry_after_s
        self._lock = threading.Lock()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Have the turn until the end of the block. Raises RateLimited where somebody has it."""
        if not self._lock.acquire(blocking=False):
            raise RateLimited("another request of this kind is being answered", retry_after_s=self._retry_after_s)
        try:
            yield
        finally:
            self._lock.release()
