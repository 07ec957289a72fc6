"""Cycles with real rows: turns, bounds, the net below lost messages."""

import threading
import time

import pytest
from sqlalchemy import text

from app.core.locks import take_turn
from app.core.uow import UnitOfWork
from app.scheduling.cycle import is_due
from scheduler.config import Config
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Caller, Stack
from tests.support.world import World


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def submit(caller: Caller, count: int = 1, **body: object) -> list[str]:
    answer = caller.post("/jobs/batch", {"jobs": [{"command": ["true"], **body}] * count})
    return [job["id"] for job in answer.json["items"]]


def test_a_cycle_goes_on_where_it_stopped_at_its_bounds(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(cpus=1000, memory_bytes=4096 << 30))
    most = Config().max_placements
    submit(member, most + 10)
    outcomes = [stack.run(stack.cycle) for _ in range(3)]
    assert [outcome.started for outcome in outcomes] == [most, 10, 0]
    assert [outcome.more for outcome in outcomes] == [True, False, False]


def test_with_one_turn_running_and_one_waiting_a_third_leaves_at_once(stack: Stack) -> None:
    running, release = threading.Event(), threading.Event()
    taken: list[bool] = []

    def first(uow: UnitOfWork) -> None:
        assert take_turn(uow, "test", lambda: None)
        running.set()
        release.wait(60)

    def second(uow: UnitOfWork) -> None:
        taken.append(take_turn(uow, "test", lambda: None))

    threads = [threading.Thread(target=stack.run, args=(act,)) for act in (first, second)]
    threads[0].start()
    assert running.wait(10)
    threads[1].start()
    waiting = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    while stack.run(lambda uow: uow.session.execute(waiting).scalar_one()) == 0:
        assert threads[1].is_alive()
    began = time.monotonic()
    assert stack.run(lambda uow: take_turn(uow, "test", lambda: None)) is False
    assert time.monotonic() - began < 5
    release.set()
    for thread in threads:
        thread.join(20)
    assert taken == [True]


def test_a_turn_that_could_not_be_waited_for_leaves_no_lock_behind(stack: Stack) -> None:
    running, release = threading.Event(), threading.Event()

    def first(uow: UnitOfWork) -> None:
        take_turn(uow, "test", lambda: None)
        running.set()
        release.wait(60)

    def impatient(uow: UnitOfWork) -> None:
        uow.session.execute(text("SET LOCAL lock_timeout = '50ms'"))
        take_turn(uow, "test", lambda: None)

    thread = threading.Thread(target=stack.run, args=(first,))
    thread.start()
    assert running.wait(10)
    (outcome,) = stack.race(impatient, times=1)
    assert isinstance(outcome, Exception)
    release.set()
    thread.join(20)
    assert stack.run(lambda uow: take_turn(uow, "test", lambda: None)) is True


def test_a_cycle_is_due_after_news_and_not_again_once_it_looked(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(cpus=1))
    submit(member, 2)
    assert stack.run(is_due)
    stack.run(stack.cycle)
    long_ago = text("UPDATE events SET at = at - interval '1 minute'")
    stack.run(lambda uow: uow.session.execute(long_ago))
    assert not stack.run(is_due)  # one runs, one waits, nothing is new
    submit(member)
    assert stack.run(is_due)


def test_a_verdict_is_kept_once_a_class_and_goes_with_it(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(cpus=4))
    ids = submit(member, 20, resources={"cpus": 4, "memory": "1GiB"})
    submit(member, 1, resources={"cpus": 64})
    stack.run(stack.cycle)
    count = text("SELECT count(*) FROM class_verdicts")
    assert stack.run(lambda uow: uow.session.execute(count).scalar_one()) == 2
    why = [member.get(f"/jobs/{job}").json["why"] for job in (ids[1], ids[19])]
    assert why[0] == why[1]
    assert "its queue" not in why[0]  # the order is the planner's to tell, of a whole queue
    for job in ids:
        member.patch(f"/jobs/{job}/status", {"action": "cancel"})
    stack.run(stack.cycle)
    assert stack.run(lambda uow: uow.session.execute(count).scalar_one()) == 1


def test_a_paused_queue_starts_nothing_and_says_so(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world)
    admin = stack.client(world.admin)
    queue = next(q["id"] for q in admin.get("/queues").json["items"] if q["name"] == "default")
    assert admin.put(f"/queues/{queue}/pause").json["state"] == "paused"
    (job,) = submit(member)
    assert stack.run(stack.cycle).started == 0
    assert "paused" in member.get(f"/jobs/{job}").json["why"]
    assert admin.put(f"/queues/{queue}/resume").json["state"] == "open"
    assert stack.run(stack.cycle).started == 1


def test_a_gpu_type_is_matched_by_its_short_name(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description("cpu"))
    FakeNode.join(stack, world, a_description("gpu", gpus=2))
    submit(member, 1, resources={"gpus": 2, "gpu_type": "h100"})
    (never,) = submit(member, 1, resources={"gpus": 1, "gpu_type": "b200"})
    assert stack.run(stack.cycle).started == 1
    assert "B200" in member.get(f"/jobs/{never}").json["why"]
