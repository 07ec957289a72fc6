"""The kind `transform`: one data set made of the inputs, by SQL, by a Python function or on Spark."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from trellis.runtime.stages.definitions import Transform
from trellis.runtime.stages.engine import engine, show, shut_off, text
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.folders import Dataset, Draft, read_dataset
from trellis.runtime.stages.lineage import trace
from trellis.runtime.stages.queries import bare, check_query, parameters_of
from trellis.runtime.stages.remembered import recall
from trellis.runtime.stages.results import Made, Promise, conclude
from trellis.runtime.stages.spec import Spec, Surroundings

_ROW_GROUP = 122_880
# Loaded when they are used: each brings libraries that the others do without.
_RUNNERS = {"python": "trellis.runtime.stages.functions", "spark": "trellis.runtime.stages.spark"}


def run(spec: Spec, transform: Transform, around: Surroundings) -> Dataset:
    """Compute, and replace the output. Raises StageFailed, or what a function of the user's raises."""
    state = recall(spec.state, spec.run_id)
    inputs = {name: read_dataset(folder) for name, folder in spec.inputs.items()}
    with Draft(spec.output) as draft:
        if transform.engine == "sql":
            parts, lineage = _select(spec, transform, inputs, draft)
        else:
            runner = import_module(_RUNNERS[transform.engine])
            parts, lineage = runner.compute(spec, transform, inputs, draft), {}
        made = Made(parts, inputs=inputs, lineage=lineage)
        return conclude(spec, state, draft, made, Promise(transform.expect, transform.schema))


def _select(
    spec: Spec, transform: Transform, inputs: Mapping[str, Dataset], draft: Draft
) -> tuple[list[Path], dict[str, Any]]:
    tree = check_query(transform.code, inputs)
    path = draft.new_path()
    with engine(draft.beside, transform.memory_bytes) as connection:
        show(connection, inputs)
        shut_off(connection, [dataset.folder for dataset in inputs.values()], draft.beside)
        values = _values(spec, parameters_of(transform.code))
        # Both parsers took the query for one SELECT, so it ends before the bracket; the line break ends a comment.
        copy = f"COPY (\n{bare(transform.code)}\n) TO {text(str(path))} (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {_ROW_GROUP})"
        connection.execute(copy, values)
        output = connection.read_parquet(str(path)).columns
    return [path], trace(tree, {name: dataset.columns for name, dataset in inputs.items()}, output)


def _values(spec: Spec, names: set[str]) -> dict[str, Any]:
    missing = sorted(names - spec.parameters.keys())
    if missing:
        raise StageFailed(f"the SQL names parameters that the run does not have: {', '.join(missing)}")
    return {name: spec.parameters[name] for name in names}
