"""The daemon's side of the launcher."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from threading import Lock
from typing import Any

import agent
from agent import frames
from agent.ground import Ground
from agent.layout import ReplicaDir
from trellis.wire import ReplicaSpec, pack

_LOG_BYTES = 1 << 20
_ANSWER_WITHIN_S = 60.0


def program_environment() -> dict[str, str]:
    """What a process of the agent starts with: where its code is, and nothing of this process's environment."""
    code = str(Path(agent.__file__).resolve().parent.parent)
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8", "PYTHONPATH": code}


class Launcher:
    """Keeps the launcher process; one that died is started again. Any thread may call."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._lock = Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stream: socket.socket | None = None

    @property
    def pid(self) -> int | None:
        """Of the launcher process; None before the first."""
        return self._process.pid if self._process else None

    def warm(self) -> None:
        """See to it that there is one, so that the next launch need not wait for it."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()

    def launch(self, specs: list[ReplicaSpec]) -> dict[str, str]:
        """Start these replicas; those that were launched before are left alone. Returns what failed, by replica id."""
        with self._lock:
            try:
                return self._ask(specs)
            except (OSError, EOFError):
                # It died. What it had started bears a directory, so asking again starts nothing twice.
                self._start()
                return self._ask(specs)

    def take_up(self, replica: ReplicaDir) -> dict[str, str]:
        """Have a replica whose supervisor died supervised again; what failed, by the replica's name. Raises OSError."""
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                self._start()
            return self._send([{frames.TAKE_UP: replica.path.name}])

    def close(self) -> None:
        """Let it end; supervisors go on."""
        with self._lock:
            self._hang_up()

    def _ask(self, specs: list[ReplicaSpec]) -> dict[str, str]:
        return self._send(pack(specs))

    def _send(self, frame: list[dict[str, Any]]) -> dict[str, str]:
        stream = self._stream or self._start()
        frames.send(stream, frame)
        failed: dict[str, str] | None = frames.receive(stream)
        if failed is None:
            raise EOFError("the launcher hung up")
        return failed

    def _start(self) -> socket.socket:
        self._hang_up()
        log = self._ground.home.path / "launcher.log"
        if log.exists() and log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_suffix(".log.1"))
        ours, theirs = socket.socketpair()
        ours.settimeout(_ANSWER_WITHIN_S)
        command = [sys.executable, "-m", "agent.launcher", str(theirs.fileno()), json.dumps(pack(self._ground))]
        with theirs, log.open("ab") as errors:
            self._process = subprocess.Popen(
                command, env=program_environment(), cwd="/", pass_fds=[theirs.fileno()], start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
            )  # fmt: skip
        self._stream = ours
        return ours

    def _hang_up(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._process is not None:
            try:
                self._process.wait(timeout=2.0)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
