"""Files on a disk that is full for a while."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent import journal
from agent.appending import Lines
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


def test_a_line_that_was_torn_is_completed_before_the_next(tmp_path: Path, disk: Disk) -> None:
    lines = Lines(tmp_path / "file")
    disk.room = 3
    assert lines.append(b"first\n")
    assert not lines.append(b"second\n")
    disk.room = 100
    assert lines.append(b"third\n")
    assert (tmp_path / "file").read_text() == "first\nthird\n"


def test_of_many_lines_those_that_fit_are_kept_whole(tmp_path: Path, disk: Disk) -> None:
    lines = Lines(tmp_path / "file")
    disk.room = 6
    assert not lines.append(b"one\ntwo\nthree\n")
    disk.room = 100
    assert lines.append(b"four\n")
    assert (tmp_path / "file").read_text() == "one\ntwo\nfour\n"


def test_a_full_disk_costs_output_but_ends_no_job_and_the_log_says_so(tmp_path: Path, disk: Disk) -> None:
    log = OutputLog(tmp_path / "log")
    log.write("o", b"before\n")
    disk.room = 0
    log.write("o", b"lost\n")
    disk.room = 1000
    log.write("o", b"after\n")
    texts = [line.split(" ", 2)[2] for line in (tmp_path / "log").read_text().splitlines()]
    assert texts == ["before", "the disk was full: lines before this one were dropped", "after"]


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
