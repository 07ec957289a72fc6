"""Trying again without hammering."""

import random
from threading import Event


class Backoff:
    """Waits longer after each failure, up to `at_most_s`, and never in step with other nodes."""

    def __init__(self, first_s: float = 0.1, at_most_s: float = 2.0) -> None:
        self._first_s = first_s
        self._at_most_s = at_most_s
        self._next_s = first_s

    def wait(self, stopping: Event) -> None:
        """Wait, or return at once when `stopping` is set."""
        stopping.wait(self._next_s * random.uniform(0.5, 1.0))  # noqa: S311  # no secret: it spreads retries
        self._next_s = min(self._at_most_s, self._next_s * 2)

    def reset(self) -> None:
        """It worked."""
        self._next_s = self._first_s
