"""Reports on disk."""

from pathlib import Path

from agent import journal
from agent.journal import Journal
from trellis.vocabulary import Cause, ReplicaState
from trellis.wire import Report


def _report(state: ReplicaState) -> Report:
    return Report("r", 1, 0, state, "2026-01-01T00:00:00+00:00", Cause.EXIT_CODE if state == "failed" else None)


def test_reports_are_numbered_from_one_and_read_back_from_any_offset(tmp_path: Path) -> None:
    book = Journal(tmp_path / "journal")
    for state in (ReplicaState.STARTING, ReplicaState.RUNNING, ReplicaState.FAILED):
        book.append(_report(state))
    entries = journal.read(tmp_path / "journal", 0)
    assert [(entry.report.seq, entry.report.state, entry.ended) for entry in entries] == [
        (1, "starting", False),
        (2, "running", False),
        (3, "failed", True),
    ]
    assert journal.read(tmp_path / "journal", entries[1].end) == entries[2:]


def test_a_torn_line_is_not_read_and_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path).append(_report(ReplicaState.STARTING))
    with path.open("ab") as file:
        file.write(b'{"replica_id": "r", "fen')
    assert len(journal.read(path, 0)) == 1
    Journal.resume(path).append(_report(ReplicaState.LOST))
    assert [entry.report.seq for entry in journal.read(path, 0)] == [1, 2]


def test_a_journal_that_was_never_begun_can_be_resumed(tmp_path: Path) -> None:
    Journal.resume(tmp_path / "journal").append(_report(ReplicaState.LOST))
    assert journal.read(tmp_path / "journal", 0)[0].report.seq == 1


def test_noughts_that_a_power_failure_left_are_no_report(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    Journal(path).append(_report(ReplicaState.STARTING))
    with path.open("ab") as file:
        file.write(b"\0" * 100 + b"\n")
    assert len(journal.read(path, 0)) == 1
    Journal.resume(path).append(_report(ReplicaState.LOST))
    assert [entry.report.seq for entry in journal.read(path, 0)] == [1, 2]
