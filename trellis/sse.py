"""The event stream format of the web (text/event-stream), read from bytes as they come."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

# Longer than any line of a log that the platform keeps; a server that sends no line end must not fill our memory.
_LONGEST_LINE = 16 * 2**20


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event; a comment (which keeps the connection alive) comes as an event named `comment`."""

    name: str
    data: str
    id: str | None = None


def read_events(chunks: Iterable[bytes]) -> Iterator[ServerEvent]:
    """The events of a stream, each as soon as it is whole; one that was cut off is dropped.

    Raises: ValueError for a line that never ends.
    """
    name, data, cursor = "message", [], None  # type: str, list[str], str | None
    for line in _lines(chunks):
        if line.startswith(":"):
            yield ServerEvent("comment", line[1:].strip())
        elif line:
            key, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if key == "event":
                name = value
            elif key == "data":
                data.append(value)
            elif key == "id":
                cursor = value
        else:
            if data:
                yield ServerEvent(name, "\n".join(data), cursor)
            name, data, cursor = "message", [], None


def _lines(chunks: Iterable[bytes]) -> Iterator[str]:
    # Not str.splitlines: it also splits at characters that are legal inside JSON text, such as U+2028.
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise ValueError("the event stream holds a line without end")
        for line in whole:
            yield line.removesuffix(b"\r").decode("utf-8", errors="replace")
