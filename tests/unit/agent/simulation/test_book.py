"""What a host plays, on disk."""

from pathlib import Path

import pytest

from agent.executors.simulated import SimulatedExecutor
from agent.simulation import book as books
from agent.simulation.book import Book
from agent.simulation.performance import Performance
from tests.unit.agent.simulation.test_performance import perform
from trellis.simulation import Simulation
from trellis.vocabulary import StopReason

EXECUTOR = SimulatedExecutor(Simulation())


def opened(path: Path) -> list[str]:
    book = Book(path, EXECUTOR)
    found = book.open()
    book.close()
    return [one.part.replica_id for one in found]


def some(*names: str) -> list[Performance]:
    return [perform({"RUN_TIME": "1h"}, replica_id=name) for name in names]


def test_what_is_not_over_is_found_again(tmp_path: Path) -> None:
    book, plays = Book(tmp_path / "book", EXECUTOR), some("a", "b")
    assert book.open() == []
    book.note(plays, plays)
    plays[0].wish(StopReason.STALE, 0, 1001.0)
    book.note(plays[:1], plays[1:])
    book.close()
    assert opened(tmp_path / "book") == ["b"]
    assert opened(tmp_path / "book") == ["b"]


def test_a_torn_last_line_costs_that_line_alone(tmp_path: Path) -> None:
    book, plays = Book(tmp_path / "book", EXECUTOR), some("a", "b")
    book.open()
    book.note(plays, plays)
    book.close()
    whole = (tmp_path / "book").read_bytes()
    (tmp_path / "book").write_bytes(whole[:-10])
    assert opened(tmp_path / "book") == ["a"]


def test_a_machine_that_was_restarted_has_lost_all(tmp_path: Path) -> None:
    book, plays = Book(tmp_path / "book", EXECUTOR), some("a")
    book.open()
    book.note(plays, plays)
    book.close()
    _, _, rest = (tmp_path / "book").read_text().partition("\n")
    (tmp_path / "book").write_text(f"another-boot\n{rest}")
    assert opened(tmp_path / "book") == []


def test_a_book_that_grew_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(books, "_WORTH_WRITING_ANEW_BYTES", 10_000)
    book, plays = Book(tmp_path / "book", EXECUTOR), some("a", "b")
    book.open()
    for _ in range(100):
        book.note(plays, plays)
    assert (tmp_path / "book").stat().st_size < 13_000
    book.close()
    assert sorted(opened(tmp_path / "book")) == ["a", "b"]
