"""The kind `quality`: an input is judged; what is good of it becomes the output."""

from trellis.runtime.stages.definitions import Quality
from trellis.runtime.stages.engine import engine, write_part
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.folders import Dataset, Draft, read_dataset
from trellis.runtime.stages.remembered import recall
from trellis.runtime.stages.results import Made, Promise, conclude
from trellis.runtime.stages.spec import Spec, Surroundings


def run(spec: Spec, quality: Quality, around: Surroundings) -> Dataset:
    """Judge, and replace the output. Raises StageFailed where a rule that stops was broken."""
    state = recall(spec.state, spec.run_id)
    name = only_input(spec, quality.input)
    inputs = {one: read_dataset(folder) for one, folder in spec.inputs.items()}
    judged = inputs[name]
    with Draft(spec.output) as draft:
        with engine(draft.beside) as connection:
            part = write_part(connection.read_parquet(judged.paths), draft)
        lineage = {column: [{"input": name, "column": column}] for column, _ in judged.columns}
        made = Made([part], inputs=inputs, lineage=lineage)
        return conclude(spec, state, draft, made, Promise(quality.rules, quality.schema))


def only_input(spec: Spec, named: str) -> str:
    """The name of the input that is meant: the one that is named, or the only one there is. Raises StageFailed."""
    there = ", ".join(sorted(spec.inputs)) or "none"
    if named:
        if named not in spec.inputs:
            raise StageFailed(f"there is no input {named}; there are {there}")
        return named
    if len(spec.inputs) != 1:
        raise StageFailed(f"name one input in `input`; there are {there}")
    return next(iter(spec.inputs))
