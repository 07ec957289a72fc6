"""Events to messages: which are sent, at what cost, and that none is lost with the broker."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import OperationalError as BrokerDown
from sqlalchemy import func, select

from app.core.events import Event
from app.core.locks import lock_number
from app.scheduling.cycle import LOCK
from tasks.base import Control
from tasks.relay import Relay
from tests.integration.jobs.test_life import start, submit
from tests.support.fake_node import FakeNode
from tests.support.stack import Caller, Stack
from tests.support.statements import counted
from tests.support.world import World

PLAN, RELEASE = "tasks.scheduling.run_cycle", "tasks.jobs.release_dependents"


@dataclass
class Broker:
    """Takes messages as Celery does; nobody listens."""

    sent: list[str] = field(default_factory=list)
    down: bool = False

    def send_task(self, name: str, **_: Any) -> None:
        """Note what was sent."""
        if self.down:
            raise BrokerDown("the broker is away")
        self.sent.append(name)


@dataclass
class Relaying:
    """A relay over the test's database that is asked batch by batch."""

    stack: Stack
    broker: Broker
    relay: Relay

    def batch(self) -> list[str]:
        """The tasks that the next batch is sent for."""
        self.broker.sent.clear()
        self.relay._drain()
        return list(self.broker.sent)

    def unsent(self) -> int:
        """How many events still wait."""
        statement = select(func.count()).where(Event.sent_at.is_(None))
        return int(self.stack.run(lambda uow: uow.session.execute(statement).scalar_one()))


@pytest.fixture
def relaying(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Relaying:
    broker, celery = Broker(), Celery("test", set_as_current=False)
    monkeypatch.setattr(celery, "send_task", broker.send_task)
    return Relaying(stack, broker, Relay(Control(stack.settings, stack.sessions, celery)))


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def test_a_batch_takes_two_statements_however_many_events_it_holds(
    stack: Stack, relaying: Relaying, member: Caller
) -> None:
    for count in (1, 20):
        for _ in range(count):
            submit(member)
        with counted(stack) as statements:
            assert relaying.batch() == [PLAN]
        assert len(statements) == 2, statements  # the claim; whether a cycle waits already
        assert relaying.unsent() == 0


def test_no_cycle_is_asked_for_while_one_waits_its_turn(stack: Stack, relaying: Relaying, member: Caller) -> None:
    waiting = lock_number(f"{LOCK}/waiting")
    with stack.sessions() as other:
        other.execute(select(func.pg_advisory_xact_lock(waiting)))
        submit(member)
        assert relaying.batch() == []
        other.rollback()
    assert relaying.unsent() == 0
    submit(member)
    assert relaying.batch() == [PLAN]


def test_who_looks_whether_a_cycle_waits_keeps_none_from_waiting(
    stack: Stack, relaying: Relaying, member: Caller
) -> None:
    submit(member)
    relaying.batch()
    free = select(func.pg_try_advisory_xact_lock(lock_number(f"{LOCK}/waiting")))
    assert stack.run(lambda uow: uow.session.execute(free).scalar_one())


def test_what_the_broker_did_not_take_is_sent_later(relaying: Relaying, member: Caller) -> None:
    submit(member)
    relaying.broker.down = True
    with pytest.raises(BrokerDown):
        relaying.batch()
    assert relaying.unsent() == 1
    relaying.broker.down = False
    assert relaying.batch() == [PLAN]


def test_only_the_end_of_a_job_that_others_wait_for_sends_somebody_to_look_for_them(
    stack: Stack, world: World, relaying: Relaying, member: Caller
) -> None:
    node = FakeNode.join(stack, world)
    submit(member)
    spec = start(stack, node)
    relaying.batch()
    node.succeed(spec)
    assert relaying.batch() == [PLAN]
    job = submit(member)
    submit(member, depends_on=[{"job": job["id"]}])
    spec = start(stack, node)
    relaying.batch()
    node.succeed(spec)
    assert sorted(relaying.batch()) == [RELEASE, PLAN]
