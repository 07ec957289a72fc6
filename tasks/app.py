"""The Celery application that every process of the platform makes: JSON, ids, short tasks, no results."""

import logging
from typing import Any

from celery import Celery, bootsteps

from tasks import queues

TOLD_EVERY_S = 1.0
MOST_UNTOLD = 500


class PacedEvents(bootsteps.StartStopStep):
    """What a worker tells Flower of its tasks goes out once in TOLD_EVERY_S, together.

    Celery publishes three events a task, each by itself: more than many of our tasks cost.
    """

    requires = ("celery.worker.consumer.events:Events",)

    def __init__(self, consumer: Any, **options: Any) -> None:
        super().__init__(consumer, **options)
        self._timer: Any = None

    def start(self, consumer: Any) -> None:
        """At each new connection to the broker: its dispatcher is new as well."""
        self.stop(consumer)
        if consumer.hub is None:
            return  # a pool that has no event loop does not gather events at all
        consumer.event_dispatcher.on_send_buffered = None
        consumer.event_dispatcher.buffer_limit = MOST_UNTOLD
        self._timer = consumer.hub.call_repeatedly(TOLD_EVERY_S, consumer.event_dispatcher.flush)

    def stop(self, _: Any) -> None:
        """When the connection is lost, or the worker ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def make_app(broker_url: str) -> Celery:
    """An application for a Redis or a RabbitMQ broker.

    Messages are hints to look: one that is lost or comes twice costs time, never a job. So nothing is
    acknowledged late, nothing has an ETA, and no result is kept.
    """
    app = Celery("trellis", broker=broker_url, set_as_current=True)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        task_default_queue=queues.CONTROL,
        task_time_limit=60,
        task_soft_time_limit=45,
        task_acks_late=False,
        task_reject_on_worker_lost=False,
        worker_prefetch_multiplier=1,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_send_task_events=True,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_transport_options=_transport_options(broker_url),
        enable_utc=True,
        timezone="UTC",
    )
    app.steps["consumer"].add(PacedEvents)
    for chatty in ("celery.worker.strategy", "celery.app.trace"):  # two lines a message; Flower shows the same
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if broker_url.startswith("amqp"):
        app.conf.update(task_default_queue_type="quorum", worker_detect_quorum_queues=True)
    return app


def _transport_options(broker_url: str) -> dict[str, object]:
    if broker_url.startswith("amqp"):
        return {"confirm_publish": True}
    return {
        # Else each message is written to Redis again when it is fetched, and erased when it is taken up, should the
        # worker die in that moment: of a hint, nothing is lost that the next tick or heartbeat does not say again.
        "ack_emulation": False,
        "socket_timeout": 5,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }
