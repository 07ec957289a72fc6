import sys
from pathlib import Path

import pytest

from app.cli import services
from app.cli.errors import StackError
from app.cli.services import Service, last_lines, rotate
from app.cli.supervisor import ServiceState, Supervisor, describe_exit


def a_service(folder: Path, program: str, *, ready: bool = True, ready_s: float = 30.0) -> Service:
    return Service("example", (sys.executable, "-c", program), {}, folder / "log", lambda: ready, ready_s=ready_s)


def test_a_program_that_ends_at_once_is_told_with_the_end_of_its_log(tmp_path: Path) -> None:
    supervisor = Supervisor()
    with pytest.raises(StackError, match=r"(?s)example ended with exit code 3 while it started.*no such table"):
        supervisor.start([a_service(tmp_path, "print('no such table'); raise SystemExit(3)", ready=False)])
    supervisor.stop()


def test_a_program_that_is_never_ready_is_ended(tmp_path: Path) -> None:
    supervisor = Supervisor()
    with pytest.raises(StackError, match="was not ready after 0 s"):
        supervisor.start([a_service(tmp_path, "import signal; signal.pause()", ready=False, ready_s=0.2)])
    (keeper,) = supervisor.keepers
    supervisor.stop()
    assert keeper.state is ServiceState.STOPPED


def test_a_program_that_is_missing_is_a_sentence(tmp_path: Path) -> None:
    supervisor = Supervisor()
    with pytest.raises(StackError, match=r"example can't be started: No such file or directory: /no/program"):
        supervisor.start([Service("example", ("/no/program",), {}, tmp_path / "log", lambda: True)])
    supervisor.stop()


def test_a_program_that_will_not_stop_is_killed(tmp_path: Path) -> None:
    deaf = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint('deaf', flush=True)\nsignal.pause()"
    log = tmp_path / "log"
    ready = lambda: log.exists() and "deaf" in log.read_text()  # noqa: E731
    supervisor = Supervisor()
    supervisor.start([Service("deaf", (sys.executable, "-c", deaf), {}, log, ready, stop_s=0.2)])
    (keeper,) = supervisor.keepers
    supervisor.stop()
    assert keeper.process is not None
    assert describe_exit(keeper.process.wait()) == "signal SIGKILL"


def test_the_caller_s_environment_does_not_reach_a_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPORT", "1")
    log = tmp_path / "log"
    program = "import os, signal; print(sorted(os.environ), flush=True); signal.pause()"
    supervisor = Supervisor()
    supervisor.start(
        [Service("seen", (sys.executable, "-c", program), {"ONLY": "1"}, log, lambda: "ONLY" in last_lines(log))]
    )
    supervisor.stop()
    assert "PGPORT" not in log.read_text()


def test_a_log_over_its_limit_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services, "LOG_LIMIT_BYTES", 4)
    log = tmp_path / "log"
    log.write_text("long")
    rotate(log)
    assert log.exists()
    log.write_text("longer")
    rotate(log)
    assert not log.exists()
    assert (tmp_path / "log.1").read_text() == "longer"
