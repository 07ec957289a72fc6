"""Metric points from a socket to a file."""

import errno
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from agent import metering
from agent.holes import free_front
from agent.layout import write_json
from agent.metering import POINTS_A_SECOND, Meter


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_points_are_numbered_and_can_be_read_on_from_an_offset(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    meter = Meter(tmp_path / "metrics", pair[0])
    for step in range(5):
        pair[1].send(json.dumps({"name": "loss", "value": step / 2, "step": step}).encode())
    assert meter.read()
    first = metering.read(tmp_path / "metrics", 0, 2, "r", 1)
    rest = metering.read(tmp_path / "metrics", first[-1].end, 100, "r", 1)
    assert [entry.point.seq for entry in (*first, *rest)] == [1, 2, 3, 4, 5]
    assert rest[-1].end == (tmp_path / "metrics").stat().st_size


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"no json", b"[]", b"null", b"1", b"{}", b'{"name":"a"}', b'{"name":"","value":1}', b'{"name":1,"value":1}',
        b'{"name":"a","value":true}', b'{"name":"a","value":NaN}', b'{"name":"a","value":Infinity}',
        b'{"name":"a","value":1e999}', b'{"name":"a","value":"1"}', b'{"name":"a\\n","value":1}',
        b'{"name":"a","value":1,"step":1.5}', b'{"name":"a","value":1,"step":true}', b"\xff\xfe", b"[" * 4000,
        b'{"name":"a","value":1,"step":9007199254740993}', b'{"name":"a","value":1' + b"0" * 400 + b"}",
        b'{"name":"trellis/cpu_cores","value":1}',
        b'{"name":"' + b"a" * 129 + b'","value":1}',
    ],
)  # fmt: skip
def test_what_is_no_point_is_counted_and_not_kept(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path, message: bytes
) -> None:
    meter = Meter(tmp_path / "metrics", pair[0])
    pair[1].send(message)
    assert not meter.read()
    assert meter.refused == 1
    assert not (tmp_path / "metrics").exists()


def test_points_over_the_limit_are_counted_and_dropped(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.metering.time.monotonic", lambda: 7.0)
    meter = Meter(tmp_path / "metrics", pair[0])
    for _ in range(POINTS_A_SECOND + 5):
        pair[1].send(b'{"name":"a","value":1}')
        meter.read()
    assert meter.dropped == 5
    assert len((tmp_path / "metrics").read_text().splitlines()) == POINTS_A_SECOND


def test_a_job_that_never_stops_sending_does_not_keep_the_supervisor(tmp_path: Path) -> None:
    class Endless:
        taken = 0

        def recv(self, size: int) -> bytes:
            self.taken += 1
            assert self.taken < 100_000, "it reads for ever"
            return b'{"name":"a","value":1}'

    endless = Endless()
    Meter(tmp_path / "metrics", cast("socket.socket", endless)).read()
    assert endless.taken < 1000


def test_points_that_the_disk_has_no_room_for_wait_and_leave_no_gap_and_no_torn_line(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = Meter(tmp_path / "metrics", pair[0])
    real = os.write
    room = [1000, 7, 0, 0, 1000, 1000]
    monkeypatch.setattr(os, "write", lambda fd, block: _write(real, room.pop(0), fd, block))
    for step in range(4):
        pair[1].send(json.dumps({"name": "loss", "value": step}).encode())
        meter.read()
    monkeypatch.undo()
    kept = metering.read(tmp_path / "metrics", 0, 100, "r", 1)
    assert [entry.point.seq for entry in kept] == [1, 2, 3, 4]
    assert [entry.point.value for entry in kept] == [0.0, 1.0, 2.0, 3.0]


def _write(real: Callable[[int, bytes], int], room: int, fd: int, block: bytes) -> int:
    if not room:
        raise OSError(errno.ENOSPC, "No space left on device")
    return real(fd, block[:room])


def test_the_platforms_own_points_stand_in_line_with_the_jobs_and_are_never_too_many(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.metering.time.monotonic", lambda: 7.0)
    meter = Meter(tmp_path / "metrics", pair[0])
    pair[1].send(b'{"name":"a","value":1}')
    meter.read()
    meter.note({"trellis/cpu_cores": 0.5})
    entries = metering.read(tmp_path / "metrics", 0, 10, "r", 1)
    assert [(e.point.seq, e.point.name) for e in entries] == [(1, "a"), (2, "trellis/cpu_cores")]


def test_no_more_names_are_kept_than_a_replica_may_have(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    meter = Meter(tmp_path / "metrics", pair[0])
    for number in range(metering.MOST_NAMES + 10):
        pair[1].send(json.dumps({"name": f"m{number}", "value": 1}).encode())
        meter.read()
    pair[1].send(json.dumps({"name": "m0", "value": 2}).encode())
    assert meter.read()
    kept = metering.read(tmp_path / "metrics", 0, 1000, "r", 1)
    assert (len(kept), kept[-1].point.value) == (metering.MOST_NAMES + 1, 2)
    assert [f"such as m{metering.MOST_NAMES}, are dropped" in word for word in meter.news()] == [True]
    assert list(meter.remarks()) == []  # once


def test_what_waits_to_be_shipped_is_bounded_and_taken_again_once_it_was(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metering, "SPOOL_BYTES", 200)
    seconds = iter(range(100))
    monkeypatch.setattr("agent.metering.time.monotonic", lambda: next(seconds))
    meter, point = Meter(tmp_path / "metrics", pair[0], shipped=tmp_path / "shipped"), b'{"name":"a","value":1}'

    def send() -> bool:
        pair[1].send(point)
        return meter.read()

    while send():
        pass
    size = (tmp_path / "metrics").stat().st_size
    assert (200 < size < 400, meter.dropped) == (True, 1)
    write_json(tmp_path / "shipped", {"log": 0, "metrics": size, "reports": 0})
    assert send()
    assert meter.dropped == 1


def test_who_goes_on_with_points_numbers_them_behind_the_last_whatever_was_given_back(
    pair: tuple[socket.socket, socket.socket], tmp_path: Path
) -> None:
    path = tmp_path / "metrics"
    assert metering.last_seq(path) == 0
    meter = Meter(path, pair[0])
    for step in range(300):
        meter.note({"trellis/cpu_cores": float(step)})
    free_front(path, path.stat().st_size)
    assert b"\0" in path.read_bytes()
    assert metering.last_seq(path) == 300
