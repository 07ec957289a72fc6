import pytest

from trellis import sse
from trellis.sse import ServerEvent, read_events

WHOLE = b": hello\n\nevent: log\nid: 7\ndata: one\ndata: two\n\ndata: plain\r\n\r\n"
READ = [ServerEvent("comment", "hello"), ServerEvent("log", "one\ntwo", "7"), ServerEvent("message", "plain")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_are_read_however_the_bytes_are_cut(size: int) -> None:
    pieces = [WHOLE[start : start + size] for start in range(0, len(WHOLE), size)]
    assert list(read_events(pieces)) == READ


def test_an_event_that_was_cut_off_is_dropped() -> None:
    assert list(read_events([b"event: log\nid: 1\ndata: half"])) == []


def test_a_character_that_python_takes_for_a_line_end_does_not_cut_an_event() -> None:
    text = "a\u2028b\x85c\x0bd"
    assert [event.data for event in read_events([f"data: {text}\n\n".encode()])] == [text]


def test_a_character_cut_between_two_pieces_is_whole() -> None:
    raw = "data: für\n\n".encode()
    cut = raw.index(b"\xbc")
    assert [event.data for event in read_events([raw[:cut], raw[cut:]])] == ["für"]


def test_the_name_of_an_event_without_data_does_not_stick_to_the_next() -> None:
    assert list(read_events([b"event: end\n\ndata: x\n\n"])) == [ServerEvent("message", "x")]


def test_a_line_without_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "_LONGEST_LINE", 100)
    with pytest.raises(ValueError, match="without end"):
        list(read_events([b"x" * 60, b"x" * 60]))
