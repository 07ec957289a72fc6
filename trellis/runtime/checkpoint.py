"""Saving what a job can go on from, and finding it again.

    from trellis.runtime import checkpoint

    found = checkpoint.latest()
    state = found.state() if found else {"weights": start, "epoch": 0}
    for epoch in range(state["epoch"], 100):
        ...
        if checkpoint.requested() or epoch % 10 == 9:
            checkpoint.save({"weights": weights, "epoch": epoch + 1}, step=epoch + 1, metrics={"loss": loss})

Outside a job nothing is saved and nothing found, so that a script runs anywhere.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trellis.runtime.context import find_context
from trellis.runtime.states import SHAPE, read_state, write_state

_SAVED = re.compile(r"saved-([1-9]\d{0,11})")
_NOTE = "checkpoint.json"
_FILES = "files"


class NotCheckpointed(RuntimeError):
    """The job was submitted without checkpoints."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Something to go on from. `path` is where its files are: those that were given to `save`, or of a state."""

    path: Path
    step: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)

    def state(self) -> Any:
        """The state that was saved. Raises ValueError where files were saved and no state."""
        if not (self.path / SHAPE).exists():
            raise ValueError(f"{self.path} holds files, no state: read them from there")
        return read_state(self.path)


def save(what: Any, *, step: int | None = None, metrics: Mapping[str, float] | None = None) -> Path | None:
    """Save a state, or (given a path) the file or folder there; None outside a job.

    It is complete on this node's disk when this returns; the node stores it from there while the job goes on, and once
    more at the job's end. The one before it goes when this one is complete.

    Raises: NotCheckpointed; TypeError for a state that can't be kept; ValueError for a step or metric that is no
        number; OSError where the disk is full: then the one before it stays.
    """
    note = {"step": _step(step), "metrics": {name: _metric(name, value) for name, value in (metrics or {}).items()}}
    folder = _folder()
    if folder is None:
        return None
    number = max(_saved(folder), default=0) + 1
    half, whole = folder / f".saving-{os.getpid()}", folder / f"saved-{number}"
    shutil.rmtree(half, ignore_errors=True)
    try:
        half.mkdir()
        _fill(half, what)
        (half / _NOTE).write_text(json.dumps(note), encoding="utf-8")
        half.rename(whole)
    except BaseException:
        shutil.rmtree(half, ignore_errors=True)
        raise
    _mark(folder, note)
    for earlier in _saved(folder):
        if earlier < number:
            shutil.rmtree(folder / f"saved-{earlier}", ignore_errors=True)
    return whole


def latest() -> Checkpoint | None:
    """The newest there is: of this attempt, or what the node restored from an earlier one; None for a fresh start."""
    folder = _folder()
    if folder is None:
        return None
    found = _saved(folder)
    if not found:
        return None
    path = folder / f"saved-{max(found)}"
    note = json.loads((path / _NOTE).read_text(encoding="utf-8"))
    files = path / _FILES
    return Checkpoint(files if files.exists() else path, note["step"], note["metrics"])


def requested() -> bool:
    """Whether it is time to save: by interval, because somebody asked, or because the job must soon make room.

    Costs two system calls: call it as often as the job could save. The node waits for an answer only of programs that
    have called it.
    """
    folder = _folder()
    if folder is None:
        return False
    listens = folder / ".listens"
    if not listens.exists():
        listens.touch()
    return (folder.parent / "checkpoint.asked").exists()


def _saved(folder: Path) -> list[int]:
    return [int(match[1]) for entry in folder.iterdir() if (match := _SAVED.fullmatch(entry.name))]


def _folder() -> Path | None:
    here = find_context()
    if here is None:
        return None
    if here.checkpoint_dir is None:
        raise NotCheckpointed(
            "this job saves no checkpoints: submit it with `--checkpoint`, or `checkpoint` in its body"
        )
    return here.checkpoint_dir


def _fill(half: Path, what: Any) -> None:
    if not isinstance(what, str | os.PathLike):
        write_state(half, what)
        return
    source, files = Path(what), half / _FILES
    if source.is_dir():
        shutil.copytree(source, files, symlinks=True)
    else:
        files.mkdir()
        shutil.copy2(source, files / source.name)


def _mark(folder: Path, note: dict[str, Any]) -> None:
    half = folder / f".complete-{os.getpid()}"
    half.write_text(json.dumps(note), encoding="utf-8")
    half.rename(folder / ".complete")


def _step(step: int | None) -> int | None:
    if step is None:
        return None
    if isinstance(step, bool) or not hasattr(step, "__index__"):
        raise ValueError(f"the step must be an integer, not {type(step).__name__}")
    return int(step)


def _metric(name: object, value: float) -> float:
    number = float(value)
    if not isinstance(name, str) or not math.isfinite(number):
        raise ValueError(f"the metric {name!r} is {number}: only finite values of named metrics can be kept")
    return number
