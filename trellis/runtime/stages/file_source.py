"""A source of files: all of them, those that are new, or the rows above a watermark."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

from trellis.runtime.stages.connectors import Files
from trellis.runtime.stages.definitions import Source
from trellis.runtime.stages.engine import columns_of, highest, no_rows, quoted, text, write_part
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.folders import Draft
from trellis.runtime.stages.formats import Relation, read_files
from trellis.runtime.stages.places import Found, Place
from trellis.runtime.stages.remembered import Memory
from trellis.runtime.stages.spec import Surroundings

Connection = duckdb.DuckDBPyConnection


def read(c: Connection, source: Source, around: Surroundings, before: Memory, draft: Draft) -> tuple[Path, Any]:
    """Write what is new as a part of the draft; the part, and where the next run begins. Raises StageFailed."""
    assert isinstance(source.connector, Files)
    place = Place(source.connector, around)
    there = place.list()
    position: Any = before.position
    fresh: Sequence[Found] = there
    if source.increment == "files":
        seen = before.position or {}
        fresh = [found for found in there if seen.get(found.name) != [found.size_bytes, found.mark]]
        # Names that are gone are forgotten: the state is as large as what is there.
        position = {found.name: [found.size_bytes, found.mark] for found in there}
    if not fresh:
        if not (source.increment and before.columns):
            raise StageFailed(f"{source.connector.url}: there is no such file")
        return write_part(no_rows(c, before.columns), draft), position
    relation = read_files(c, source.connector, _near(place, fresh, draft.beside, source.most_bytes))
    if source.increment == "watermark":
        return _above(c, relation, source.watermark, before, draft)
    return write_part(relation, draft), position


def _near(place: Place, fresh: Sequence[Found], folder: Path, most_bytes: int) -> list[Path]:
    paths, left = [], most_bytes
    for found in fresh:
        path = place.near(found, folder, left)
        left -= path.stat().st_size
        if left < 0:
            raise StageFailed(f"{place.files.url}: more than {most_bytes} bytes; raise `most_bytes` if that is right")
        paths.append(path)
    return paths


def _above(c: Connection, relation: Relation, column: str, before: Memory, draft: Draft) -> tuple[Path, Any]:
    types = dict(columns_of(relation))
    if column not in types:
        raise StageFailed(f"there is no column {column} to read by; there are {', '.join(types)}")
    if before.position is not None:
        value = before.position
        literal = text(value) if isinstance(value, str) else repr(value)
        relation = relation.filter(f"{quoted(column)} > CAST({literal} AS {types[column]})")
    part = write_part(relation, draft)
    return part, highest(c, part, column, before.position)
