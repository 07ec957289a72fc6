"""Stages of pipelines run as a job runs them, in folders of one test."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from trellis.runtime.stages.egress import Egress
from trellis.runtime.stages.folders import Dataset, Draft, read_dataset
from trellis.runtime.stages.spec import Surroundings, read_spec
from trellis.runtime.stages.stage import run_stage


@dataclass
class Workbench:
    """A folder with `raw` files in it, and the outputs and states of stages by name."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    egress: str = ""

    def file(self, name: str, content: str | bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def output(self, stage: str) -> Path:
        return self.folder / "outputs" / stage

    def spec(self, kind: str, config: Mapping[str, Any], stage: str = "", **more: Any) -> Path:
        name = stage or kind
        inputs = {one: str(self.output(one)) for one in more.pop("inputs", ())}
        spec = {
            "stage": name, "kind": kind, "with": config, "inputs": inputs, "output": str(self.output(name)),
            "state": str(self.folder / "states" / name), "run_id": "r1", "attempt": 1, **more,
        }  # fmt: skip
        return self.file(f"specs/{name}.json", json.dumps(spec))

    def run(self, kind: str, config: Mapping[str, Any], stage: str = "", **more: Any) -> Dataset:
        """The data set that the stage left."""
        path = self.spec(kind, config, stage, **more)
        around = Surroundings(self.environment, (self.folder,), Egress.parse(self.egress))
        run_stage(read_spec(path), around)
        return read_dataset(self.output(stage or kind))

    def give(self, name: str, columns: Mapping[str, Any]) -> Dataset:
        """A data set of that name, as a stage before would have left it."""
        table = pa.table(dict(columns))
        with Draft(self.output(name)) as draft:
            path = draft.new_path()
            pq.write_table(table, path)
            types = duckdb.read_parquet(str(path))
            listed = [(one, str(kind)) for one, kind in zip(types.columns, types.types, strict=True)]
            return draft.finish({path.name: table.num_rows}, listed, {})

    def rows(self, stage: str) -> list[dict[str, Any]]:
        """What the data set of that stage holds."""
        found: list[dict[str, Any]] = pq.ParquetDataset(read_dataset(self.output(stage)).paths).read().to_pylist()
        return found
