"""PostgreSQL and SQLite through ADBC: tables as Arrow both ways, and writes that happen once a run.

What is written goes to a staging table first; one transaction then changes the target and notes, in the table
`trellis_applied` beside it, that this run has done so. A later try finds the note and changes nothing.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

import adbc_driver_manager.dbapi
import adbc_driver_postgresql.dbapi
import adbc_driver_sqlite.dbapi
import pyarrow as pa

from trellis.runtime.stages.connectors import Database
from trellis.runtime.stages.definitions import Sink
from trellis.runtime.stages.engine import quoted, text
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.places import confine
from trellis.runtime.stages.queries import one_query
from trellis.runtime.stages.spec import Surroundings

_LEDGER = "trellis_applied"
_STAGING = "trellis_staging"
_KEPT_RUNS = 1000
_CONNECT_S = 15
_BUSY_MS = 30_000
# What SQLite's declarations mean to DuckDB, the first part that is found in one deciding.
_DECLARED = (
    ("INT", "BIGINT"), ("CHAR", "VARCHAR"), ("CLOB", "VARCHAR"), ("TEXT", "VARCHAR"), ("BOOL", "BOOLEAN"),
    ("REAL", "DOUBLE"), ("FLOA", "DOUBLE"), ("DOUB", "DOUBLE"), ("NUM", "DOUBLE"), ("DEC", "DOUBLE"),
    ("TIMESTAMP", "TIMESTAMP"), ("DATETIME", "TIMESTAMP"), ("DATE", "DATE"), ("BLOB", "BLOB"),
)  # fmt: skip
_NUMERIC = "DECIMAL(38,9)"  # PostgreSQL's numeric has any size; this much of it is exact


@dataclass(frozen=True, slots=True)
class Reading:
    """Rows on their way, and the types that columns are to be given which the driver can't tell."""

    rows: pa.RecordBatchReader
    types: dict[str, str]


@contextmanager
def reading(database: Database, around: Surroundings, above: tuple[str, Any] | None) -> Iterator[Reading]:
    """The rows of the table or query; `above` is a column and the value that it must exceed. Raises StageFailed."""
    inner = f"(\n{one_query(database.query, database.kind)}\n)" if database.query else _named(database)
    sql = f"SELECT * FROM {inner} AS rows_read"
    if above is not None:
        column, value = above
        literal = text(value) if isinstance(value, str) else repr(value)
        sql += f" WHERE {quoted(column)} > {literal}"
    with _connected(database, around, writes=False) as connection, connection.cursor() as cursor:
        types = _declared(cursor, database)
        cursor.execute(sql)
        rows = cursor.fetch_record_batch()
        types |= {field.name: _NUMERIC for field in rows.schema if getattr(field.type, "type_name", "") == "numeric"}
        yield Reading(rows, types)


def apply(sink: Sink, around: Surroundings, rows: pa.RecordBatchReader, run: str) -> bool:
    """Write in one transaction; False where this run had done so already. Raises StageFailed; then nothing changed."""
    database = sink.connector
    assert isinstance(database, Database)
    with _connected(database, around, writes=True) as connection:
        with connection.cursor() as cursor:
            _take_turns(cursor, database)
            if _applied(cursor, database, run):
                return False
            cursor.adbc_ingest(_STAGING, rows, mode="create", temporary=True)
            _change(cursor, database, sink, [field.name for field in rows.schema])
            _note(cursor, database, run)
        connection.commit()
    return True


def _change(cursor: Any, database: Database, sink: Sink, columns: Sequence[str]) -> None:
    target, listed = _named(database), ", ".join(quoted(name) for name in columns)
    cursor.execute(f"CREATE TABLE IF NOT EXISTS {target} AS SELECT * FROM {_STAGING} WHERE 1 = 0")
    if sink.mode == "replace":
        cursor.execute(f"DELETE FROM {target}")
    elif sink.mode == "upsert":
        keys = ", ".join(quoted(name) for name in sink.key)
        twice = _one(
            cursor, f"SELECT count(*) FROM (SELECT {keys} FROM {_STAGING} GROUP BY {keys} HAVING count(*) > 1) t"
        )
        if twice:
            raise StageFailed(f"{twice} keys ({', '.join(sink.key)}) come more than once: which row counts?")
        met = " AND ".join(f"{_STAGING}.{quoted(name)} = {target}.{quoted(name)}" for name in sink.key)
        cursor.execute(f"DELETE FROM {target} WHERE EXISTS (SELECT 1 FROM {_STAGING} WHERE {met})")
    cursor.execute(f"INSERT INTO {target} ({listed}) SELECT {listed} FROM {_STAGING}")
    cursor.execute(f"DROP TABLE {_STAGING}")


