"""Logs that many follow at once: each hears every line once, whoever else listens, and costs no reading of their own."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import thread_time
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import event, update
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session

from app.core.tables import Base
from app.jobs import feeds, following
from app.jobs.logs import LogFilter, drop_old
from app.jobs.models import Replica
from tests.support.following import Running
from tests.support.stack import Stack
from tests.support.world import World
from trellis import wire
from trellis.errors import TrellisError


@pytest.fixture
def job(stack: Stack, world: World) -> Running:
    return Running(stack, world)


class Listener:
    """One who follows in a thread of their own."""

    def __init__(self, job: Running, query: str = "", *, slow: threading.Event | None = None) -> None:
        self.heard: list[tuple[str, str, Any]] = []
        self.begun, self._slow = threading.Event(), slow
        self.error: TrellisError | None = None
        self._thread = threading.Thread(target=self._listen, args=(job, query), daemon=True)
        self._thread.start()
        assert self.begun.wait(20)

    def _listen(self, job: Running, query: str) -> None:
        try:
            for message in job.follow(query):
                self.heard.append(message)
                self.begun.set()
                if self._slow:
                    self._slow.wait(20)
        except TrellisError as error:
            self.error = error

    def texts(self) -> list[str]:
        """What it heard once its stream has ended."""
        self._thread.join(30)
        assert not self._thread.is_alive()
        return [data["text"] for kind, _, data in self.heard if kind == "log"]


def test_all_followers_of_a_job_hear_all_of_it_once(job: Running) -> None:
    job.print("first")
    listeners = [Listener(job) for _ in range(20)]
    for number in range(30):
        job.print(f"line {number}")
    job.end()
    for listener in listeners:
        assert listener.texts() == ["first", *(f"line {number}" for number in range(30))]
        assert listener.heard[-1][0] == "end"


def test_those_who_come_while_lines_come_miss_none_and_hear_none_twice(job: Running) -> None:
    job.print("first")
    listeners = [Listener(job)]
    for number in range(60):
        job.print(f"line {number}")
        if number % 6 == 0:
            listeners.append(Listener(job))
    job.end()
    for listener in listeners:
        assert listener.texts() == ["first", *(f"line {number}" for number in range(60))]


def test_who_asks_for_other_lines_hears_those_alone(job: Running) -> None:
    job.print("first")
    job.print("first", stream="e")
    everything, errors, some = Listener(job), Listener(job, "&stream=stderr"), Listener(job, "&grep=first|4%24")
    for number in range(10):
        job.print(f"out {number}")
        job.print(f"err {number}", stream="e")
    job.end()
    assert errors.texts() == ["first", *(f"err {number}" for number in range(10))]
    assert some.texts() == ["first", "first", "out 4", "err 4"]
    assert len(everything.texts()) == 22


def test_the_place_behind_a_live_line_is_a_place_to_go_on_from(job: Running) -> None:
    job.print("first")
    listener = Listener(job, "&grep=i")
    for number in range(20):
        job.print(f"line {number}", "dull")
    job.end()
    listener.texts()
    for at in (1, 7, 19):
        rest = [data["text"] for kind, _, data in job.follow("&grep=i", listener.heard[at][1]) if kind == "log"]
        assert rest == [f"line {number}" for number in range(at, 20)]


def test_a_slow_follower_is_caught_up_from_the_database_and_holds_up_nobody(
    job: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "UNREAD_BYTES", 2000)
    job.print("first")
    goes_on = threading.Event()
    slow, quick = Listener(job, slow=goes_on), Listener(job)
    for number in range(100):
        job.print(f"line {number}")
    job.end()
    expected = ["first", *(f"line {number}" for number in range(100))]
    assert quick.texts() == expected
    goes_on.set()
    assert slow.texts() == expected


def test_a_job_that_prints_without_end_holds_up_no_other(
    job: Running, stack: Stack, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "_CHUNKS", feeds._CHUNKS.limit(3))
    monkeypatch.setattr(feeds, "_CHUNKS_AT_ONCE", 3)
    job.print("first")
    listener = Listener(job)
    for number in range(40):
        job.print(f"line {number}")
    job.end()
    assert listener.texts() == ["first", *(f"line {number}" for number in range(40))]


def test_a_right_that_was_taken_back_ends_the_stream(
    job: Running, stack: Stack, monkeypatch: pytest.MonkeyPatch, world: World
) -> None:
    monkeypatch.setattr(following, "ASK_AGAIN_S", 0.05)
    job.print("first")
    listener = Listener(job)
    membership = Base.metadata.tables["memberships"]
    stack.run(lambda uow: uow.session.execute(membership.delete().where(membership.c.user_id == world.member.id)))
    listener._thread.join(20)
    assert not listener._thread.is_alive()
    assert listener.error is not None
    assert listener.error.code == "not_found"


@contextmanager
def counted(stack: Stack) -> Iterator[list[str]]:
    """The statements that read chunks."""
    seen: list[str] = []

    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "FROM log_chunks" in statement:
            seen.append(statement)

    engine = stack.app.extensions["engine"]
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_a_line_is_read_once_for_all_who_follow(job: Running, stack: Stack) -> None:
    job.print("first")
    listeners = [Listener(job) for _ in range(20)]
    stack.wait_until(lambda: sum(len(some) for feed in _feeds(stack) for some in feed.followers.values()) == 20)
    with counted(stack) as readings:
        for number in range(10):
            job.print(f"line {number}")
            stack.wait_until(lambda number=number: all(len(one.heard) == number + 2 for one in listeners))  # type: ignore[misc]
    job.end()
    for listener in listeners:
        listener.texts()
    assert len(readings) <= 10 + 20, "20 as each catches up once when it begins"


def test_nothing_is_left_when_the_last_follower_has_gone(job: Running, stack: Stack) -> None:
    job.print("first")
    listeners = [Listener(job) for _ in range(3)]
    job.end()
    for listener in listeners:
        listener.texts()
    stack.wait_until(lambda: not list(_feeds(stack)))


def test_nothing_is_left_of_a_follower_that_the_database_had_no_connection_for(
    job: Running, stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = stack.app.extensions["feeds"]
    job.print("first")
    with monkeypatch.context() as patch:
        patch.setattr(kept, "_sessions", no_connection)
        with pytest.raises(PoolTimeout), kept.followed(UUID(job.id), LogFilter()):
            pass
    assert (kept._feeds, dict(kept._listener._hearers)) == ({}, {})


def no_connection() -> Session:
    raise PoolTimeout


def _feeds(stack: Stack) -> "list[feeds._Feed]":
    return list(stack.app.extensions["feeds"]._feeds.values())


def test_lines_that_are_looked_for_are_found_in_the_tail_too(job: Running) -> None:
    job.print(*(f"step {number}: loss {number / 7:.2f}" for number in range(200)))
    found: Callable[[str], list[str]] = lambda query: [  # noqa: E731
        line["text"] for line in job.member.get(f"/jobs/{job.id}/logs?{query}").json["lines"]
    ]
    assert found("grep=step+19.:") == [f"step {n}: loss {n / 7:.2f}" for n in range(190, 200)]
    assert found("grep=(?i)STEP&tail=1") == ["step 199: loss 28.43"]
    assert found("grep=nowhere") == []


def test_a_log_is_read_from_so_long_ago_on(job: Running, stack: Stack) -> None:
    now_us = int(stack.run(lambda uow: uow.clock.now()).timestamp() * 1e6)
    old, new = f"{now_us - 600_000_000} o old\n", f"{now_us - 5_000_000} o new\n"
    job.node.ship(logs=(wire.LogChunk(job.spec.replica_id, job.spec.fence, 0, old + new),))
    job.end()
    assert [line["text"] for line in job.member.get(f"/jobs/{job.id}/logs?since=1m").json["lines"]] == ["new"]
    assert [data["text"] for kind, _, data in job.follow("&since=1.5m") if kind == "log"] == ["new"]
    assert len(job.member.get(f"/jobs/{job.id}/logs?since=2h").json["lines"]) == 2
    for wrong in ("1y", "soon", "-1m", "9999999999m", "999999d"):
        assert job.member.get(f"/jobs/{job.id}/logs?since={wrong}").status == 422


def test_what_was_printed_long_ago_is_forgotten_and_what_is_left_is_read(job: Running, stack: Stack) -> None:
    now_us = int(stack.run(lambda uow: uow.clock.now()).timestamp() * 1e6)
    old, new = f"{now_us - 3 * 86_400_000_000} o old\n", f"{now_us} o new\n"
    node, spec = job.node, job.spec
    node.ship(logs=(wire.LogChunk(spec.replica_id, spec.fence, 0, old),))
    node.ship(logs=(wire.LogChunk(spec.replica_id, spec.fence, len(old), new),))
    assert not stack.run(lambda uow: drop_old(uow, 2))
    assert len(job.member.get(f"/jobs/{job.id}/logs").json["lines"]) == 2, (
        "the node's clock may be wrong: the replica is new"
    )
    age = update(Replica).values(created_at=Replica.created_at - timedelta(days=3))
    stack.run(lambda uow: uow.execute(age))
    stack.run(lambda uow: drop_old(uow, 2))
    job.end()
    assert [data["text"] for kind, _, data in job.follow() if kind == "log"] == ["new"]
    assert [line["text"] for line in job.member.get(f"/jobs/{job.id}/logs?tail=5").json["lines"]] == ["new"]


def test_the_last_lines_that_match_are_found_far_back(job: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jobs.logs.LARGEST_READ", 2000)
    job.print("error: the first", "error: the second")
    for _ in range(20):
        job.print(*["all is well " + "." * 50] * 20)
    job.end()
    found = job.member.get(f"/jobs/{job.id}/logs?tail=1&grep=error").json
    assert [line["text"] for line in found["lines"]] == ["error: the second"]


@pytest.mark.parametrize(
    "expression",
    [
        "(",
        "(?=x)",
        "(a)\\1",
        "((a{1,100}){1,100}){1,100}",
        "[",
        "*",
        "a" * 201,
        "",
        "(" * 100 + ")" * 100 + "(",
        "\\p{Nope}",
    ],
)
def test_an_expression_that_can_t_be_is_refused_by_field(job: Running, expression: str) -> None:
    answer = job.member.get(f"/jobs/{job.id}/logs", query_string={"grep": expression})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/grep"), answer.text


def test_an_expression_that_is_slow_elsewhere_is_not_slow_here(job: Running) -> None:
    job.print(*["a" * 60_000] * 20)
    began = thread_time()
    answer = job.member.get(f"/jobs/{job.id}/logs", query_string={"grep": "^(a+)+$|(a|aa)+$|(.*a){20}b"})
    assert len(answer.json["lines"]) == 20
    assert thread_time() - began < 5
