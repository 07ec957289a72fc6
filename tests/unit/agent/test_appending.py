"""Files on a disk that is full for a while."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import journal
from agent.appending import WAITING_BYTES, Lines, drop_torn
from agent.journal import Journal
from agent.output import OutputLog
from trellis.vocabulary import ReplicaState
from trellis.wire import Report


class Disk:
    """Takes `room` bytes, then says that it is full."""

    room = 10**9

    def write(self, fd: int, block: bytes) -> int:
        if self.room == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        part = block[: self.room]
        self.room -= len(part)
        return self.real(fd, part)

    real = staticmethod(os.write)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr(os, "write", disk.write)
    yield disk
    disk.room = 10**9


def test_lines_for_which_there_is_no_room_wait_and_none_is_torn(tmp_path: Path, disk: Disk) -> None:
    lines = Lines(tmp_path / "file")
    disk.room = 3
    assert lines.append(b"first\n")
    assert lines.append(b"second\n")
    assert not lines.settle()
    disk.room = 100
    assert lines.append(b"third\n")
    assert (tmp_path / "file").read_text() == "first\nsecond\nthird\n"


def test_more_lines_than_may_wait_are_dropped_whole_and_said_to_be(tmp_path: Path, disk: Disk) -> None:
    lines = Lines(tmp_path / "file")
    disk.room = 0
    assert lines.append(b"x" * (WAITING_BYTES - 10) + b"\n")
    assert not lines.append(b"too much to keep\n")
    assert lines.append(b"small\n")
    disk.room = 10**9
    assert lines.settle()
    assert (tmp_path / "file").read_bytes().split(b"\n")[1:] == [b"small", b""]


def test_a_full_disk_costs_no_output_that_can_wait_and_the_log_says_what_it_did_cost(
    tmp_path: Path, disk: Disk
) -> None:
    log = OutputLog(tmp_path / "log")
    log.write("o", b"before\n")
    disk.room = 0
    log.write("o", b"kept\n")
    for _ in range(20):
        log.write("o", b"x" * 60_000 + b"\n")
    log.write("o", b"lost: " + b"x" * 60_000 + b"\n")
    disk.room = 10**9
    assert log.settle()
    log.write("o", b"after\n")
    texts = [line.split(" ", 2)[2][:60] for line in (tmp_path / "log").read_text().splitlines()]
    assert texts[:2] == ["before", "kept"]
    assert texts[-2:] == ["the disk was full: lines before this one were dropped", "after"]
    assert set(texts[2:-2]) == {"x" * 60}


def test_a_report_waits_for_room_and_is_written_once(tmp_path: Path, disk: Disk) -> None:
    book = Journal(tmp_path / "journal")
    disk.room = 20
    book.append(Report("r", 1, 0, ReplicaState.STARTING, "2026-01-01T00:00:00+00:00"))
    book.append(Report("r", 1, 0, ReplicaState.RUNNING, "2026-01-01T00:00:00+00:00"))
    assert not book.settle()
    assert journal.read(tmp_path / "journal", 0) == []
    disk.room = 10_000
    assert book.settle()
    assert [entry.report.seq for entry in journal.read(tmp_path / "journal", 0)] == [1, 2]


def test_lines_that_are_given_up_leave_no_part_of_one_behind(tmp_path: Path, disk: Disk) -> None:
    lines = Lines(tmp_path / "file")
    assert lines.append(b"whole\n")
    disk.room = 3
    assert lines.append(b"torn\n")
    assert (tmp_path / "file").read_bytes() == b"whole\ntor"
    lines.give_up()
    assert (tmp_path / "file").read_bytes() == b"whole\n"
    assert lines.settle()


def test_of_a_file_whose_writer_was_killed_the_whole_lines_are_kept(tmp_path: Path) -> None:
    file = tmp_path / "file"
    drop_torn(file)
    for before, after in ((b"", b""), (b"to", b""), (b"a\nb\n", b"a\nb\n"), (b"a\n" + b"x" * 70_000, b"a\n")):
        file.write_bytes(before)
        drop_torn(file)
        assert file.read_bytes() == after
