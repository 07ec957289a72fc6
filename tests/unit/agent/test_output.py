"""Cutting what a job writes into stamped lines."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.output import LINE_BYTES, LineReader, OutputLog


@pytest.fixture
def feed(tmp_path: Path) -> Callable[..., list[str]]:
    def feed(*pieces: bytes, limit_bytes: int = 1 << 20) -> list[str]:
        read_end, write_end = os.pipe2(os.O_NONBLOCK)
        reader = LineReader(read_end, "o", OutputLog(tmp_path / "log", limit_bytes))
        for piece in pieces:
            os.write(write_end, piece)
            reader.read()
        os.close(write_end)
        reader.read_rest()
        os.close(read_end)
        return (tmp_path / "log").read_text().splitlines() if (tmp_path / "log").exists() else []

    return feed


def _texts(lines: list[str]) -> list[str]:
    return [line.split(" ", 2)[2] for line in lines]


def test_each_line_bears_microseconds_and_its_stream(feed: Callable[..., list[str]]) -> None:
    stamp, mark, text = feed(b"hello world\n")[0].split(" ", 2)
    assert (len(stamp), mark, text) == (16, "o", "hello world")


def test_a_line_may_come_in_pieces_and_the_last_without_its_end(feed: Callable[..., list[str]]) -> None:
    assert _texts(feed(b"a", b"b\nc", b"\n\nd")) == ["ab", "c", "", "d"]


def test_no_output_makes_no_file(feed: Callable[..., list[str]]) -> None:
    assert feed() == []


def test_a_long_line_is_cut_between_characters(feed: Callable[..., list[str]]) -> None:
    long = b"x" + "é".encode() * LINE_BYTES
    pieces = [long[at : at + 50_000] for at in range(0, len(long), 50_000)]
    texts = _texts(feed(*pieces, b"\nshort\n"))
    assert "".join(texts[:-1]).encode() == long
    assert texts[-1] == "short"
    assert max(len(text.encode()) for text in texts) <= LINE_BYTES


def test_a_full_log_says_so_once_and_drops_the_rest(feed: Callable[..., list[str]]) -> None:
    lines = feed(b"a" * 50 + b"\n", b"b" * 50 + b"\n", b"c\n", limit_bytes=100)
    assert _texts(lines) == ["a" * 50, "the log is full: what follows was dropped"]
    assert lines[1].split()[1] == "s"
