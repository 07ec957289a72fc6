"""A trial start: does this machine really keep a job in as far as a confinement says?

    python -m agent.trial GROUND

A process of its own, because an executor takes every child of its process for the job's. Prints JSON: `fault`
is empty, or says what went wrong.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from agent import metric_socket, privileges, workspace
from agent.executors import EXECUTORS
from agent.executors.base import Exit, Start, StartFailed
from agent.ground import Ground
from agent.layout import ReplicaDir
from trellis.vocabulary import ExecutorKind, Isolation, NetworkPolicy
from trellis.wire import ReplicaSpec, unpack

_WITHIN_S = 15.0
_CODE = """
import json, os, sys
def readable(path):
    try:
        open(path).close()
    except OSError:
        return False
    return True
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
open("written", "w").close()
print(json.dumps({"uid": os.getuid(), "capabilities": int(status["CapEff"], 16) | int(status["CapBnd"], 16),
                  "locked": status["NoNewPrivs"].strip() == "1", "filtered": status["Seccomp"].strip() == "2",
                  "sees_home": readable(sys.argv[1])}))
"""


def attempt(ground: Ground) -> str:
    """Run a job that looks around; what is wrong with what it saw, or an empty text."""
    replica = ReplicaDir(ground.home.trash / f"trial-{os.getpid()}", "trial", 0)
    canary = ground.home.path / f".canary-{os.getpid()}"
    canary.touch(mode=0o644)  # readable by anyone who gets that far
    replica.path.mkdir(mode=0o711)
    replica.job.mkdir(mode=0o711)
    try:
        return _run(ground, replica, canary)
    except (OSError, StartFailed) as error:
        return str(error)
    finally:
        canary.unlink()
        shutil.rmtree(replica.path, ignore_errors=True)


def _run(ground: Ground, replica: ReplicaDir, canary: Path) -> str:
    executor = EXECUTORS[ExecutorKind.PROCESS]
    spec = _spec(canary)
    heard, told = os.pipe2(os.O_CLOEXEC)
    running = executor.start(
        Start(ground, replica, spec, workspace.prepare(ground, replica, spec, metric_socket.new_name()), told, told)
    )
    os.close(told)
    deadline = time.monotonic() + _WITHIN_S
    while (ended := executor.poll(running)) is None:
        if time.monotonic() > deadline:
            executor.signal(running, signal.SIGKILL)
            deadline += _WITHIN_S
        time.sleep(0.005)
    return _judge(ground, ended, os.read(heard, 65536).decode(errors="replace"))


def _judge(ground: Ground, ended: Exit, said: str) -> str:
    if ended.code != 0:
        words = said.strip().splitlines()[-1:] or [f"exit code {ended.code}"]
        return words[0]
    seen = json.loads(said)
    confinement = ground.confinement
    if confinement.level is not Isolation.BASIC and seen["sees_home"]:
        return "the trial job could read the node's files"
    if not seen["locked"]:
        return "the trial job could gain privileges"
    if confinement.filtered and not seen["filtered"]:
        return "no system call was refused to the trial job"
    # Only root's own limits matter: a user without capabilities has a full bounding set and no way to use it.
    if os.geteuid() == 0 and seen["uid"] == 0 and seen["capabilities"]:
        return "the trial job had capabilities"
    return ""


def _spec(canary: Path) -> ReplicaSpec:
    return ReplicaSpec(
        replica_id="trial", job_id="trial", project_id="trial", job_name="trial", attempt=1, fence=0, index=0, count=1,
        command=(sys.executable, "-I", "-S", "-c", _CODE, str(canary)), script=None, script_name="", arguments=(),
        environment={}, cpu_milli=0, memory_bytes=0, gpus=(), time_limit_s=None, grace_s=0,
        executor=ExecutorKind.PROCESS, network=NetworkPolicy.NONE,
    )  # fmt: skip


def main(argv: list[str]) -> None:
    """The process's entry point."""
    privileges.adopt_orphans()
    json.dump({"fault": attempt(unpack(Ground, json.loads(argv[1])))}, sys.stdout)


if __name__ == "__main__":
    main(sys.argv)
