"""What Celery costs the broker: tasks are fetched without a copy, and told of together."""

import base64
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from celery import Celery
from celery.contrib.testing.worker import start_worker

from tasks.app import make_app
from tests.support.services import Services, wait_until

TASKS = 40
QUEUE = "tests-of-the-app"


@pytest.fixture
def broker(services: Services) -> Iterator[redis.Redis]:
    """A connection of our own to watch with."""
    with redis.Redis.from_url(services.broker_url) as connection:
        yield connection
        connection.delete(QUEUE)


@pytest.fixture
def app(services: Services) -> Celery:
    """An application that no worker has yet."""
    return make_app(services.broker_url)


def test_the_events_of_many_tasks_travel_in_few_messages(app: Celery, broker: redis.Redis) -> None:
    app.task(name="tests.nothing")(_nothing)
    watching = broker.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis leaves it untyped
    watching.psubscribe("*celeryev*")
    messages: list[list[str]] = []

    def all_told() -> bool:
        while (message := watching.get_message()) is not None:
            messages.append(_kinds(message))
        return sum(kinds.count("task-succeeded") for kinds in messages) >= TASKS

    with start_worker(app, pool="solo", queues=[QUEUE], perform_ping_check=False):
        for _ in range(TASKS):
            app.send_task("tests.nothing", queue=QUEUE)
        wait_until(all_told, 20, "the events of all tasks")
    about_tasks = [kinds for kinds in messages if any(kind.startswith("task-") for kind in kinds)]
    assert len(about_tasks) < TASKS / 4


def test_a_message_is_not_written_to_the_broker_again_when_it_is_fetched(app: Celery, broker: redis.Redis) -> None:
    seen, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        seen.set()
        go_on.wait(20)

    app.task(name="tests.hold")(hold)
    with start_worker(app, pool="solo", queues=[QUEUE], perform_ping_check=False):
        app.send_task("tests.hold", queue=QUEUE)
        app.send_task("tests.hold", queue=QUEUE)
        assert seen.wait(20)
        kept = broker.exists("unacked")
        go_on.set()
    assert not kept


def _nothing() -> None:
    """A task."""


def _kinds(message: dict[str, Any]) -> list[str]:
    """The kinds of events in one message of Celery's."""
    envelope = json.loads(message["data"])
    body: Any = envelope["body"]
    if envelope["properties"].get("body_encoding") == "base64":
        body = json.loads(base64.b64decode(body))
    events = body if isinstance(body, list) else [body]
    return [event["type"] for event in events]
