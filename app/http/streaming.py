"""Server-Sent Events (WHATWG HTML, section 9.2): framing, keep-alives, and a bound on how many are open."""

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from flask import Response

from trellis.errors import RateLimited

KEEP_ALIVE = b": keep-alive\n\n"


@dataclass(frozen=True, slots=True)
class Message:
    """One event of a stream."""

    event: str
    data: Any
    id: str = ""

    def encode(self) -> bytes:
        """As bytes of the stream; JSON holds no line break, so one data line is enough."""
        head = f"id: {self.id}\n" if self.id else ""
        return f"{head}event: {self.event}\ndata: {json.dumps(self.data, ensure_ascii=False)}\n\n".encode()


class Streams:
    """How many streams this process may hold open: each takes a thread, and requests must find one too."""

    def __init__(self, most: int) -> None:
        self._free = threading.BoundedSemaphore(most)

    def open(self, body: Iterator[bytes]) -> Response:
        """Answer with a stream. Raises RateLimited where too many are open."""
        if not self._free.acquire(blocking=False):
            raise RateLimited("too many streams are open on this server: close one, or poll", retry_after_s=5)
        response = Response(body, mimetype="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        response.headers["X-Accel-Buffering"] = "no"
        response.call_on_close(self._free.release)
        return response
