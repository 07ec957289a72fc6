"""Being told of changes at once: one listening connection a process, any number of waiting threads."""

import logging
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

log = logging.getLogger(__name__)
RETRY_S = 1.0


class Listener:
    """Wakes threads that wait for a topic. While the database is away, waiting falls back to its time-out."""

    def __init__(self, url: str, channel: str) -> None:
        self._url, self._channel = url, channel
        self._waiting: dict[str, set[threading.Event]] = defaultdict(set)
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    @contextmanager
    def subscribed(self, topic: str) -> Iterator[threading.Event]:
        """An event that is set whenever something about `topic` was committed; the caller clears it."""
        event = threading.Event()
        with self._guard:
            self._waiting[topic].add(event)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
                self._thread.start()
        try:
            yield event
        finally:
            with self._guard:
                self._waiting[topic].discard(event)
                if not self._waiting[topic]:
                    del self._waiting[topic]

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with psycopg.connect(self._url, autocommit=True) as connection:
                    connection.execute(f"LISTEN {self._channel}")  # a constant of ours, never input
                    self._wake_all()  # what happened while nobody listened
                    for notice in connection.notifies():
                        self._wake(notice.payload)
            except psycopg.OperationalError as error:
                log.warning("listening was interrupted, trying again: %s", type(error).__name__)
            self._stop.wait(RETRY_S)

    def _wake(self, topic: str) -> None:
        with self._guard:
            for event in self._waiting.get(topic, ()):
                event.set()

    def _wake_all(self) -> None:
        with self._guard:
            for events in self._waiting.values():
                for event in events:
                    event.set()
