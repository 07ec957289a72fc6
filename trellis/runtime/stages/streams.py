"""Streams of Redis and Valkey: entries after an id as rows, and rows as entries, each exactly once a run."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import redis

from trellis.runtime.stages.connectors import Stream
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.spec import Surroundings

_AT_A_TIME = 1000
_WAIT_S = 30
_LEDGER_S = 30 * 86400
_ID = "_id"


def read_entries(stream: Stream, around: Surroundings, after: str) -> tuple[pa.Table, str]:
    """Up to `batch` entries after the id (""= from the start) as texts, with the id of each as `_id`; and the last id.

    Raises: StageFailed.
    """
    rows: list[dict[str, str]] = []
    last = after
    with _connected(stream, around) as client:
        while len(rows) < stream.batch:
            start = f"({last}" if last else "-"
            entries: Any = client.xrange(stream.stream, min=start, count=min(_AT_A_TIME, stream.batch - len(rows)))
            rows.extend({_ID: _text(name), **{_text(k): _text(v) for k, v in found.items()}} for name, found in entries)
            last = rows[-1][_ID] if rows else last
            if len(entries) == 0:
                break
    names = list(dict.fromkeys(name for row in rows for name in row)) or [_ID]
    schema = pa.schema([(name, pa.string()) for name in names])
    return pa.Table.from_pylist(rows, schema=schema), last


def append_rows(stream: Stream, around: Surroundings, rows: pa.RecordBatchReader, run: str) -> int:
    """Add each row as an entry of texts, nulls left out; what an earlier try of the run added is not added again.

    The count of what was added lies in the server beside the stream, changed together with it. Returns how many this
    try added. Raises StageFailed.
    """
    # One slot of a cluster for both: the part in braces decides.
    ledger = f"{{{stream.stream}}}:trellis:{run}"
    added = seen = 0
    with _connected(stream, around) as client:
        done = int(client.get(ledger) or 0)
        for batch in rows:
            for start in range(0, batch.num_rows, _AT_A_TIME):
                entries = batch.slice(start, _AT_A_TIME).to_pylist()
                fresh = entries[max(0, done - seen) :]
                seen += len(entries)
                if not fresh:
                    continue
                with client.pipeline(transaction=True) as together:
                    for entry in fresh:
                        together.xadd(stream.stream, _fields(entry))  # type: ignore[arg-type]
                    together.set(ledger, seen, ex=_LEDGER_S)
                    together.execute()
                added += len(fresh)
    return added


def _fields(entry: Mapping[str, Any]) -> dict[str, str | bytes]:
    kept = {name: _plain(value) for name, value in entry.items() if value is not None and name != _ID}
    return kept or {"_empty": "1"}  # an entry has a field at least


def _plain(value: Any) -> str | bytes:
    if isinstance(value, str | bytes):
        return value
    if isinstance(value, date | datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    return json.dumps(value, default=str)


def _text(value: bytes) -> str:
    return value.decode(errors="backslashreplace")


@contextmanager
def _connected(stream: Stream, around: Surroundings) -> Iterator["redis.Redis"]:
    password = next((around.secret(variable) for _, variable in stream.credentials), None)
    client = redis.Redis(
        host=stream.host,
        port=stream.port,
        db=stream.number,
        username=stream.user or None,
        password=password,
        ssl=stream.tls,
        socket_timeout=_WAIT_S,
        socket_connect_timeout=_WAIT_S,
    )
    try:
        yield client
    except redis.RedisError as error:
        raise StageFailed(f"{stream.host}:{stream.port} stream {stream.stream}: {error}") from error
    finally:
        client.close()
