"""A whole platform in real processes: `trellis up` as a person would type it, in a home of its own, on free ports.

Tests start one with `running`, reach it through the Python client and the command, and kill what they like: every
process here is a child of this test session's and ends with it.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil

from app.cli import state
from app.cli.ports import free_port
from tests.support.services import ROOT, wait_until
from trellis import Client
from trellis.answers import Job, LogLine
from trellis.transport import Retry

UP_S = 90.0
DOWN_S = 60.0
LEASH = (sys.executable, "-m", "tests.support.leash")  # a test session that is killed leaves no platform behind


@dataclass
class Platform:
    """One `trellis up` with its home below `folder`; `environment` is put over ours.

    Its nodes are of `profile`, or not there at all: `simulation` is the YAML that says which, and how they play.
    """

    folder: Path
    nodes: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    profile: str = ""
    port: int = field(default_factory=free_port)
    flower_port: int = 0
    simulation: str = ""
    _up: "subprocess.Popen[bytes] | None" = None
    _started: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.flower_port = self.flower_port or free_port(avoid=[self.port])

    # Starting and stopping

    def start(self) -> None:
        """Start it and wait until all of it is up."""
        process = self.begin()
        wait_until(lambda: process.poll() is not None or "Running;" in self.said, UP_S, "the platform to be up")
        assert process.poll() is None, self.said

    def begin(self) -> "subprocess.Popen[bytes]":
        """Type `trellis up`, in a terminal of its own."""
        with self.screen.open("wb") as output:
            self._up = subprocess.Popen(
                [*LEASH, *self.argv("up", "--no-example", *self._machines(), *self.ports)],
                cwd=ROOT, env=self.env, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                start_new_session=True,
            )  # fmt: skip
        return self._up

    def _machines(self) -> list[str]:
        if not self.simulation:
            return ["--nodes", str(self.nodes), *(("--profile", self.profile) if self.profile else ())]
        file = self.folder / "profile.yaml"
        file.write_text(self.simulation)
        return ["--simulate", str(file)]

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it with a signal, as Ctrl-C or a shutdown does; its exit code."""
        assert self._up is not None
        self._up.send_signal(number)
        return self._up.wait(DOWN_S)

    def close(self) -> None:
        """End whatever of it still lives, politely if that works."""
        for process in self._started:
            process.kill()
            process.wait()
        if self._up is not None and self._up.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self._up.kill()
                self._up.wait()
                self.run("down")
        if "client" in self.__dict__:
            self.client.close()

    def spawn(self, *argv: str, environment: Mapping[str, str], log: str) -> "subprocess.Popen[bytes]":
        """Start one more process beside the platform's own; it ends with the platform."""
        with (self.folder / log).open("ab") as output:
            process = subprocess.Popen(
                [*LEASH, *argv], cwd=ROOT, env=dict(environment), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                start_new_session=True,
            )  # fmt: skip
        self._started.append(process)
        return process

    # Looking at it

    @property
    def home(self) -> Path:
        """Its TRELLIS_HOME."""
        return self.folder / "home"

    @property
    def screen(self) -> Path:
        """What `trellis up` printed."""
        return self.folder / "screen"

    @property
    def said(self) -> str:
        """What `trellis up` printed so far."""
        return self.screen.read_text()

    @property
    def url(self) -> str:
        """The API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def password(self) -> str:
        """The administrator's, as it was printed the first time."""
        return self.said.partition("with the password ")[2].split()[0]

    @cached_property
    def client(self) -> Client:
        """The client with the administrator's key, as commands on this machine use it."""
        made = Client(self.url, api_key=self.login["api_key"])
        # Stubborn, as a machine under test may be slow to come back; each call keeps its one Idempotency-Key.
        made._transport._retry = Retry(attempts=120, longest_s=1.0, total_s=UP_S)
        return made

    @property
    def login(self) -> dict[str, str]:
        """What client.json says."""
        found: dict[str, str] = json.loads((self.home / "client.json").read_text())
        return found

    @property
    def broker_url(self) -> str:
        """Where its broker is, password included."""
        return (self.home / "secrets" / "broker_url").read_text()

    @property
    def ports(self) -> list[str]:
        """The options that say on which ports."""
        return ["--port", str(self.port), "--flower-port", str(self.flower_port)]

    @property
    def env(self) -> dict[str, str]:
        """What its commands are started with."""
        kept = {key: text for key, text in os.environ.items() if not key.startswith("TRELLIS_")}
        return {**kept, "TRELLIS_HOME": str(self.home), "COLUMNS": "200", **self.environment}

    def argv(self, *arguments: str) -> list[str]:
        """How `trellis ARGUMENTS` is typed here."""
        return [sys.executable, "-m", "trellis.cli", *arguments]

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Type `trellis ARGUMENTS`, signed in as the administrator."""
        return subprocess.run(
            self.argv(*arguments),
            cwd=ROOT,
            env=self.signed_in,
            capture_output=True,
            text=True,
            check=False,
            timeout=UP_S,
        )

    @property
    def signed_in(self) -> dict[str, str]:
        """The environment of a command that asks as the administrator."""
        login = self.login if (self.home / "client.json").exists() else {}
        return {**self.env, **{f"TRELLIS_{name.upper()}": value for name, value in login.items()}}

    # Its processes

    def entry(self, name: str) -> state.Entry:
        """What the supervisor says of the service `name`."""
        return next(entry for entry in state.read(self.home / "state.json").entries if entry.name == name)

    def pid(self, name: str) -> int:
        """The process of the service `name`."""
        wait_until(lambda: self.entry(name).pid, UP_S, f"{name} to have a process")
        found = self.entry(name).pid
        assert found is not None
        return found

    def pids(self) -> dict[str, int]:
        """Every service with its process."""
        return {entry.name: self.pid(entry.name) for entry in state.read(self.home / "state.json").entries}

    def kill(self, name: str) -> None:
        """`kill -9` the process of a service, and wait until it is gone; its keeper starts another."""
        process = psutil.Process(self.pid(name))
        process.kill()
        wait_until(lambda: not _lives(process), UP_S, f"the killed {name} to be gone")

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to the process of a service."""
        os.kill(self.pid(name), number)

    def wait_running(self, name: str, *, not_pid: int | None = None) -> None:
        """Wait until the service runs, as another process than `not_pid`."""
        wait_until(lambda: self.entry(name).state == "running" and self.entry(name).pid != not_pid, UP_S, name)

    def replace(self, name: str) -> None:
        """`kill -9` a service and wait until its successor is ready."""
        before = self.pid(name)
        self.kill(name)
        self.wait_running(name, not_pid=before)

    @contextmanager
    def unattended(self) -> Iterator[None]:
        """While this lasts, nothing that dies is started again: the supervisor is held."""
        assert self._up is not None
        self._up.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._up.send_signal(signal.SIGCONT)

    def twin(self, name: str, called: str, ready: str) -> "subprocess.Popen[bytes]":
        """A second process of the service `name`, with the first one's command and environment, once it said `ready`."""
        first = psutil.Process(self.pid(name))
        argv = [word.replace(f"{name}@", f"{called}@") for word in first.cmdline()]
        process = self.spawn(*argv, environment=first.environ(), log=called)
        log = self.folder / called
        wait_until(lambda: process.poll() is not None or ready in log.read_text(), UP_S, f"{called} to be ready")
        assert process.poll() is None, log.read_text()
        return process

    def processes_of(self, job: Job) -> list[psutil.Process]:
        """The living processes of a job's own on this host, by the environment that the platform gave them."""
        mark = f"TRELLIS_JOB_ID={job.id}".encode()
        return [process for process in psutil.process_iter() if mark in _environ(process) and _lives(process)]

    # Its jobs

    def kill_supervisor(self, job: Job) -> None:
        """Kill the process that watches over a running job, on whatever node: the job goes with it."""
        (found,) = {one.pid: one for process in self.processes_of(job) for one in _supervisors(process)}.values()
        found.kill()

    def run_job(self, *command: str, **body: Any) -> Job:
        """Submit a command, wait for its end, and return it with its attempts."""
        job = self.client.jobs.submit(command=list(command), **body)
        return self.ended(job)

    def ended(self, job: Job, within_s: float = 60.0) -> Job:
        """The job, verbose, once it has ended."""
        self.client.jobs.wait(job, timeout=within_s)
        return self.client.jobs.get(job, verbose=True)

    def wait_state(self, job: Job, *states: str, within_s: float = 60.0) -> Job:
        """The job, verbose, once it is in one of `states`."""
        wait_until(lambda: self.client.jobs.get(job).state in states, within_s, f"{job.id} to be {' or '.join(states)}")
        return self.client.jobs.get(job, verbose=True)

    def wait_line(self, job: Job, text: str, within_s: float = 60.0) -> None:
        """Wait until the job has printed the line `text`."""
        wait_until(lambda: text in self.lines(job), within_s, f"{job.id} to print {text!r}")

    def lines(self, job: Job) -> list[str]:
        """What the job printed, as the platform has it now."""
        return [line.text for line in self.log(job) if line.stream != "system"]

    def log(self, job: Job) -> list[LogLine]:
        """Every line of the job's log, the platform's remarks too."""
        return list(self.client.jobs.logs(job))


def _supervisors(process: psutil.Process) -> list[psutil.Process]:
    return [one for one in process.parents() if "agent.launcher" in one.cmdline()][:1]


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _environ(process: psutil.Process) -> bytes:
    try:
        return Path(f"/proc/{process.pid}/environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return b""


@contextmanager
def a_platform(nodes: int = 1, profile: str = "", simulation: str = "", **environment: str) -> Iterator[Platform]:
    """A platform that is not started yet, and is gone afterwards. Its logs are printed if the test failed."""
    # Not below pytest's own folder: that is closed to the account that the servers run as.
    folder = Path(tempfile.mkdtemp(prefix="trellis-e2e-"))
    folder.chmod(0o711)
    platform = Platform(folder, nodes, environment, profile, simulation=simulation)
    try:
        yield platform
    finally:
        platform.close()
        if not os.environ.get("KEEP_E2E"):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def running(nodes: int = 1, profile: str = "", simulation: str = "", **environment: str) -> Iterator[Platform]:
    """A platform that is up."""
    with a_platform(nodes, profile, simulation, **environment) as platform:
        platform.start()
        yield platform


def timed(act: Callable[[], object]) -> float:
    """How many seconds `act` took."""
    began = time.monotonic()
    act()
    return time.monotonic() - began
