"""Being told of changes at once: one listening connection a process, whatever the number of those who want to hear."""

import logging
import threading
from collections import defaultdict
from collections.abc import Callable

import psycopg

log = logging.getLogger(__name__)
RETRY_S = 1.0


class Listener:
    """Calls those who listen for a topic. What was missed while the database was away is called out when it is back."""

    def __init__(self, url: str, channel: str) -> None:
        self._url, self._channel = url, channel
        self._hearers: dict[str, set[Callable[[], None]]] = defaultdict(set)
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def add(self, topic: str, hear: Callable[[], None]) -> None:
        """Have `hear` called, soon after, whenever something about `topic` was committed. It must not block."""
        with self._guard:
            self._hearers[topic].add(hear)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="listener", daemon=True)
                self._thread.start()

    def remove(self, topic: str, hear: Callable[[], None]) -> None:
        """No more."""
        with self._guard:
            self._hearers[topic].discard(hear)
            if not self._hearers[topic]:
                del self._hearers[topic]

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
            hearers = list(self._hearers.get(topic, ()))
        for hear in hearers:
            hear()

    def _wake_all(self) -> None:
        with self._guard:
            hearers = [hear for some in self._hearers.values() for hear in some]
        for hear in hearers:
            hear()
