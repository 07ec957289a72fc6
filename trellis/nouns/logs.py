"""A job's log, read once or followed line by line, over broken connections too."""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from trellis.answers import LogLine, answer
from trellis.errors import Unavailable
from trellis.sse import ServerEvent, read_events
from trellis.transport import Call, Transport, path

# The server says something (a comment at least) far more often than this.
_SILENCE_S = 60.0
# A connection that fails this often in a row, each after the transport's own tries, is not coming back soon.
_FRUITLESS = 8
_LONGEST_PAUSE_S = 5.0


class Follower:
    """Follows one job's log: goes on after a break where it was, so that no line is lost or comes twice."""

    def __init__(
        self,
        transport: Transport,
        job_id: str,
        params: Mapping[str, Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._job_id = job_id
        self._params = {**params, "follow": "true"}
        self._clock = clock
        self._cursor: str | None = None
        self._ends_at: float | None = None

    def lines(self) -> Iterator[LogLine]:
        """The lines as they come, until the job has ended."""
        for event in self._events():
            if event.name == "log":
                yield replace(answer(LogLine, json.loads(event.data)), cursor=event.id or "")

    def until_end(self, timeout_s: float | None) -> bool:
        """Wait for the job's end without keeping its lines; False when `timeout_s` went by first."""
        self._ends_at = None if timeout_s is None else self._clock() + timeout_s
        return any(event.name == "end" for event in self._events())

    def _events(self) -> Iterator[ServerEvent]:
        fruitless = 0
        while not self._too_late():
            fruitless += 1
            try:
                for event in self._connection():
                    fruitless = 0
                    yield event
                    if event.name == "end":
                        return
            except Unavailable:
                if fruitless >= _FRUITLESS and not self._too_late():
                    raise
            # The server let go without an end: it is being restarted, or a proxy grew tired. Not a tight loop.
            self._transport.sleep(min(0.1 * 2**fruitless, _LONGEST_PAUSE_S, self._left_s()))

    def _connection(self) -> Iterator[ServerEvent]:
        headers = {"Accept": "text/event-stream"}
        params = self._params
        if self._cursor is not None:
            headers["Last-Event-ID"] = self._cursor
            params = {key: value for key, value in params.items() if key != "tail"}
        patience_s = min(_SILENCE_S, max(self._left_s(), 0.1))
        call = Call("GET", path("jobs", self._job_id, "logs"), params, headers=headers, read_timeout_s=patience_s)
        with self._transport.stream(call) as response:
            for event in read_events(response.iter_bytes()):
                self._cursor = event.id or self._cursor
                yield event
                if self._left_s() < 0.9 * patience_s - 1.0 or self._too_late():
                    return  # to come back with a shorter patience, so that the time limit is kept

    def _left_s(self) -> float:
        return float("inf") if self._ends_at is None else max(0.0, self._ends_at - self._clock())

    def _too_late(self) -> bool:
        return self._left_s() <= 0.0


def read_log(transport: Transport, job_id: str, params: Mapping[str, Any]) -> Iterator[LogLine]:
    """The lines that are there now; a long log comes in several answers, of which all but the last say `more`."""
    where, more = path("jobs", job_id, "logs"), True
    while more:
        answered = transport.json(Call("GET", where, params)) or {}
        for line in answered.get("lines", ()):
            yield answer(LogLine, line)
        more = bool(answered.get("more"))
        params = {**params, "cursor": answered.get("cursor")}
