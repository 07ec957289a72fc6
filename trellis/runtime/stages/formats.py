"""Files of each format as relations of DuckDB, and relations as files: by DuckDB, pyarrow and Polars, no parser of ours."""

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.ipc

from trellis.runtime.stages.connectors import COMPRESSIONS, Files, suffixes_of
from trellis.runtime.stages.faults import StageFailed

Relation = duckdb.DuckDBPyRelation
_BATCH_ROWS = 122_880
_AVRO = "trellis.runtime.stages.avro"  # loaded when it is used: Polars takes its time
_LONGEST_RECORD = 64 << 20


def read_files(connection: duckdb.DuckDBPyConnection, files: Files, paths: Sequence[Path]) -> Relation:
    """All of `paths` as one relation; columns are matched by name. Raises StageFailed or duckdb.Error."""
    return _READERS[files.format](connection, files, [str(path) for path in paths])


def write_file(relation: Relation, files: Files, path: Path) -> None:
    """The relation as one file at `path`. Raises StageFailed or duckdb.Error."""
    _WRITERS[files.format](relation, files, path)


def _read_parquet(connection: duckdb.DuckDBPyConnection, files: Files, paths: list[str]) -> Relation:
    return connection.read_parquet(paths, union_by_name=True)


def _read_csv(connection: duckdb.DuckDBPyConnection, files: Files, paths: list[str]) -> Relation:
    options: dict[str, Any] = {"header": files.header, "union_by_name": True, "compression": "none"}
    if files.delimiter:
        options["sep"] = files.delimiter
    if files.columns:
        options["dtype"] = dict(files.columns)
    return connection.read_csv(paths, **options)  # type: ignore[arg-type]  # lists are taken, and not declared


def _read_jsonl(connection: duckdb.DuckDBPyConnection, files: Files, paths: list[str]) -> Relation:
    return connection.read_json(
        paths,  # type: ignore[arg-type]  # lists are taken, and not declared
        format="newline_delimited",
        union_by_name=True,
        compression="none",
        maximum_object_size=_LONGEST_RECORD,
    )


def _read_arrow(connection: duckdb.DuckDBPyConnection, files: Files, paths: list[str]) -> Relation:
    try:
        schemas = [ds.dataset(path, format="ipc").schema for path in paths]
        schema = pa.unify_schemas(schemas, promote_options="permissive")
        return connection.from_arrow(ds.dataset(paths, schema=schema, format="ipc"))
    except (pa.ArrowException, OSError) as error:
        raise StageFailed(f"{Path(paths[0]).name} can't be read as Arrow: {error}") from error


def _write_parquet(relation: Relation, files: Files, path: Path) -> None:
    relation.write_parquet(str(path), compression="zstd", row_group_size=_BATCH_ROWS)


def _packing(path: Path) -> str:
    packed = COMPRESSIONS.get(suffixes_of(path.name)[1], "")
    if packed not in {"", "gzip", "zstd"}:
        raise StageFailed(f"{path.name}: text is written plain, as .gz or as .zst")
    return packed


def _write_csv(relation: Relation, files: Files, path: Path) -> None:
    relation.write_csv(str(path), header=files.header, sep=files.delimiter or ",", compression=_packing(path) or "none")


def _write_jsonl(relation: Relation, files: Files, path: Path) -> None:
    # The relation interface has no writer of JSON: the one statement, its path a literal.
    literal = "'" + str(path).replace("'", "''") + "'"
    packing = _packing(path) or "uncompressed"
    relation.query("rows_to_write", f"COPY rows_to_write TO {literal} (FORMAT json, COMPRESSION '{packing}')")


def _write_arrow(relation: Relation, files: Files, path: Path) -> None:
    reader = relation.to_arrow_reader(_BATCH_ROWS)
    with pyarrow.ipc.new_file(path, reader.schema) as sink:
        for batch in reader:
            sink.write_batch(batch)


def _read_avro(connection: duckdb.DuckDBPyConnection, files: Files, paths: list[str]) -> Relation:
    relation: Relation = import_module(_AVRO).read(connection, paths)
    return relation


def _write_avro(relation: Relation, files: Files, path: Path) -> None:
    import_module(_AVRO).write(relation, path)


_READERS: dict[str, Callable[[duckdb.DuckDBPyConnection, Files, list[str]], Relation]] = {
    "parquet": _read_parquet, "csv": _read_csv, "jsonl": _read_jsonl, "arrow": _read_arrow, "avro": _read_avro,
}  # fmt: skip
_WRITERS: dict[str, Callable[[Relation, Files, Path], None]] = {
    "parquet": _write_parquet, "csv": _write_csv, "jsonl": _write_jsonl, "arrow": _write_arrow, "avro": _write_avro,
}  # fmt: skip
