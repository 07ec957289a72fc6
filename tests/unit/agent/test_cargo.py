"""What of a replica's files is shipped when."""

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import cargo as cargo_module
from agent.cargo import LOG_BYTES, Cargo
from agent.journal import Journal
from agent.layout import ReplicaDir
from agent.metering import Meter
from trellis.vocabulary import ReplicaState
from trellis.wire import Receipt, Report


@pytest.fixture
def replica(tmp_path: Path) -> ReplicaDir:
    return ReplicaDir(tmp_path, "r", 1)


def _tell(replica: ReplicaDir, *states: ReplicaState) -> None:
    book = Journal(replica.journal)
    for state in states:
        book.append(Report("r", 1, 0, state, "2026-01-01T00:00:00+00:00"))


def _receipt(log: int, reports: int) -> Receipt:
    return Receipt({"r": log}, {}, {"r": reports}, ())


def test_the_end_is_held_back_until_the_whole_log_goes_along(replica: ReplicaDir) -> None:
    lines = b"x" * 999 + b"\n"
    replica.log.write_bytes(lines * 300)
    _tell(replica, ReplicaState.STARTING, ReplicaState.RUNNING, ReplicaState.SUCCEEDED)
    cargo = Cargo(replica)
    first = cargo.next_load()
    assert [report.state for report in first.told] == ["starting", "running"]
    assert first.log
    assert len(first.log.text) <= LOG_BYTES
    assert first.log.text.endswith("\n")
    cargo.accept(_receipt(len(first.log.text), 2), first)
    second = cargo.next_load()
    assert [report.state for report in second.told] == ["succeeded"]
    assert second.log
    assert second.log.offset == len(first.log.text)
    cargo.accept(_receipt(300_000, 3), second)
    assert cargo.done


def test_the_end_is_held_back_until_the_artifacts_are_stored(replica: ReplicaDir) -> None:
    replica.artifacts.mkdir(parents=True)
    (replica.artifacts / "model").touch()
    _tell(replica, ReplicaState.STARTING, ReplicaState.SUCCEEDED)
    cargo = Cargo(replica)
    assert [report.state for report in cargo.next_load().told] == ["starting"]
    cargo.ready = True
    assert [report.state for report in cargo.next_load().told] == ["starting", "succeeded"]


def test_what_was_not_received_is_sent_again(replica: ReplicaDir) -> None:
    replica.log.write_text("a\nb\nhalf")
    cargo = Cargo(replica)
    load = cargo.next_load()
    assert load.log
    assert load.log.text == "a\nb\n"
    assert cargo.accept(_receipt(2, 0), load)
    again = cargo.next_load()
    assert again.log
    assert (again.log.offset, again.log.text) == (2, "b\n")
    assert not cargo.accept(_receipt(2, 0), again)


def test_the_next_daemon_goes_on_where_this_one_stopped(replica: ReplicaDir) -> None:
    replica.log.write_text("a\nb\n")
    _tell(replica, ReplicaState.STARTING, ReplicaState.RUNNING)
    cargo = Cargo(replica)
    cargo.accept(_receipt(4, 2), cargo.next_load())
    cargo.save()
    resumed = Cargo.resume(replica)
    assert resumed.state == ReplicaState.RUNNING
    assert not resumed.next_load()


def test_a_note_that_a_power_failure_emptied_means_sending_all_again(replica: ReplicaDir) -> None:
    replica.log.write_text("a\n")
    replica.shipped.touch()
    load = Cargo.resume(replica).next_load()
    assert load.log
    assert load.log.offset == 0


def test_disk_of_points_that_were_shipped_is_given_back(
    replica: ReplicaDir, pair: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cargo_module, "_FREED_BYTES", 4096)
    meter = Meter(replica.metrics, pair[0])
    for step in range(400):
        pair[1].send(json.dumps({"name": "loss", "value": 0.5, "step": step}).encode())
        meter.read()
    cargo = Cargo(replica)
    load = cargo.next_load()
    cargo.accept(Receipt({}, {"r": 300}, {}, ()), load)
    before = replica.metrics.stat()
    cargo.save()
    after = replica.metrics.stat()
    assert after.st_size == before.st_size
    if after.st_blocks == before.st_blocks:
        pytest.skip("this file system gives back no part of a file")
    again = Cargo.resume(replica)
    assert [point.seq for point in again.next_load().points] == list(range(301, 401))
    # How far it was shipped is forgotten: what is still there is sent again, and known there.
    replica.shipped.unlink()
    seqs = [point.seq for point in Cargo.resume(replica).next_load().points]
    assert seqs == list(range(seqs[0], 401))
    assert 1 < seqs[0] <= 301


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def test_a_job_that_makes_something_else_of_its_artifacts_keeps_nothing_of_its_log_back(replica: ReplicaDir) -> None:
    replica.job.mkdir()
    replica.artifacts.write_bytes(b"no folder")
    replica.log.write_bytes(b"1 o a line\n")
    _tell(replica, ReplicaState.RUNNING, ReplicaState.FAILED)
    cargo = Cargo(replica)
    load = cargo.next_load()
    assert load.log is not None
    assert (load.log.text, [report.state for report in load.told]) == ("1 o a line\n", ["running"])
    assert cargo.ended  # and now they are stored, which says that they can't be read
