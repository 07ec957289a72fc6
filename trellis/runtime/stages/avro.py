"""Avro, by Polars."""

from collections.abc import Sequence
from pathlib import Path

import duckdb
import polars as pl
import polars.selectors as cs

from trellis.runtime.stages.faults import StageFailed


def read(connection: duckdb.DuckDBPyConnection, paths: Sequence[str]) -> duckdb.DuckDBPyRelation:
    """All files as one relation, columns matched by name. Raises StageFailed."""
    try:
        frames = [pl.read_avro(path) for path in paths]
        return connection.from_arrow(pl.concat(frames, how="diagonal_relaxed").to_arrow())
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise StageFailed(f"{Path(paths[0]).name} can't be read as Avro: {error}") from error


def write(relation: duckdb.DuckDBPyRelation, path: Path) -> None:
    """The relation as one file. Raises StageFailed for columns that Avro can't hold."""
    try:
        frame = relation.pl()
        # Avro's own moments are UTC without saying so.
        moments = cs.datetime(time_zone="*")
        frame = frame.with_columns(moments.dt.convert_time_zone("UTC").dt.replace_time_zone(None))
        frame.write_avro(path, compression="deflate")
    except pl.exceptions.PolarsError as error:
        raise StageFailed(f"Avro can't hold these columns: {error}") from error
