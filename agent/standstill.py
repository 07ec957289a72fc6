"""A replica's own time while its processes are held still: it stands still with them."""

from collections.abc import Callable, Collection

Timers = dict[Callable[[], None], float]


class Standstill:
    """Takes the timers that are of the job's own time out of `timers` while it rests. Moments are monotonic seconds."""

    def __init__(self, timers: Timers, own: Collection[Callable[[], None]]) -> None:
        self._timers = timers
        self._own = own
        self._left_s: Timers = {}
        self._since: float | None = None
        self._total_s = 0.0

    def __bool__(self) -> bool:
        """Whether it rests now."""
        return self._since is not None

    def begin(self, now: float) -> None:
        """It rests from now on."""
        self._since = now
        self._left_s = {action: self._timers.pop(action) - now for action in self._own if action in self._timers}

    def end(self, now: float) -> None:
        """It goes on, with as much of its time left as it had."""
        self._total_s = self.total_s(now)
        self._since = None
        self._timers.update({action: now + left_s for action, left_s in self._left_s.items()})

    def total_s(self, now: float) -> float:
        """How long it has rested so far."""
        return self._total_s + (0.0 if self._since is None else now - self._since)
