"""Python functions of the job's bundle on Arrow tables or Polars frames; they run in the job's sandbox, as any job."""

import inspect
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from trellis.runtime.stages.definitions import Transform
from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.folders import Dataset, Draft
from trellis.runtime.stages.spec import Parameter, Spec


def compute(spec: Spec, transform: Transform, inputs: Mapping[str, Dataset], draft: Draft) -> list[Path]:
    """Call the function with the inputs by name, and the parameters that its signature asks for; write its result.

    Raises: StageFailed, or what the function raises.
    """
    function = load(transform.code)
    given = {name: _frame(dataset, transform.frames) for name, dataset in inputs.items()}
    path = draft.new_path()
    _write(function(**given, **asked_for(function, spec.parameters, given)), path, transform.code)
    return [path]


def load(code: str) -> Callable[..., Any]:
    """The function that `module:function` names, looked for in the working folder first. Raises StageFailed."""
    module, _, name = code.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        found = getattr(import_module(module), name, None)
    except ModuleNotFoundError as error:
        raise StageFailed(f"{code}: there is no module {error.name} in the job's bundle or packages") from error
    if not callable(found):
        raise StageFailed(f"{code}: the module has no function {name}")
    loaded: Callable[..., Any] = found
    return loaded


def asked_for(
    function: Callable[..., Any], parameters: Mapping[str, Parameter], given: Mapping[str, Any]
) -> dict[str, Parameter]:
    """Those parameters that the function takes. Raises StageFailed where it does not take an input, or lacks something."""
    signature = inspect.signature(function)
    everything = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in signature.parameters.values())
    taken = {n: v for n, v in parameters.items() if n not in given and (everything or n in signature.parameters)}
    try:
        signature.bind(**given, **taken)
    except TypeError as error:
        named = ", ".join([*given, *parameters]) or "nothing"
        raise StageFailed(f"{function.__name__}{signature}: {error}; the stage has {named}") from error
    return taken


def _frame(dataset: Dataset, frames: str) -> Any:
    if frames == "polars":
        return pl.scan_parquet(dataset.paths)
    return ds.dataset(dataset.paths, format="parquet").to_table()


def _write(result: Any, path: Path, code: str) -> None:
    if isinstance(result, pl.LazyFrame):
        result.sink_parquet(path, compression="zstd")
    elif isinstance(result, pl.DataFrame):
        result.write_parquet(path, compression="zstd")
    elif isinstance(result, pa.RecordBatchReader):
        with pq.ParquetWriter(path, result.schema, compression="zstd") as writer:
            for batch in result:
                writer.write_batch(batch)
    elif isinstance(result, pa.Table):
        pq.write_table(result, path, compression="zstd")
    else:
        kind = type(result).__name__
        raise StageFailed(f"{code} returned {kind}: return an Arrow table or reader, or a frame of Polars")
