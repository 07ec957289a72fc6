"""Lists that arrive a page at a time."""

from collections.abc import Iterator, Mapping
from typing import Any

from trellis.answers import A, answer
from trellis.transport import Call, Transport


def pages(transport: Transport, path: str, kind: type[A], params: Mapping[str, Any] | None = None) -> Iterator[A]:
    """Every item of a list; the next page is fetched when the one before is used up."""
    cursor: str | None = None
    while True:
        page = transport.json(Call("GET", path, {**(params or {}), "cursor": cursor})) or {}
        for item in page.get("items", ()):
            yield answer(kind, item)
        cursor = page.get("next_cursor")
        if not cursor:
            return
