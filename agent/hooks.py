"""Hooks: programs of the operator that a node runs when it joins, before a replica and after it, and to check its health.

They run as the agent, in a session of their own, with nothing of this process's environment and nothing that a user
chose: no shell, no argument, only ids and numbers in variables. Each has a time limit.
"""

import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent import clock
from agent.ground import Hooks
from agent.launching import program_environment
from agent.layout import Home, read_json, write_json
from trellis.wire import HookRun, ReplicaSpec, pack, unpack

OUTPUT_BYTES = 2000
KEPT = 50
_PIECE = 65536
TIMED_OUT, NOT_STARTED = -1, -2


@dataclass(frozen=True, slots=True)
class Ran:
    """How a hook ended: its exit code (or TIMED_OUT, NOT_STARTED), and the beginning of what it printed."""

    code: int
    output: str

    @property
    def why(self) -> str:
        """What went wrong, in a line."""
        said = self.output.strip().splitlines()
        how = {TIMED_OUT: "took too long", NOT_STARTED: "can't be started"}.get(self.code, f"ended with {self.code}")
        return f"{how}: {said[0][:300]}" if said else how


def run_hook(program: str, name: str, hooks: Hooks, told: Mapping[str, str]) -> Ran:
    """Run one to its end, or to its time limit: then it is killed with all that it started."""
    environment = {**program_environment(), "TRELLIS_HOOK": name, "TRELLIS_NODE": hooks.node, **told}
    del environment["PYTHONPATH"]
    try:
        process = subprocess.Popen(
            [program], env=environment, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        return Ran(NOT_STARTED, f"{program}: {error.strerror}")
    ended, output = _follow(process, time.monotonic() + hooks.within_s)
    if not ended:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    code = process.wait()
    # The control plane takes no NUL: a heartbeat that told of one would be refused, and the next one too.
    return Ran(code if ended else TIMED_OUT, output.decode(errors="replace").replace("\0", "\ufffd"))


def _follow(process: "subprocess.Popen[bytes]", deadline: float) -> tuple[bool, bytes]:
    """Read what it prints until it has ended; whether it had by `deadline`. What it left behind is not waited for."""
    assert process.stdout is not None
    output, stream, gone = bytearray(), process.stdout.fileno(), os.pidfd_open(process.pid)
    os.set_blocking(stream, False)
    poller = select.poll()
    for fd in (stream, gone):
        poller.register(fd, select.POLLIN)
    try:
        while True:
            ready = {fd for fd, _ in poller.poll(max(0.0, deadline - time.monotonic()) * 1000)}
            if stream in ready and not _read(stream, output):
                poller.unregister(stream)
            if gone in ready:
                _read(stream, output)
                return True, bytes(output)
            if time.monotonic() >= deadline:
                return False, bytes(output)
    finally:
        os.close(gone)
        process.stdout.close()


def _read(stream: int, output: bytearray) -> bool:
    try:
        piece = os.read(stream, _PIECE)
    except BlockingIOError:
        return True
    output += piece[: OUTPUT_BYTES - len(output)]
    return bool(piece)


def about(spec: ReplicaSpec) -> dict[str, str]:
    """What a hook is told of a replica: nothing that its owner chose."""
    return {
        "TRELLIS_JOB_ID": spec.job_id,
        "TRELLIS_PROJECT_ID": spec.project_id,
        "TRELLIS_REPLICA_ID": spec.replica_id,
        "TRELLIS_ATTEMPT": str(spec.attempt),
        "TRELLIS_REPLICA_INDEX": str(spec.index),
        "TRELLIS_CPU_MILLI": str(spec.cpu_milli),
        "TRELLIS_MEMORY_BYTES": str(spec.memory_bytes),
        "TRELLIS_GPUS": ",".join(str(gpu.index) for gpu in spec.gpus),
        "TRELLIS_GPU_UUIDS": ",".join(gpu.uuid for gpu in spec.gpus),
    }


def note(home: Home, run: HookRun) -> None:
    """Keep what is to be told of a hook until the control plane has heard it; beyond KEPT it is not kept."""
    home.hooks.mkdir(mode=0o700, exist_ok=True)
    if len(os.listdir(home.hooks)) < KEPT:
        write_json(home.hooks / f"{clock.micros()}-{os.getpid()}.json", pack(run))


def noted(home: Home) -> dict[Path, HookRun]:
    """What is to be told, the oldest first."""
    if not home.hooks.is_dir():
        return {}
    found = {}
    for path in sorted(home.hooks.glob("*.json"))[:KEPT]:
        if (kept := read_json(path)) is not None:
            found[path] = unpack(HookRun, kept)
    return found
