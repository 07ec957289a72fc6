"""DuckDB as the stages use it: bounded in memory, spilling to a folder, and shut off from the world before it runs
what a user wrote."""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import duckdb
from sqlglot import exp

from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.folders import Column, Dataset, Draft

_ROW_GROUP = 122_880


@contextmanager
def engine(scratch: Path, memory_bytes: int = 0) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that spills below `scratch`; `memory_bytes` 0 is DuckDB's own limit, 80 % of what there is.

    Raises: StageFailed in the place of DuckDB's errors.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    spill = Path(mkdtemp(prefix=".spill-", dir=scratch))
    settings: dict[str, str | bool | int | float | list[str]] = {
        "temp_directory": str(spill),
        "autoinstall_known_extensions": False,
        "autoload_known_extensions": False,
        "allow_community_extensions": False,
    }
    if memory_bytes:
        settings["memory_limit"] = f"{memory_bytes // 1000}KB"
    connection = duckdb.connect(":memory:", config=settings)
    try:
        # Names in SQL are inputs; Python's variables are never meant.
        connection.execute("SET python_enable_replacements = false")
        yield connection
    except duckdb.Error as error:
        raise StageFailed(_one_line(error)) from error
    finally:
        connection.close()
        shutil.rmtree(spill, ignore_errors=True)


def shut_off(connection: duckdb.DuckDBPyConnection, reads: Sequence[Path], writes: Path) -> None:
    """From here on: files of these folders alone, no network, no extension, no setting."""
    allowed = ", ".join(text(f"{folder.resolve()}/") for folder in (*reads, writes))
    connection.execute(f"SET allowed_directories = [{allowed}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")


def show(connection: duckdb.DuckDBPyConnection, inputs: Mapping[str, Dataset]) -> None:
    """Make each data set a view under its name."""
    for name, dataset in inputs.items():
        connection.read_parquet(dataset.paths).create_view(name)


def columns_of(relation: duckdb.DuckDBPyRelation) -> list[Column]:
    """Names and types, in order."""
    return [(name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True)]


def no_rows(connection: duckdb.DuckDBPyConnection, columns: Sequence[Column]) -> duckdb.DuckDBPyRelation:
    """A relation with these columns and nothing in it."""
    listed = ", ".join(f"CAST(NULL AS {kind}) AS {quoted(name)}" for name, kind in columns)
    return connection.sql(f"SELECT {listed} WHERE false")


def write_part(relation: duckdb.DuckDBPyRelation, draft: Draft) -> Path:
    """Write the relation as the next part of a data set."""
    path = draft.new_path()
    relation.write_parquet(str(path), compression="zstd", row_group_size=_ROW_GROUP)
    return path


def highest(connection: duckdb.DuckDBPyConnection, part: Path, column: str, before: Any) -> Any:
    """The highest value so far as JSON can keep it: a number, or text that SQL reads as the same value."""
    relation = connection.read_parquet(str(part))
    kind = dict(columns_of(relation))[column]
    number = kind in {"BIGINT", "INTEGER", "SMALLINT", "TINYINT", "UBIGINT", "UINTEGER", "DOUBLE", "FLOAT"}
    shown = f"max({quoted(column)})" if number else f"CAST(max({quoted(column)}) AS VARCHAR)"
    found = relation.aggregate(shown).fetchall()[0][0]
    return before if found is None else found


def quoted(name: str) -> str:
    """A name as DuckDB, PostgreSQL and SQLite read it, whatever it holds."""
    return exp.to_identifier(name, quoted=True).sql("duckdb")


def text(value: str) -> str:
    """A text as a literal of SQL."""
    return exp.Literal.string(value).sql("duckdb")


def _one_line(error: duckdb.Error) -> str:
    return " ".join(str(error).split())[:2000]
