import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest

from app.cli.accounts import for_servers
from app.cli.ports import free_port
from app.cli.status import Row, Status, look
from tests.support.services import ROOT, Services, wait_until

READY_S = 60.0
ALL = ["postgres", "valkey", "api", "control", "beat", "node-1", "flower"]


@dataclass
class Terminal:
    """Types `trellis ...` with stand-ins for the platform's processes, on one home."""

    home: Path
    port: int
    flower_port: int

    def run(self, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            self._argv(*arguments), cwd=ROOT, env=self._environment() | environment,
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    def up(self, *more: str) -> "subprocess.Popen[bytes]":
        with self.screen.open("wb") as output:
            process = subprocess.Popen(
                self._argv("up", *self.options, *more),
                cwd=ROOT,
                env=self._environment(),
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        wait_until(lambda: process.poll() is not None or "Running;" in self.said, READY_S, "the stack to be up")
        assert process.poll() is None, self.said
        return process

    def end(self, process: "subprocess.Popen[bytes]", number: int = signal.SIGINT) -> int:
        process.send_signal(number)
        return process.wait(60)

    @property
    def options(self) -> list[str]:
        return ["--no-example", "--port", str(self.port), "--flower-port", str(self.flower_port)]

    @property
    def screen(self) -> Path:
        return self.home.with_name("screen")

    @property
    def said(self) -> str:
        return self.screen.read_text()

    def status(self) -> Status:
        """What `trellis status` would say."""
        return look(self.home)

    def rows(self) -> dict[str, Row]:
        return {row.name: row for row in self.status().services}

    def pids(self) -> dict[str, int]:
        return {name: row.pid for name, row in self.rows().items() if row.pid is not None}

    def replaced(self, before: dict[str, int]) -> set[str]:
        """Which services have another process than before."""
        now = self.pids()
        return {name for name in ALL if now.get(name, before[name]) != before[name]}

    def _argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tests.support.stand_in", *arguments]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "TRELLIS_HOME": str(self.home), "COLUMNS": "200"}


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    # Not below pytest's own folder: that is closed to the account that the servers run as.
    with TemporaryDirectory(prefix="trellis-test-") as folder:
        Path(folder).chmod(0o711)
        port = free_port()
        found = Terminal(Path(folder) / "home", port, free_port(avoid=[port]))
        yield found
        if found.pids():
            found.run("down")


def test_ctrl_c_ends_every_process_in_order(terminal: Terminal) -> None:
    process = terminal.up()
    pids = terminal.pids()
    assert list(pids) == ALL
    assert terminal.end(process) == 0
    assert (terminal.home / "server" / "ended").read_text().split() == ["flower", "node-1", "beat", "control", "api"]
    assert not [name for name, pid in pids.items() if psutil.pid_exists(pid)]
    log = (terminal.home / "logs" / "postgres.log").read_text()
    assert log.rstrip().endswith("database system is shut down")
    assert terminal.said.rstrip().endswith("Stopped.")


def test_a_closed_terminal_ends_it_though_the_sessions_first_process_does_not_pass_that_on(terminal: Terminal) -> None:
    ours, theirs = os.openpty()
    words = shlex.join(terminal._argv("up", *terminal.options))
    leader = subprocess.Popen(
        ["/bin/sh", "-c", f"trap '' HUP; {words}; exit 0"],
        cwd=ROOT, env=terminal._environment(), stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    said = b""
    while b"Running;" not in said:
        said += os.read(ours, 65536)
    pids = list(terminal.pids().values())
    assert len(pids) == len(ALL)
    assert all(psutil.pid_exists(pid) for pid in pids)
    os.close(ours)
    leader.wait(60)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_what_is_killed_comes_back_and_a_second_up_is_refused(terminal: Terminal) -> None:
    process = terminal.up()
    before = terminal.pids()
    killed = {"postgres", "api", "beat"}
    for name in killed:
        os.kill(before[name], signal.SIGKILL)
    wait_until(lambda: killed <= terminal.replaced(before), 30, "the killed services to come back")
    wait_until(lambda: terminal.status().up, 30, "everything to be well again")
    assert terminal.replaced(before) == killed
    assert terminal.rows()["api"].restarts == 1
    refused = terminal.run("up", *terminal.options)
    assert refused.returncode == 1
    assert f"already runs on {terminal.home} (pid {process.pid})" in refused.stdout
    assert "trellis down" in refused.stdout
    assert terminal.end(process, signal.SIGTERM) == 0


def test_after_the_supervisor_was_killed_the_next_up_begins_clean_on_the_same_data(terminal: Terminal) -> None:
    first = terminal.up()
    assert "first-password" in terminal.said
    terminal.end(first, signal.SIGKILL)
    orphans = terminal.pids()
    assert list(orphans) == ALL
    second = terminal.up()
    assert f"Ended what an earlier run had left behind: {', '.join(reversed(ALL))}." in terminal.said
    assert "first-password" not in terminal.said
    assert not set(orphans.values()) & set(terminal.pids().values())
    terminal.end(second)


def test_in_the_background_until_down(terminal: Terminal) -> None:
    started = terminal.run("up", "--detach", "--nodes", "2", *terminal.options)
    assert started.returncode == 0, started.stdout
    assert "trellis down" in started.stdout
    told = json.loads(terminal.run("status", "--json").stdout)
    assert told["up"]
    assert [row["name"] for row in told["services"]] == [*ALL[:-1], "node-2", "flower"]
    assert {row["name"]: row["pid"] for row in told["services"]} == terminal.pids()
    assert terminal.run("down").stdout.strip() == "Stopped."
    assert json.loads(terminal.run("status", "--json").stdout)["services"] == []
    assert "Nothing runs" in terminal.run("down").stdout


def test_servers_of_your_own_are_used_and_none_is_started(terminal: Terminal, services: Services) -> None:
    own = {"TRELLIS_DATABASE_URL": services.database_url, "TRELLIS_BROKER_URL": services.broker_url}
    started = terminal.run("up", "--detach", *terminal.options, **own)
    assert started.returncode == 0, started.stdout
    assert "using your PostgreSQL" in started.stdout
    assert list(terminal.pids()) == [name for name in ALL if name not in ("postgres", "valkey")]
    assert not (terminal.home / "postgres").exists()


@pytest.mark.parametrize("more", [(), ("--detach",)])
def test_a_taken_port_is_a_sentence_with_the_program_that_has_it(terminal: Terminal, more: tuple[str, ...]) -> None:
    argv = [sys.executable, "-m", "http.server", str(terminal.port), "--bind", "127.0.0.1"]
    holder = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: psutil.Process(holder.pid).net_connections(), 30, "the port to be taken")
        refused = terminal.run("up", *more, *terminal.options)
    finally:
        holder.kill()
        holder.wait()
    assert refused.returncode == 1
    assert f"Port {terminal.port} is taken by python" in refused.stdout
    assert f"(pid {holder.pid})" in refused.stdout
    assert "--port" in refused.stdout
    assert "Traceback" not in refused.stdout + refused.stderr


def test_a_home_of_a_newer_trellis_is_a_sentence(terminal: Terminal) -> None:
    terminal.home.mkdir()
    (terminal.home / "stamp.json").write_text('{"layout": 99, "trellis": "9.9"}')
    refused = terminal.run("up", *terminal.options)
    assert refused.returncode == 1
    assert "last used by Trellis 9.9" in refused.stdout
    assert "Traceback" not in refused.stdout + refused.stderr


def test_a_server_that_does_not_come_up_is_a_sentence_with_the_end_of_its_log(terminal: Terminal) -> None:
    terminal.end(terminal.up())
    control = terminal.home / "postgres" / "data" / "global" / "pg_control"
    control.write_bytes(b"damaged")
    refused = terminal.run("up", *terminal.options)
    assert refused.returncode == 1
    assert "postgres ended with signal SIGABRT while it started" in refused.stdout
    assert str(terminal.home / "logs" / "postgres.log") in refused.stdout
    assert "Traceback" not in refused.stdout + refused.stderr
    assert terminal.status().services == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_started_by_root_the_servers_run_as_somebody_else(terminal: Terminal) -> None:
    process = terminal.up()
    for name in ("postgres", "valkey"):
        row = terminal.rows()[name]
        assert row.account == for_servers().name
        assert set(psutil.Process(row.pid).uids()) == {for_servers().uid}
    terminal.end(process)
