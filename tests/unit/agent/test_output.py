"""Cutting what a job writes into stamped lines."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.output import LINE_BYTES, Limits, LineReader, OutputLog
from agent.redaction import Redactor


@pytest.fixture
def feed(tmp_path: Path) -> Callable[..., list[str]]:
    def feed(*pieces: bytes, limits: Limits = Limits(), secrets: tuple[str, ...] = ()) -> list[str]:  # noqa: B008
        read_end, write_end = os.pipe2(os.O_NONBLOCK)
        reader = LineReader(read_end, "o", OutputLog(tmp_path / "log", limits, Redactor(secrets)))
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


def test_of_a_log_that_is_full_the_middle_is_cut_and_the_end_is_kept(feed: Callable[..., list[str]]) -> None:
    lines = feed(*[b"%03d\n" % number for number in range(100)], limits=Limits(total=5 * 23, last=40))
    assert _texts(lines) == [
        *(f"{number:03}" for number in range(5)),
        "85 lines of stdout and 0 of stderr (340 bytes) were left out here: the log is full; those after them follow",
        *(f"{number:03}" for number in range(90, 100)),
    ]
    assert lines[5].split()[1] == "s"


def test_what_is_a_little_more_than_fits_is_kept_whole(feed: Callable[..., list[str]]) -> None:
    assert _texts(feed(b"a" * 50 + b"\n", b"b" * 50 + b"\n", b"c\n", limits=Limits(total=100)))[1:] == ["b" * 50, "c"]


class Watch:
    """A clock that stands still until it is moved."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_comes_too_fast_is_cut_until_there_is_room_again(tmp_path: Path) -> None:
    watch = Watch()
    log = OutputLog(tmp_path / "log", Limits(burst=100, per_s=50, last=8), now=watch)
    for number in range(10):
        log.write("o", b"%03d\n" % number)  # 23 bytes, with its stamp
    watch.now = 0.5
    log.write("o", b"010\n")
    assert log.cutting, "not before a second's worth is there"
    watch.now = 1.5
    log.write("o", b"011\n")
    log.rejoin()
    assert _texts((tmp_path / "log").read_text().splitlines()) == [
        "000", "001", "002", "003", "5 lines of stdout and 0 of stderr (20 bytes) were left out here: more than 50 bytes a second came; those after them follow",
        "009", "010", "011",
    ]  # fmt: skip


def test_a_log_takes_no_more_of_the_disk_than_it_may(tmp_path: Path) -> None:
    watch = Watch()
    log = OutputLog(tmp_path / "log", Limits(total=100_000, burst=50_000, per_s=10_000, last=5_000), now=watch)
    for _ in range(20_000):
        watch.now += 0.01
        log.write("o", b"y\n" * 100)
    log.rejoin()
    assert (tmp_path / "log").stat().st_size < 100_000 + 20 * 5_000 * 11


def test_a_secret_is_taken_out_however_it_arrives(feed: Callable[..., list[str]]) -> None:
    secret = "hunter2-hunter2"
    pieces = [secret.encode()[at : at + 1] for at in range(len(secret))]
    assert _texts(feed(b"key=", *pieces, b" done\n", secrets=(secret,))) == ["key=*** done"]


@pytest.mark.parametrize("before", [LINE_BYTES - 40, LINE_BYTES - 5, LINE_BYTES - 1, LINE_BYTES, 2 * LINE_BYTES - 7])
@pytest.mark.parametrize("ends", [b"\n", b"", b"x" * 100_000 + b"\n"])
def test_a_secret_is_found_where_a_long_line_is_cut(feed: Callable[..., list[str]], before: int, ends: bytes) -> None:
    secret = "S" + "ecret-" * 30
    text = b"." * before + secret.encode() + ends
    lines = feed(*[text[at : at + 10_007] for at in range(0, len(text), 10_007)], secrets=(secret,))
    assert "ecret-" not in "".join(lines)
    assert max(len(line) for line in _texts(lines)) <= LINE_BYTES
