import json
from pathlib import Path

import pytest

from trellis import flows
from trellis.errors import Invalid
from trellis.runtime.context import find_context
from trellis.runtime.stage import StageContext, find_stage

FLOW = """
from trellis.flows import Pipeline, stage

@stage
def add(x, y=1, item=None):
    return [x, y, item]

@stage
def everything(**known):
    return sorted(known)

flow = Pipeline("sums", [add, everything])
"""


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A flow, and the environment of a job that is a stage of it."""
    made = tmp_path / "sums.py"
    made.write_text(FLOW)
    said = {
        "TRELLIS_PIPELINE": "sums", "TRELLIS_RUN_ID": "r1", "TRELLIS_STAGE": "add", "TRELLIS_INPUTS": "{}",
        "TRELLIS_PARAMETERS": '{"x": 5, "z": "no"}', "TRELLIS_JOB_ID": "j1", "TRELLIS_JOB_NAME": "add",
        "TRELLIS_ATTEMPT": "1", "TRELLIS_FENCE": "1", "TRELLIS_REPLICA_INDEX": "0", "TRELLIS_REPLICA_COUNT": "1",
        "TRELLIS_ARTIFACTS_DIR": str(tmp_path), "TRELLIS_RUNTIME_SOCKET": "none",
    }  # fmt: skip
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    find_context.cache_clear()
    return made


@pytest.fixture(autouse=True)
def forget() -> None:
    find_context.cache_clear()


def told(folder: Path) -> object:
    return json.loads((folder / flows.RESULT).read_text())


def test_a_stage_is_called_with_the_parameters_that_it_names(file: Path) -> None:
    flows.run_stage(str(file), "add")
    assert told(file.parent) == [5, 1, None]
    flows.run_stage(str(file), "everything")
    assert told(file.parent) == ["x", "z"]


def test_a_mapped_stage_is_given_its_item(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRELLIS_MAP_INDEX", "2")
    monkeypatch.setenv("TRELLIS_MAP_VALUE", '{"a": 1}')
    flows.run_stage(str(file), "add")
    assert told(file.parent) == [5, 1, {"a": 1}]


def test_a_stage_that_is_not_there_is_said(file: Path) -> None:
    with pytest.raises(Invalid, match="holds no stage"):
        flows.run_stage(str(file), "nothing")


def test_outside_a_pipeline_there_is_no_stage_and_nothing_is_told(tmp_path: Path) -> None:
    assert find_stage() == StageContext()
    flows.save_result([1])
    assert list(tmp_path.iterdir()) == []


def test_a_stage_is_still_a_function() -> None:
    @flows.stage(cache=True)
    def double(x: int) -> int:
        return 2 * x

    assert double(4) == 8
    with pytest.raises(TypeError, match="is a program"):
        flows.program("x", command=["true"])()
