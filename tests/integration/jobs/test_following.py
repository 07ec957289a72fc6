"""Following a log: every line once, in order, and the end."""

import threading
from typing import Any

import pytest

from app.jobs import following
from tests.support.following import Running
from tests.support.stack import Stack
from tests.support.world import World
from trellis import wire


@pytest.fixture
def job(stack: Stack, world: World) -> Running:
    return Running(stack, world)


def test_a_follower_hears_every_line_once_and_then_the_end(job: Running) -> None:
    job.print("one", "two")
    heard: list[tuple[str, str, Any]] = []
    begun = threading.Event()

    def listen() -> None:
        for message in job.follow():
            heard.append(message)
            begun.set()

    thread = threading.Thread(target=listen)
    thread.start()
    assert begun.wait(10)
    for number in range(20):
        job.print(f"line {number}")
    job.end()
    thread.join(20)
    assert not thread.is_alive()
    lines = [data["text"] for kind, _, data in heard if kind == "log"]
    assert lines == ["one", "two", *(f"line {number}" for number in range(20))]
    assert heard[-1][0] == "end"
    assert heard[-1][2]["state"] == "succeeded"


@pytest.mark.parametrize("after", [0, 3, 9])
def test_a_follower_that_comes_back_goes_on_right_behind_its_last_line(job: Running, after: int) -> None:
    job.print(*(f"line {number}" for number in range(10)))
    job.end()
    first = [message for message in job.follow() if message[0] == "log"]
    rest = [message for message in job.follow(last_event_id=first[after][1]) if message[0] == "log"]
    assert [data["text"] for _, _, data in rest] == [f"line {number}" for number in range(after + 1, 10)]


def test_a_tail_is_followed_without_what_came_before_it(job: Running) -> None:
    job.print(*(f"line {number}" for number in range(100)))
    job.end()
    heard = [message for message in job.follow("&tail=2") if message[0] == "log"]
    assert [data["text"] for _, _, data in heard] == ["line 98", "line 99"]
    again = [message for message in job.follow(last_event_id=heard[0][1]) if message[0] == "log"]
    assert [data["text"] for _, _, data in again] == ["line 99"]


def test_a_stream_is_chosen_and_the_other_left_out(job: Running) -> None:
    job.print("out")
    job.print("err", stream="e")
    job.end()
    heard = [data["text"] for kind, _, data in job.follow("&stream=stderr") if kind == "log"]
    assert heard == ["err"]


def test_a_log_longer_than_one_reading_is_read_to_its_end(job: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.jobs.logs.LARGEST_READ", 2000)
    for number in range(30):
        job.print(*(f"{number}-{i} {'x' * 50}" for i in range(5)))
    job.end()
    assert len([1 for kind, _, _ in job.follow() if kind == "log"]) == 150
    texts, cursor = [], ""
    while True:
        page = job.member.get(f"/jobs/{job.id}/logs?cursor={cursor}").json
        texts += [line["text"] for line in page["lines"]]
        cursor = page["cursor"]
        if not page["more"]:
            break
    assert len(texts) == len(set(texts)) == 150


def test_a_quiet_job_keeps_its_followers_connection_alive(job: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "KEEP_ALIVE_S", 0.05)
    client = job.stack.app.test_client()
    path = f"/api/v1/jobs/{job.id}/logs?follow=true"
    response = client.get(path, headers=job.member.headers, buffered=False)
    parts = iter(response.response)
    assert [next(parts) for _ in range(3)] == [b": keep-alive\n\n"] * 3
    response.close()


def test_a_log_may_hold_whatever_a_job_can_print(job: Running) -> None:
    odd = ["", "é\u2028\x85 \x1b[31mred", "data: x", "a\rb", " " * 5, "1 o not a stamp"]
    job.print(*odd)
    job.end()
    assert [data["text"] for kind, _, data in job.follow() if kind == "log"] == odd


def test_lines_that_make_no_sense_are_shown_as_they_are(job: Running) -> None:
    chunk = wire.LogChunk(job.spec.replica_id, job.spec.fence, 0, "1 o good\nnonsense\n99999999999999999 o late\n")
    job.node.ship(logs=(chunk,))
    assert len(job.member.get(f"/jobs/{job.id}/logs").json["lines"]) == 3
    torn = wire.LogChunk(job.spec.replica_id, job.spec.fence, len(chunk.text), "1 o no newline")
    assert job.node.send(wire.Shipment(logs=(torn,))).status == 422
