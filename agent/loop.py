"""What a supervisor waits for: descriptors that may be read, and moments."""

import math
import select
import time
from collections.abc import Callable

NEVER = float("inf")


class Loop:
    """Actions by descriptor, and `timers`: actions by the moment (monotonic seconds) when they are due, each once."""

    def __init__(self) -> None:
        self.timers: dict[Callable[[], None], float] = {}
        self._poller = select.poll()
        self._actions: dict[int, Callable[[], None]] = {}

    def on(self, fd: int, action: Callable[[], None]) -> None:
        """From now on `action` is done whenever `fd` can be read, or has ended."""
        self._actions[fd] = action
        self._poller.register(fd, select.POLLIN)

    def rest(self, fd: int) -> None:
        """Nothing more comes from `fd`, which stays open."""
        self._poller.unregister(fd)

    def forget(self, fd: int) -> None:
        """`fd` is about to be closed; one that rests already, or was never there, is fine."""
        if self._actions.pop(fd, None) is not None:
            try:
                self._poller.unregister(fd)
            except KeyError:  # it rests
                return

    def wait(self) -> None:
        """Hear what comes next, or do what is due."""
        due = min(self.timers.values(), default=NEVER)
        timeout_ms = None if due == NEVER else max(0, math.ceil((due - time.monotonic()) * 1000))
        for fd, _ in self._poller.poll(timeout_ms):
            self._actions[fd]()
        self._run_timers()

    def clear(self) -> None:
        """Wait for nothing any more."""
        self.timers.clear()
        self._actions.clear()

    def _run_timers(self) -> None:
        now = time.monotonic()
        for action, due in list(self.timers.items()):
            # One before it in this round may have done it already, or put it off: telling of a sample tells all.
            if due <= now and self.timers.get(action) == due:
                del self.timers[action]
                action()
