"""What a stage of SQL takes beside DuckDB alone: the same query over 1 GB of Parquet, each in a process of its own."""

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import pyarrow.parquet as pq

from benchmarks.lines import Printer
from trellis.runtime.stages.folders import Draft

SIZE_BYTES = 1_000_000_000
ROWS_A_PART = 6_000_000
TIMES = 3
QUERY = """
SELECT customer % 1000 AS customers, day, count(*) AS orders, sum(amount) AS spent, avg(amount) AS usual,
       max(note) AS last_note
FROM orders WHERE amount > 10 GROUP BY ALL ORDER BY ALL
"""
_ROWS = """
SELECT i AS id, CAST(hash(i) % 100000 AS BIGINT) AS customer, DATE '2026-01-01' + CAST(i % 365 AS INTEGER) AS day,
       (hash(i + 1) % 10000) / 100 AS amount, 'note ' || hash(i + 2) AS note
FROM range({}, {}) rows(i)
"""
# Alone: the same query, the same files, the same format of the result; nothing checked, traced or hashed.
_ALONE = """
import sys, duckdb
connection = duckdb.connect()
connection.read_parquet(sys.argv[3:]).create_view("orders")
connection.execute("COPY (" + sys.argv[1] + ") TO '" + sys.argv[2] + "' (FORMAT parquet, COMPRESSION zstd)")
"""


def measure(printer: Printer) -> None:
    """Data in the page cache; alone and as a stage by turns; 1.1 GB of the disk that holds the working directory."""
    folder = Path(tempfile.mkdtemp(prefix=".bench-stages-", dir="."))
    try:
        _measure(printer, folder.resolve())
    finally:
        shutil.rmtree(folder)


def _measure(printer: Printer, folder: Path) -> None:
    paths, size = _make(folder / "orders")
    spec = folder / "spec.json"
    spec.write_text(
        json.dumps(
            {
                "stage": "query", "kind": "transform", "with": {"sql": QUERY}, "inputs": {"orders": str(folder / "orders")},
                "output": str(folder / "made"), "state": str(folder / "state"), "run_id": "r", "attempt": 1,
            }
        )
    )  # fmt: skip
    alone = [sys.executable, "-c", _ALONE, QUERY, str(folder / "alone.parquet"), *paths]
    stage = [sys.executable, "-m", "trellis.runtime.stages", str(spec)]
    taken = {"alone": [_took(alone)], "stage": [_took(stage)]}  # the first of each fills the cache
    for _ in range(TIMES):
        taken["alone"].append(_took(alone))
        taken["stage"].append(_took(stage))
    medians = {name: statistics.median(times[1:]) for name, times in taken.items()}
    settings = {"bytes": size, "times": TIMES, "measure": "median wall time of the process"}
    for name, median in medians.items():
        printer.line(f"stages.sql_{name}", median, "s", **settings)
    printer.line("stages.sql_ratio", medians["stage"] / medians["alone"], "", **settings)


def _make(folder: Path) -> tuple[list[str], int]:
    """A data set of 1 GB, as a stage before would have left it."""
    rows: dict[str, int] = {}
    with Draft(folder) as draft, duckdb.connect() as connection:
        size = 0
        while size < SIZE_BYTES:
            path = draft.new_path()
            first = len(rows) * ROWS_A_PART
            connection.sql(_ROWS.format(first, first + ROWS_A_PART)).write_parquet(str(path))
            rows[path.name] = pq.read_metadata(path).num_rows
            size += path.stat().st_size
        found = connection.read_parquet(str(path))
        columns = [(name, str(kind)) for name, kind in zip(found.columns, found.types, strict=True)]
        dataset = draft.finish(rows, columns, {})
    return dataset.paths, dataset.size_bytes


def _took(command: list[str]) -> float:
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began
