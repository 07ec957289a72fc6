"""A source of a stream: its entries as texts, from the start or from where the last run ended."""

from pathlib import Path
from typing import Any

import duckdb

from trellis.runtime.stages.connectors import Stream
from trellis.runtime.stages.definitions import Source
from trellis.runtime.stages.engine import no_rows, write_part
from trellis.runtime.stages.folders import Draft
from trellis.runtime.stages.remembered import Memory
from trellis.runtime.stages.spec import Surroundings
from trellis.runtime.stages.streams import read_entries


def read(
    c: duckdb.DuckDBPyConnection, source: Source, around: Surroundings, before: Memory, draft: Draft
) -> tuple[Path, Any]:
    """Write what is new as a part of the draft; the part, and where the next run begins. Raises StageFailed."""
    assert isinstance(source.connector, Stream)
    after = str(before.position or "") if source.increment else ""
    table, last = read_entries(source.connector, around, after)
    relation = c.from_arrow(table)
    if table.num_rows == 0 and before.columns:
        relation = no_rows(c, before.columns)
    return write_part(relation, draft), last
