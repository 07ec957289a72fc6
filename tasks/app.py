"""The Celery application that every process of the platform makes: JSON, ids, short tasks, no results."""

import logging

from celery import Celery

from tasks import queues

VISIBILITY_S = 300


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
    for chatty in ("celery.worker.strategy", "celery.app.trace"):  # two lines a message; Flower shows the same
        logging.getLogger(chatty).setLevel(logging.WARNING)
    if broker_url.startswith("amqp"):
        app.conf.update(task_default_queue_type="quorum", worker_detect_quorum_queues=True)
    return app


def _transport_options(broker_url: str) -> dict[str, object]:
    if broker_url.startswith("amqp"):
        return {"confirm_publish": True}
    return {
        "visibility_timeout": VISIBILITY_S,
        "socket_timeout": 5,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        "health_check_interval": 10,
    }
