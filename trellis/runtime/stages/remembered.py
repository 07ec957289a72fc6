"""What a stage remembers from run to run: how far it read, what the columns were, how many rows there were.

It is replaced in one step, after the output is in place. A try of the same run that comes later begins where the
first one began, so that it makes the whole output again; the next run begins where the last one ended.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trellis.runtime.stages.faults import StageFailed
from trellis.runtime.stages.folders import Column, replace_json

_FILE = "state.json"
_KEPT_COUNTS = 100


@dataclass(frozen=True, slots=True)
class Memory:
    """What was true when a run ended. `position` is the source's own: a watermark, names of files, an id."""

    position: Any = None
    columns: tuple[Column, ...] = ()
    row_counts: tuple[int, ...] = ()

    def after(self, position: Any, columns: Sequence[Column], rows: int) -> "Memory":
        """What is remembered once a run brought these columns and so many rows."""
        return Memory(position, tuple(columns) or self.columns, (*self.row_counts, rows)[-_KEPT_COUNTS:])


@dataclass(slots=True)
class State:
    """The folder `state` of a stage as one run sees it."""

    folder: Path
    run_id: str
    before: Memory = field(default_factory=Memory)

    def keep(self, after: Memory) -> None:
        """Remember, in one step, that this run ended so."""
        said = {"version": 1, "run_id": self.run_id, "before": _plain(self.before), "after": _plain(after)}
        replace_json(self.folder / _FILE, said)


def recall(folder: Path, run_id: str) -> State:
    """The state from which the run of this id begins. Raises StageFailed for a file that can't be read."""
    try:
        said = json.loads((folder / _FILE).read_text(encoding="utf-8"))
        before = _memory(said["before" if said["run_id"] == run_id else "after"])
    except FileNotFoundError:
        return State(folder, run_id)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StageFailed(f"{folder / _FILE} can't be read: {error!r}; remove it to begin anew") from error
    return State(folder, run_id, before)


def _plain(memory: Memory) -> dict[str, Any]:
    columns = [list(column) for column in memory.columns]
    return {"position": memory.position, "columns": columns, "row_counts": list(memory.row_counts)}


def _memory(said: Mapping[str, Any]) -> Memory:
    columns = tuple((str(name), str(kind)) for name, kind in said["columns"])
    return Memory(said["position"], columns, tuple(int(count) for count in said["row_counts"]))
