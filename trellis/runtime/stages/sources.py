"""The kind `source`: what is new in a place becomes the stage's output."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from trellis.runtime.stages.connectors import Connector, Database, Files, Stream
from trellis.runtime.stages.databases import reading
from trellis.runtime.stages.definitions import Source
from trellis.runtime.stages.engine import columns_of, engine, no_rows, quoted, text, write_part
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.folders import Dataset, Draft
from trellis.runtime.stages.formats import Relation, read_files
from trellis.runtime.stages.places import Found, Place
from trellis.runtime.stages.remembered import Memory, recall
from trellis.runtime.stages.results import Made, Promise, conclude
from trellis.runtime.stages.spec import Spec, Surroundings
from trellis.runtime.stages.streams import read_entries

Connection = duckdb.DuckDBPyConnection


def run(spec: Spec, source: Source, around: Surroundings) -> Dataset:
    """Read, and replace the output. Raises StageFailed; output and state are then what they were."""
    state = recall(spec.state, spec.run_id)
    with Draft(spec.output) as draft:
        with engine(draft.beside) as connection:
            part, position = _read(connection, source, around, state.before, draft)
        made = Made([part], position=position, notes={"source": told(source.connector)})
        return conclude(spec, state, draft, made, Promise(source.expect, source.schema))


def told(connector: Connector) -> dict[str, str]:
    """Which place it is, as OpenLineage names places; nothing secret."""
    if isinstance(connector, Files):
        namespace, _, name = connector.url.rpartition("://")
        bucket, _, key = name.partition("/") if namespace else ("", "", name)
        return {"namespace": f"{namespace}://{bucket}" if namespace else "file", "name": key or name}
    if isinstance(connector, Stream):
        return {"namespace": f"redis://{connector.host}:{connector.port}", "name": connector.stream}
    name = connector.table or "query"
    if connector.kind == "sqlite":
        return {"namespace": "file", "name": f"{connector.path}#{name}"}
    where = f"postgres://{connector.host}:{connector.port}"
    return {"namespace": where, "name": ".".join([connector.database, connector.schema or "public", name])}


def _read(c: Connection, source: Source, around: Surroundings, before: Memory, draft: Draft) -> tuple[Path, Any]:
    if isinstance(source.connector, Files):
        return _read_files(c, source, around, before, draft)
    if isinstance(source.connector, Database):
        return _read_database(c, source, around, before, draft)
    after = str(before.position or "") if source.increment else ""
    table, last = read_entries(source.connector, around, after)
    relation = c.from_arrow(table)
    if table.num_rows == 0 and before.columns:
        relation = no_rows(c, before.columns)
    return write_part(relation, draft), last


def _read_files(c: Connection, source: Source, around: Surroundings, before: Memory, draft: Draft) -> tuple[Path, Any]:
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
    return part, _highest(c, part, column, before.position)


def _read_database(
    c: Connection, source: Source, around: Surroundings, before: Memory, draft: Draft
) -> tuple[Path, Any]:
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
    return part, _highest(c, part, column, before.position) if column else None


def _highest(c: Connection, part: Path, column: str, before: Any) -> Any:
    """The highest value so far as JSON can keep it: a number, or text that SQL reads as the same value."""
    relation = c.read_parquet(str(part))
    kind = dict(columns_of(relation))[column]
    number = kind in {"BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UBIGINT", "UINTEGER", "DOUBLE", "FLOAT"}
    shown = f"max({quoted(column)})" if number else f"CAST(max({quoted(column)}) AS VARCHAR)"
    found = relation.aggregate(shown).fetchall()[0][0]
    return before if found is None else found
