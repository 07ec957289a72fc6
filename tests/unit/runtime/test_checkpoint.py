"""What a program saves is what it finds, and nothing that it saves is code."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trellis.runtime import checkpoint, states
from trellis.runtime.checkpoint import NotCheckpointed
from trellis.runtime.context import find_context


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """That of a job which saves checkpoints."""
    found = tmp_path / "checkpoints"
    found.mkdir()
    values = {
        "JOB_ID": "j", "JOB_NAME": "n", "ATTEMPT": "1", "FENCE": "1", "REPLICA_INDEX": "0", "REPLICA_COUNT": "1",
        "ARTIFACTS_DIR": str(tmp_path), "RUNTIME_SOCKET": "s", "CHECKPOINT_DIR": str(found),
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(f"TRELLIS_{name}", value)
    find_context.cache_clear()
    yield found
    find_context.cache_clear()


STATES = [
    {"epoch": 3, "loss": 0.25, "name": "x", "none": None, "yes": True},
    [1, (2, [3.5, ("a",)]), {}],
    {7: "an integer key", None: 1, "map": [["looks like ours"]], "array": "a0"},
    float("inf"),
]


@pytest.mark.parametrize("state", STATES, ids=str)
def test_a_state_comes_back_as_it_was(folder: Path, state: Any) -> None:
    checkpoint.save(state, step=4, metrics={"loss": 0.5})
    found = checkpoint.latest()
    assert found is not None
    assert found.state() == state
    assert (found.step, found.metrics) == (4, {"loss": 0.5})


def test_arrays_come_back_with_their_types(folder: Path) -> None:
    state = {"w": np.arange(12, dtype=np.float32).reshape(3, 4), "n": [np.int64(5), np.zeros(0, np.uint8)]}
    checkpoint.save(state)
    found = checkpoint.latest()
    assert found is not None
    again = found.state()
    assert again["w"].dtype == np.float32
    assert (again["w"] == state["w"]).all()
    assert again["n"][0] == 5
    assert again["n"][1].shape == (0,)


@pytest.mark.parametrize("bad", [object(), {"a": [1, {2}]}, {(1, 2): 3}, np.array([object()]), lambda: 1])
def test_what_would_take_code_to_read_is_refused_and_the_one_before_it_stays(folder: Path, bad: Any) -> None:
    checkpoint.save({"good": 1})
    with pytest.raises(TypeError, match="state"):
        checkpoint.save(bad)
    found = checkpoint.latest()
    assert found is not None
    assert found.state() == {"good": 1}
    assert [path.name for path in folder.iterdir() if path.name.startswith(".saving")] == []


def test_arrays_that_hold_pickled_objects_are_not_read(folder: Path) -> None:
    checkpoint.save({"w": np.zeros(3)})
    found = checkpoint.latest()
    assert found is not None
    np.savez(found.path / states.ARRAYS, a0=np.array([{"evil": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="pickle"):
        found.state()


def test_a_newer_one_takes_the_place_of_the_older(folder: Path) -> None:
    for number in range(3):
        checkpoint.save({"n": number}, step=number)
    assert sorted(path.name for path in folder.iterdir()) == [".complete", "saved-3"]
    assert json.loads((folder / ".complete").read_text()) == {"step": 2, "metrics": {}}


def test_files_are_kept_as_they_are(folder: Path, tmp_path: Path) -> None:
    source = tmp_path / "model"
    (source / "deep").mkdir(parents=True)
    (source / "deep/weights.bin").write_bytes(b"weights")
    checkpoint.save(source, step=1)
    found = checkpoint.latest()
    assert found is not None
    assert (found.path / "deep/weights.bin").read_bytes() == b"weights"
    with pytest.raises(ValueError, match="no state"):
        found.state()
    checkpoint.save(source / "deep/weights.bin")
    found = checkpoint.latest()
    assert found is not None
    assert (found.path / "weights.bin").read_bytes() == b"weights"


def test_a_wish_is_seen_as_long_as_it_is_there(folder: Path) -> None:
    assert not checkpoint.requested()
    assert (folder / ".listens").exists()
    (folder.parent / "checkpoint.asked").touch()
    assert checkpoint.requested()


@pytest.mark.parametrize(
    ("said", "kind"), [({"step": 1.5}, ValueError), ({"metrics": {"x": float("nan")}}, ValueError)]
)
def test_a_step_or_metric_that_is_none_is_refused(folder: Path, said: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        checkpoint.save({}, **said)
    assert checkpoint.latest() is None


def test_outside_a_job_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRELLIS_JOB_ID", raising=False)
    find_context.cache_clear()
    assert checkpoint.save({"x": 1}) is None
    assert checkpoint.latest() is None
    assert not checkpoint.requested()


def test_in_a_job_without_checkpoints_the_way_to_have_them_is_told(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRELLIS_CHECKPOINT_DIR")
    find_context.cache_clear()
    with pytest.raises(NotCheckpointed, match="--checkpoint"):
        checkpoint.save({})
