"""Pipelines in Python: functions that are stages, and what they wait for.

    from trellis.flows import Pipeline, stage

    @stage(resources={"cpus": 1})
    def extract(day: str) -> None: ...

    @stage(inputs=[extract], time_limit="10m")
    def features(day: str) -> None: ...

    nightly = Pipeline("nightly", [extract, features], parameters={"day": {"type": "date", "default": "today"}})

`trellis pipeline apply FILE` reads such a file on the machine where it is typed, sends the directory that it lies in as a
bundle, and the definition as data; no service ever runs it. In its job a stage is `python -m trellis.flows FILE NAME`:
the function is called with the parameters that it names, and with `item` where it is mapped. What it returns is its
result, which other stages can be mapped over or chosen by.
"""

import importlib
import importlib.util
import inspect
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, overload

from trellis.errors import Field, Invalid
from trellis.runtime.artifacts import save_artifact
from trellis.runtime.context import find_context
from trellis.runtime.stage import find_stage

RESULT = "result.json"
_PLACES = ("resources", "retries", "time_limit", "queue", "pool", "priority", "when", "cache", "description")


class Stage:
    """A function that is a stage, or (`command`, `script`) a program that is one. Calling it calls the function."""

    def __init__(self, name: str, function: Callable[..., Any] | None, options: Mapping[str, Any]) -> None:
        self.name = name
        self.function = function
        self._options = dict(options)

    def __call__(self, *args: Any, **named: Any) -> Any:
        """As if it were no stage: for tests of one's own. Raises TypeError for one that is a program."""
        if self.function is None:
            raise TypeError(f"stage {self.name} is a program, not a function")
        return self.function(*args, **named)

    def body(self, file: str) -> dict[str, Any]:
        """The stage as data; `file` is where in the bundle its function is found."""
        said = dict(self._options)
        body: dict[str, Any] = {"name": self.name, "kind": said.pop("kind", "custom")}
        body |= {name: said.pop(name) for name in _PLACES if name in said}
        for edge in ("after", "inputs"):
            if edge in said:
                body[edge] = [_name(one) for one in said.pop(edge)]
        if "over" in said:
            over = said.pop("over")
            body["map"] = {"over": {"stage": _name(over)} if isinstance(over, Stage | str) else list(over)}
        if "only_if" in said:
            told, equals = said.pop("only_if")
            body["only_if"] = {"stage": _name(told), "equals": equals}
        if self.function is not None:
            said["command"] = ["python", "-m", "trellis.flows", file, self.function.__name__]
        return body | {"with": said}


@overload
def stage(function: Callable[..., Any], /) -> Stage:  # noqa: D418  # a contract test wants one of each
    """`@stage`."""


@overload
def stage(**options: Any) -> Callable[[Callable[..., Any]], Stage]:  # noqa: D418
    """`@stage(after=[...], ...)`."""


def stage(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a stage: `@stage`, or `@stage(after=[...], inputs=[...], resources={...}, cache=True, ...)`.

    `over` is a list, or a stage whose result is one; `only_if` is a pair: a stage, and what it must have told. What is not
    of the stage (`environment`, `network`, ...) is asked of its job.
    """
    if function is not None:
        return Stage(function.__name__, function, options)
    own = {key: value for key, value in options.items() if key != "name"}
    return lambda given: Stage(options.get("name", given.__name__), given, own)


def program(name: str, /, **options: Any) -> Stage:
    """A stage that is a program: `program("fit", command=["./fit.sh"], after=[...])`."""
    return Stage(name, None, options)


class Pipeline:
    """Stages in any order; the rest is as in a definition of YAML."""

    def __init__(self, name: str, stages: Sequence[Stage], **options: Any) -> None:
        self.name = name
        self.stages = list(stages)
        self._options = options

    def body(self, file: str) -> dict[str, Any]:
        """The definition as data; `file` is this file's place in the bundle."""
        return {"name": self.name, **self._options, "stages": [one.body(file) for one in self.stages]}


def read_file(file: Path) -> dict[str, Any]:
    """The definition that a Python file holds: its one Pipeline. Runs the file. Raises Invalid."""
    found = {id(one): one for one in vars(_load(file)).values() if isinstance(one, Pipeline)}
    if len(found) != 1:
        raise Invalid(Field("FILE", f"{file} must hold one Pipeline; it holds {len(found)}"))
    (pipeline,) = found.values()
    return pipeline.body(file.name)


def _load(file: Path) -> ModuleType:
    # Not __main__: what stands below `if __name__ == "__main__"` is for people.
    sys.path.insert(0, str(file.resolve().parent))
    spec = importlib.util.spec_from_file_location(f"trellis_flow_{file.stem.replace('-', '_')}", file)
    if spec is None or spec.loader is None:
        raise Invalid(Field("FILE", f"{file} is no Python file"))
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def _name(one: Stage | str) -> str:
    return one.name if isinstance(one, Stage) else one


def run_stage(file: str, name: str) -> None:
    """Call a stage's function inside its job, and save what it returns. Raises Invalid where there is no such stage."""
    found = next(
        (
            one for one in vars(_load(Path(file))).values()
            if isinstance(one, Stage) and one.function is not None and one.function.__name__ == name
        ),
        None,
    )  # fmt: skip
    if found is None or found.function is None:
        raise Invalid(Field("NAME", f"{file} holds no stage {name!r}"))
    here = find_stage()
    known = {**here.parameters, **({"item": here.item} if here.mapped else {})}
    wanted = inspect.signature(found.function).parameters.values()
    takes_all = any(one.kind is inspect.Parameter.VAR_KEYWORD for one in wanted)
    given = known if takes_all else {one.name: known[one.name] for one in wanted if one.name in known}
    result = found.function(**given)
    if result is not None:
        save_result(result)


def save_result(value: Any) -> None:
    """Tell what other stages are mapped over or chosen by, as JSON; outside a job nothing happens. Raises TypeError."""
    text = json.dumps(value)
    if find_context() is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        half = Path(folder) / RESULT
        half.write_text(text, encoding="utf-8")
        save_artifact(half, RESULT)


if __name__ == "__main__":
    # Under its own name, so that the file's `stage` and ours are the same.
    importlib.import_module("trellis.flows").run_stage(*sys.argv[1:3])