def _take_turns(cursor: Any, database: Database) -> None:
    """Whoever writes this target waits here for whoever does so now."""
    if database.kind == "postgres":
        cursor.execute(f"SELECT pg_advisory_xact_lock(hashtextextended({text(_named(database))}, 0))")
        cursor.fetchall()
        cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended('trellis_applied', 0))")
        cursor.fetchall()
    cursor.execute(
        f"CREATE TABLE IF NOT EXISTS {_ledger(database)} (target text NOT NULL, run text NOT NULL, "
        "applied_at timestamp NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (target, run))"
    )


def _applied(cursor: Any, database: Database, run: str) -> bool:
    where = f"target = {text(database.table)} AND run = {text(run)}"
    return bool(_one(cursor, f"SELECT count(*) FROM {_ledger(database)} WHERE {where}"))


def _note(cursor: Any, database: Database, run: str) -> None:
    ledger, target = _ledger(database), text(database.table)
    cursor.execute(f"INSERT INTO {ledger} (target, run) VALUES ({target}, {text(run)})")
    newest = f"SELECT run FROM {ledger} WHERE target = {target} ORDER BY applied_at DESC LIMIT {_KEPT_RUNS}"
    cursor.execute(f"DELETE FROM {ledger} WHERE target = {target} AND run NOT IN ({newest})")


def _one(cursor: Any, sql: str) -> int:
    cursor.execute(sql)
    return int(cursor.fetchall()[0][0])


def _named(database: Database) -> str:
    return ".".join(quoted(part) for part in (database.schema, database.table) if part)


def _ledger(database: Database) -> str:
    return ".".join(quoted(part) for part in (database.schema, _LEDGER) if part)


def _declared(cursor: Any, database: Database) -> dict[str, str]:
    if database.kind != "sqlite" or not database.table:
        return {}
    cursor.execute(f"SELECT name, type FROM pragma_table_info({text(database.table)})")
    return {
        name: meant
        for name, declared in cursor.fetchall()
        if (meant := next((kind for part, kind in _DECLARED if part in declared.upper()), ""))
    }


@contextmanager
def _connected(database: Database, around: Surroundings, *, writes: bool) -> Iterator[Any]:
    what = database.path or f"{database.host}:{database.port}/{database.database}"
    try:
        with _connect(database, around, writes=writes) as connection:
            yield connection
    except adbc_driver_manager.dbapi.Error as error:
        # The driver repeats its connection string in some messages: what follows the first line stays here.
        reason = " ".join(str(error).split())[:500]
        for secret in (around.environment.get(variable, "") for _, variable in database.credentials):
            reason = reason.replace(secret, "***").replace(quote(secret, safe=""), "***") if secret else reason
        raise StageFailed(f"{what}: {reason}") from None


def _connect(database: Database, around: Surroundings, *, writes: bool) -> Any:
    if database.kind == "sqlite":
        path = confine(database.path, around.roots)
        if not writes and not path.is_file():
            raise StageFailed(f"{database.path}: there is no such file")
        connection = adbc_driver_sqlite.dbapi.connect(f"file:{quote(str(path))}?mode={'rwc' if writes else 'ro'}")
        with connection.cursor() as cursor:
            cursor.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
        return connection
    address = around.egress.resolve(database.host, database.port)
    password = next((around.secret(variable) for _, variable in database.credentials), "")
    options = {"hostaddr": address, "sslmode": database.sslmode, "connect_timeout": _CONNECT_S}
    who = quote(database.user, safe="") + (f":{quote(password, safe='')}" if password else "")
    host = f"[{database.host}]" if ":" in database.host else quote(database.host, safe="")
    name = quote(database.database, safe="")
    return adbc_driver_postgresql.dbapi.connect(
        f"postgresql://{who}@{host}:{database.port}/{name}?{urlencode(options)}"
    )
