"""A source of a database: all rows, or those above a watermark, as Arrow all the way."""

from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from trellis.runtime.stages.connectors import Database
from trellis.runtime.stages.databases import reading
from trellis.runtime.stages.definitions import Source
from trellis.runtime.stages.engine import highest, quoted, write_part
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.folders import Draft
from trellis.runtime.stages.remembered import Memory
from trellis.runtime.stages.spec import Surroundings

Connection = duckdb.DuckDBPyConnection


def read(c: Connection, source: Source, around: Surroundings, before: Memory, draft: Draft) -> tuple[Path, Any]:
    """Write what is new as a part of the draft; the part, and where the next run begins. Raises StageFailed."""
    assert isinstance(source.connector, Database)
    column = source.watermark
    above = (column, before.position) if column and before.position is not None else None
    with reading(source.connector, around, above) as found:
        relation = c.from_arrow(found.rows)
        listed = ", ".join(
            f"CAST({quoted(name)} AS {found.types[name]}) AS {quoted(name)}" if name in found.types else quoted(name)
            for name in relation.columns
        )
        if column and column not in relation.columns:
            raise StageFailed(f"there is no column {column} to read by; there are {', '.join(relation.columns)}")
        try:
            part = write_part(relation.project(listed), draft)
        except pa.ArrowException as error:
            raise StageFailed(f"reading {source.connector.table or 'the query'}: {error}") from error
    return part, highest(c, part, column, before.position) if column else None
