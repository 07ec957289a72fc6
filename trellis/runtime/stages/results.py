"""From parts that were written to a data set that may take its place: judged, compared, described, swapped in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq

from trellis.runtime.stages.engine import columns_of, engine, show, shut_off
from trellis.runtime.stages.evolution import compare, enforce_policy
from trellis.runtime.stages.folders import Column, Dataset, Draft, replace_json
from trellis.runtime.stages.quality import DATA, Judge, Verdict, stop_if
from trellis.runtime.stages.remembered import State
from trellis.runtime.stages.rules import Rule, SchemaPolicy
from trellis.runtime.stages.spec import Spec

JUDGED = "quality.json"


@dataclass(frozen=True, slots=True)
class Promise:
    """What the output must keep to."""

    rules: Sequence[Rule]
    policy: SchemaPolicy


@dataclass(frozen=True, slots=True)
class Made:
    """What a stage made: the parts of its draft, and what is to be said of them."""

    parts: Sequence[Path]
    inputs: Mapping[str, Dataset] = field(default_factory=dict)
    lineage: Mapping[str, Any] = field(default_factory=dict)
    position: Any = None
    notes: Mapping[str, Any] = field(default_factory=dict)


def conclude(spec: Spec, state: State, draft: Draft, made: Made, promise: Promise) -> Dataset:
    """Make the draft the output and remember that, if it keeps the promise.

    Raises: StageFailed where it does not: output and state are then what they were; what was found is in
        `quality.json` of the output either way.
    """
    with engine(draft.beside) as connection:
        connection.read_parquet([str(path) for path in made.parts]).create_view(DATA)
        show(connection, {name: dataset for name, dataset in made.inputs.items() if name != DATA})
        columns = columns_of(connection.view(DATA))
        evolved = enforce_policy(promise.policy, compare(state.before.columns, columns))
        reads = [draft.beside, *(dataset.folder for dataset in made.inputs.values())]
        shut_off(connection, reads, draft.beside)
        others = [name for name in made.inputs if name != DATA]
        judge = Judge(connection, promise.rules, others)
        verdicts = judge.judge_rows()
        parts, aside = list(made.parts), None
        if judge.puts_aside and any(v.bad for v in verdicts if v.severity == "quarantine"):
            parts, aside = _part_ways(connection, judge, draft)
            connection.read_parquet([str(path) for path in parts]).create_view(DATA, replace=True)
        verdicts += judge.judge_whole(state.before.row_counts)
    _tell(spec, verdicts)
    stop_if(verdicts)
    notes = _notes(spec, made, verdicts) | {"evolution": evolved}
    return _swap(state, draft, made, _Kept(parts, aside, columns), notes)


@dataclass(frozen=True, slots=True)
class _Kept:
    parts: Sequence[Path]
    aside: Path | None
    columns: Sequence[Column]


def _part_ways(connection: duckdb.DuckDBPyConnection, judge: Judge, draft: Draft) -> tuple[list[Path], Path]:
    kept, aside = draft.new_path(), draft.new_aside()
    connection.sql(judge.good()).write_parquet(str(kept), compression="zstd")
    connection.sql(judge.bad()).write_parquet(str(aside), compression="zstd")
    return [kept], aside


def _notes(spec: Spec, made: Made, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    return {
        "stage": spec.stage,
        "kind": spec.kind,
        "run_id": spec.run_id,
        "attempt": spec.attempt,
        "inputs": {name: dataset.digest for name, dataset in made.inputs.items()},
        "lineage": dict(made.lineage),
        "quality": [verdict.noted() for verdict in verdicts],
        "watermark": made.position if isinstance(made.position, str | int | float) else None,
        **made.notes,
    }


def _swap(state: State, draft: Draft, made: Made, kept: _Kept, notes: dict[str, Any]) -> Dataset:
    rows = {path.name: rows_of(path) for path in kept.parts}
    for path in made.parts:
        if path not in kept.parts:
            path.unlink()
    if kept.aside is not None:
        notes["quarantine"] = {"file": f"quarantine/{kept.aside.name}", "rows": rows_of(kept.aside)}
    dataset = draft.finish(rows, kept.columns, notes)
    state.keep(state.before.after(made.position, kept.columns, dataset.rows))
    return dataset


def _tell(spec: Spec, verdicts: Sequence[Verdict]) -> None:
    path = spec.output / JUDGED
    if verdicts:
        replace_json(path, {"run_id": spec.run_id, "quality": [verdict.noted() for verdict in verdicts]})
    else:
        path.unlink(missing_ok=True)


def rows_of(path: Path) -> int:
    """How many rows a Parquet file says it holds."""
    return int(pq.read_metadata(path).num_rows)
