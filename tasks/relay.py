"""Events to the broker: claimed in the database and marked as sent, then sent as `REACTIONS` says, then committed.

At least once: a crash between sending and committing sends again, and every task is safe to run twice. Several
relays share the work by SKIP LOCKED.
"""

import logging
import threading
import time
from typing import Any

import psycopg
from celery import bootsteps
from kombu.exceptions import OperationalError as BrokerDown
from sqlalchemy import func, select, update

from app.core.access import SYSTEM
from app.core.db import libpq_url
from app.core.events import WAKE_CHANNEL, Event
from app.core.locks import is_awaited
from app.core.uow import UnitOfWork, run
from tasks.base import Control, control
from tasks.reactions import Message, messages_for
from trellis.errors import Unavailable

log = logging.getLogger(__name__)
BATCH = 500
SWEEP_S = 5.0  # how long a lost wake-up can go unnoticed
REST_S = 0.025  # under load, events gather for so long and travel together
CALM_S = 0.3  # after this long without work a message is sent at once again
RETRY_S = 1.0
_UNSENT = (
    select(Event.id)
    .where(Event.sent_at.is_(None))
    .order_by(Event.id)
    .limit(BATCH)
    .with_for_update(skip_locked=True)
    .cte()  # evaluated once, whatever the planner thinks of joining it
)
_CLAIM = (
    update(Event)
    .where(Event.id == _UNSENT.c.id)
    .values(sent_at=func.clock_timestamp())
    .returning(Event.id, Event.kind, Event.subject_id, Event.data)
)


class Pace:
    """Rests after a batch where batches keep coming: the first few after a calm are sent on at once."""

    AT_ONCE = 8

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._count = 0

    def rest(self) -> None:
        """Called after each batch."""
        now = time.monotonic()
        if now - self._last > CALM_S:
            self._count = 0
        self._count += 1
        if self._count > self.AT_ONCE:
            time.sleep(REST_S)
        self._last = time.monotonic()


class Relay(threading.Thread):
    """One thread of a control worker."""

    def __init__(self, parts: Control) -> None:
        super().__init__(name="relay", daemon=True)
        self._parts = parts
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End after the batch in hand."""
        self._stopped.set()

    def run(self) -> None:
        """Listen, drain, and begin again whatever goes away."""
        while not self._stopped.is_set():
            try:
                self._listen()
            except (psycopg.OperationalError, BrokerDown, Unavailable, OSError) as error:
                log.warning("the relay was interrupted, trying again: %s: %s", type(error).__name__, error)
                self._stopped.wait(RETRY_S)

    def _listen(self) -> None:
        url = libpq_url(self._parts.settings.database_url)
        with psycopg.connect(url, autocommit=True, connect_timeout=3) as connection:
            connection.execute(f"LISTEN {WAKE_CHANNEL}")  # a constant of ours, never input
            pace = Pace()
            while not self._stopped.is_set():
                while self._drain() and not self._stopped.is_set():
                    pace.rest()
                for _ in connection.notifies(timeout=SWEEP_S, stop_after=1):
                    pass

    def _drain(self) -> int:
        return run(self._parts.sessions, SYSTEM, self._send_batch)

    def _send_batch(self, uow: UnitOfWork) -> int:
        """Claim, mark, send. The broker is called inside this transaction, and nowhere else: were the mark committed
        before the message is sent, a crash in between would lose it."""
        claimed: list[Any] = sorted(uow.execute(_CLAIM), key=lambda event: event.id)
        for message in messages_for(claimed):
            # Whoever waits for that turn will see all that these events tell of.
            if not (message.turn and is_awaited(uow, message.turn)):
                self._send(message)
        return len(claimed)

    def _send(self, message: Message) -> None:
        self._parts.celery.send_task(
            message.task, args=message.arguments, queue=message.queue, ignore_result=True, retry=False
        )


class RelayStep(bootsteps.StartStopStep):
    """Runs the relay inside a control worker."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, worker: Any, **options: Any) -> None:
        super().__init__(worker, **options)
        self._relay: Relay | None = None

    def start(self, worker: Any) -> None:
        """Once the pool is up."""
        self._relay = Relay(control())
        self._relay.start()

    def stop(self, worker: Any) -> None:
        """When the worker goes."""
        if self._relay is not None:
            self._relay.stop()
