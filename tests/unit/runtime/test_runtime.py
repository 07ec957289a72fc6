"""What code inside a job may call, and what happens outside one."""

import json
import math
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.metric_socket import listen
from trellis import runtime
from trellis.runtime.context import find_context
from trellis.runtime.metrics import _connect

CODE = Path(__file__).parents[3]


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """This process as if it were a job, its directories deeper than a socket's path may be long."""
    deep = tmp_path / ("d" * 120)
    (deep / "artifacts").mkdir(parents=True)
    path = deep / "metrics.sock"
    listener = listen(deep, path.name)
    here = {
        "JOB_ID": "j", "JOB_NAME": "n", "ATTEMPT": "2", "FENCE": "3", "REPLICA_INDEX": "0", "REPLICA_COUNT": "4",
        "ARTIFACTS_DIR": str(deep / "artifacts"), "RUNTIME_SOCKET": str(path),
    }  # fmt: skip
    for name, value in here.items():
        monkeypatch.setenv(f"TRELLIS_{name}", value)
    _forget()
    yield listener
    listener.close()
    _forget()


def _forget() -> None:
    find_context.cache_clear()
    _connect.cache_clear()


def test_a_metric_is_one_datagram(job: socket.socket) -> None:
    runtime.log_metric("loss", 0.5, step=3)
    assert json.loads(job.recv(4096)) == {"name": "loss", "value": 0.5, "step": 3}


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused(job: socket.socket, value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        runtime.log_metric("loss", value)


@pytest.mark.parametrize("name", ["", "a\nb", "a" * 129])
def test_a_name_must_be_printable_and_short(job: socket.socket, name: str) -> None:
    with pytest.raises(ValueError, match="name"):
        runtime.log_metric(name, 1.0)


def test_a_step_is_an_integer(job: socket.socket) -> None:
    with pytest.raises(TypeError):
        runtime.log_metric("loss", 1.0, step=1.5)  # type: ignore[arg-type]


def test_a_supervisor_that_is_gone_costs_a_warning_and_not_the_training(job: socket.socket) -> None:
    job.close()
    with pytest.warns(RuntimeWarning, match="dropped"):
        runtime.log_metric("loss", 1.0)


def test_the_context_names_the_replica(job: socket.socket) -> None:
    here = runtime.context()
    assert (here.job_id, here.attempt, here.fence, here.replica_count) == ("j", 2, 3, 4)


def test_an_artifact_says_what_it_is_beside_it(job: socket.socket, tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_text("one")
    kept = runtime.save_artifact(tmp_path / "w.bin", type="model", metadata={"epoch": 3})
    about = kept.with_name(".w.bin.about")
    assert json.loads(about.read_text()) == {"type": "model", "metadata": {"epoch": 3}}
    runtime.save_artifact(tmp_path / "w.bin")
    assert not about.exists()
    for wrong in ({"type": "No Word"}, {"metadata": {"a": "x" * 5000}}, {"metadata": {"a": math.nan}}):
        with pytest.raises(ValueError, match=r"type|metadata|JSON"):
            runtime.save_artifact(tmp_path / "w.bin", **wrong)


def test_an_artifact_is_copied_whole_and_may_be_replaced(job: socket.socket, tmp_path: Path) -> None:
    (tmp_path / "model").write_text("one")
    runtime.save_artifact(tmp_path / "model")
    (tmp_path / "model").write_text("two")
    kept = runtime.save_artifact(tmp_path / "model")
    assert kept.read_text() == "two"
    assert [path.name for path in runtime.context().artifacts_dir.iterdir()] == ["model"]


@pytest.mark.parametrize("name", ["", ".hidden", "../up", "a/b", "-rf", "a" * 129, "a\n"])
def test_an_artifacts_name_is_only_a_name(job: socket.socket, tmp_path: Path, name: str) -> None:
    (tmp_path / "model").write_text("x")
    with pytest.raises(ValueError, match="name"):
        runtime.save_artifact(tmp_path / "model", name)


def test_outside_a_job_metrics_go_nowhere_and_the_rest_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRELLIS_JOB_ID", raising=False)
    _forget()
    runtime.log_metric("loss", 1.0)
    for ask in (runtime.context, lambda: runtime.save_artifact("x")):
        with pytest.raises(runtime.NotInAJob):
            ask()


def test_it_needs_the_standard_library_alone() -> None:
    code = "import sys; import trellis.runtime; print([m for m in ('httpx', 'psutil', 'yaml') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(CODE)}, capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"
