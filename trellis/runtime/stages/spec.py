"""What one run of a stage is given: the file SPEC.json, and the surroundings of its process."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trellis.runtime.stages.definitions import StageConfig, parse
from trellis.runtime.stages.egress import Egress
from trellis.runtime.stages.faults import StageErrors, StageFailed
from trellis.runtime.stages.fields import NAME

_RUN = re.compile(r"[\w.:+-]{1,200}", re.ASCII)
_FIELDS = {"stage", "kind", "with", "parameters", "inputs", "output", "state", "run_id", "attempt"}
Parameter = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Spec:
    """One stage of one run. `inputs` and `output` are folders of data sets, `state` is kept from run to run."""

    stage: str
    kind: str
    config: StageConfig
    parameters: Mapping[str, Parameter]
    inputs: Mapping[str, Path]
    output: Path
    state: Path
    run_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the process brings: its variables, the folders that paths may lead to, and whom it may call."""

    environment: Mapping[str, str]
    roots: tuple[Path, ...]
    egress: Egress

    def secret(self, variable: str) -> str:
        """The value of a variable that the configuration names. Raises StageFailed where it is not set."""
        found = self.environment.get(variable)
        if not found:
            raise StageFailed(f"the environment variable {variable} is not set: give the job that secret")
        return found


def read_spec(path: Path) -> Spec:
    """The spec in the file at `path`. Raises StageFailed, or StageErrors for its `with`."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StageFailed(f"{path} can't be read as JSON: {error}") from error
    if not isinstance(given, dict) or given.keys() - _FIELDS:
        raise StageFailed(f"{path} must be an object of {', '.join(sorted(_FIELDS))}")
    attempt = given.get("attempt", 1)
    if not isinstance(attempt, int) or isinstance(attempt, bool) or attempt < 0:
        raise StageFailed("attempt must be a whole number, 0 or above")
    try:
        config = parse(_text(given, "kind"), given.get("with") or {})
    except StageErrors as errors:
        raise StageFailed(f"stage {given.get('stage')}: {errors}") from errors
    run_id = _text(given, "run_id")
    if not _RUN.fullmatch(run_id):
        raise StageFailed("run_id must be 1 to 200 letters, digits and any of . : + - _")
    return Spec(
        stage=_text(given, "stage"),
        kind=_text(given, "kind"),
        config=config,
        parameters={name: _parameter(name, value) for name, value in _named(given, "parameters").items()},
        inputs={name: Path(folder) for name, folder in _named(given, "inputs").items()},
        output=Path(_text(given, "output")),
        state=Path(_text(given, "state")),
        run_id=run_id,
        attempt=attempt,
    )


def _text(given: Mapping[str, Any], name: str) -> str:
    found = given.get(name)
    if not isinstance(found, str) or not found:
        raise StageFailed(f"{name} is missing, or no text")
    return found


def _named(given: Mapping[str, Any], field: str) -> dict[str, Any]:
    found = given.get(field) or {}
    if not isinstance(found, dict):
        raise StageFailed(f"{field} must be an object")
    for name in found:
        if not NAME.fullmatch(name):
            raise StageFailed(f"{name[:80]!r} in {field} is no name: letters, digits and '_', no digit first")
    return found


def _parameter(name: str, value: object) -> Parameter:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    raise StageFailed(f"the parameter {name} must be a text, a number, a boolean or null")
