"""The kind `sink`: an input goes to a place, in one step, and once a run however often its job is tried."""

from importlib import import_module
from typing import Any

import duckdb
import pyarrow as pa

from trellis.runtime.stages.connectors import Database, Stream
from trellis.runtime.stages.definitions import Sink
from trellis.runtime.stages.engine import engine, quoted, write_part
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.folders import Dataset, Draft, read_dataset
from trellis.runtime.stages.formats import Relation
from trellis.runtime.stages.judging import only_input
from trellis.runtime.stages.publishing import Publication, publish
from trellis.runtime.stages.remembered import recall
from trellis.runtime.stages.results import Made, Promise, conclude
from trellis.runtime.stages.rules import SchemaPolicy
from trellis.runtime.stages.sources import told
from trellis.runtime.stages.spec import Spec, Surroundings

_BATCH_ROWS = 65_536


def run(spec: Spec, sink: Sink, around: Surroundings) -> Dataset:
    """Write the input. The output is one row that says where it went and how much.

    Raises: StageFailed; the place is then what it was.
    """
    name = only_input(spec, sink.input)
    dataset = read_dataset(spec.inputs[name])
    missing = [column for column in sink.key if column not in dict(dataset.columns)]
    if missing:
        raise StageFailed(f"there is no column {', '.join(missing)} to be the key")
    with Draft(spec.output) as draft, engine(draft.beside) as connection:
        rows = connection.read_parquet(dataset.paths)
        applied = _write(connection, rows, sink, around, Publication(f"{spec.run_id}/{spec.stage}", draft.beside))
        place = told(sink.connector)
        part = write_part(
            connection.sql(
                "SELECT $namespace AS namespace, $name AS name, CAST($rows AS BIGINT) AS rows",
                params={**place, "rows": dataset.rows},
            ),
            draft,
        )
        lineage = {column: [{"input": name, "column": column}] for column, _ in dataset.columns}
        notes = {"sink": {**place, "mode": sink.mode, "rows": dataset.rows, "applied_before": not applied}}
        made = Made([part], inputs={name: dataset}, lineage=lineage, notes=notes)
        return conclude(spec, recall(spec.state, spec.run_id), draft, made, Promise((), SchemaPolicy()))


def _write(
    connection: duckdb.DuckDBPyConnection, rows: Relation, sink: Sink, around: Surroundings, once: Publication
) -> bool:
    """Write; False where an earlier try of the run had done so."""
    try:
        # Loaded when they are used: drivers take longer to load than most sinks to write.
        if isinstance(sink.connector, Database):
            databases: Any = import_module("trellis.runtime.stages.databases")
            reader = _plain(rows, sink.connector).to_arrow_reader(_BATCH_ROWS)
            return bool(databases.apply(sink, around, reader, once.run))
        if isinstance(sink.connector, Stream):
            streams: Any = import_module("trellis.runtime.stages.streams")
            reader = rows.to_arrow_reader(_BATCH_ROWS)
            return bool(streams.append_rows(sink.connector, around, reader, once.run))
        return publish(connection, rows, sink, around, once)
    except pa.ArrowException as error:
        raise StageFailed(f"the rows can't be written: {error}") from error


def _plain(rows: Relation, database: Database) -> Relation:
    """SQLite has no decimals: they become the numbers it has."""
    if database.kind != "sqlite":
        return rows
    columns = zip(map(quoted, rows.columns), map(str, rows.types), strict=True)
    return rows.project(
        ", ".join(f"CAST({name} AS DOUBLE) AS {name}" if kind.startswith("DECIMAL") else name for name, kind in columns)
    )
