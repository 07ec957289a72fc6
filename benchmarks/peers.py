"""The same measurements of Slurm, from the system's packages: `python -m benchmarks.peers`.

A controller and four virtual nodes of eight CPUs with a munge of their own, everything in a temporary folder and on
the loopback. Where Slurm is not installed, or we are not root (its nodes must be), one line says so.
"""

import contextlib
import os
import secrets
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from agent.privileges import adopt_orphans
from app.cli.ports import LOOPBACK, free_port
from benchmarks.lines import Printer, say
from benchmarks.stack import NODES, SLOTS, BenchError

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scancel", "squeue", "sinfo")
JOBS, CLIENTS, SUBMITS, CANCELS = 1000, 8, 30, 20
READY_S, DRAIN_S, STOP_S = 40.0, 120.0, 10.0
WITHIN_S = 300
# The better of two tunings that were tried; its defaults start a batch job two seconds later.
TUNED = "batch_sched_delay=0,sched_interval=5,sched_min_interval=0,bf_interval=5,bf_continue,default_queue_depth=200"


@dataclass(frozen=True, slots=True)
class Slurm:
    """A cluster that runs; `folder` is open to whatever its jobs write."""

    folder: Path
    environment: dict[str, str]

    def call(self, *argv: str) -> str:
        """What the command prints. Raises BenchError with what it complains of."""
        done = subprocess.run(
            argv, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            raise BenchError(f"{argv[0]}: {done.stderr.strip()[-500:]}")
        return done.stdout.strip()

    def submit(self, *options: str) -> str:
        """The id of a new batch job."""
        return self.call("sbatch", "--parsable", *options)

    def wait_empty(self) -> None:
        """Wait until no job is left in the queue. Raises BenchError."""
        deadline = time.monotonic() + DRAIN_S
        while self.call("squeue", "-h", "-o", "%i"):
            if time.monotonic() > deadline:
                raise BenchError(f"Slurm still had jobs after {DRAIN_S:.0f} s")
            time.sleep(0.1)


def main() -> int:
    """Measure, or say why not."""
    missing = [program for program in PROGRAMS if _find(program) is None]
    if missing or os.geteuid() != 0:
        why = f"not installed: {', '.join(missing)}" if missing else "its nodes need root"
        say(f"Slurm is not measured: {why}")
        return 0
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, lambda *_: sys.exit("bench: not done in time"))
    signal.alarm(WITHIN_S)
    try:
        with _cluster() as slurm:
            _latency(slurm, Printer())
            _cancel(slurm, Printer())
            _throughput(slurm, Printer())
    except BenchError as error:
        say(f"Slurm was not measured: {error}")
        return 1
    return 0


def _latency(slurm: Slurm, printer: Printer) -> None:
    """`sbatch` to its own answer, and to the first line that the job writes, as a reader of its output sees it."""
    answered, seen = [], []
    for number in range(SUBMITS + 2):
        time.sleep(0.3 + secrets.randbelow(1000) / 1000)  # in no step with its timers
        output = slurm.folder / f"line-{number}"
        began = time.monotonic()
        slurm.submit("-o", str(output), "--wrap", "/bin/date")
        answered.append(time.monotonic() - began)
        while not (output.exists() and output.stat().st_size):
            time.sleep(0.001)
        seen.append(time.monotonic() - began)
        slurm.wait_empty()
    printer.times("slurm.sbatch_answered", answered[2:])
    printer.times("slurm.sbatch_to_first_line", seen[2:])


def _cancel(slurm: Slurm, printer: Printer) -> None:
    gone = []
    for number in range(CANCELS):
        note = slurm.folder / f"pid-{number}"
        job = slurm.submit("-o", "/dev/null", "--wrap", f"echo $$ > {note}.new; mv {note}.new {note}; exec sleep 1000")
        while not note.exists():
            time.sleep(0.005)
        handle = os.pidfd_open(int(note.read_text()))
        try:
            began = time.monotonic()
            slurm.call("scancel", job)
            if not select.select([handle], [], [], 20.0)[0]:
                raise BenchError("a cancelled job still ran after 20 s")
            gone.append(time.monotonic() - began)
        finally:
            os.close(handle)
        slurm.wait_empty()
    printer.times("slurm.scancel_to_process_gone", gone)


def _throughput(slurm: Slurm, printer: Printer) -> None:
    """Separate jobs of eight clients, and one array of as many."""
    job = ("-o", "/dev/null", "--wrap", "/bin/true")
    began = time.monotonic()
    clients = [threading.Thread(target=_submit_many, args=(slurm, job, JOBS // CLIENTS)) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    submitted = time.monotonic() - began
    slurm.wait_empty()
    seconds = time.monotonic() - began
    printer.line(
        "slurm.throughput.single", JOBS / seconds, "jobs/s", jobs=JOBS, clients=CLIENTS, slots=SLOTS,
        seconds=round(seconds, 2), submitting_s=round(submitted, 2),
    )  # fmt: skip
    began = time.monotonic()
    slurm.submit(f"--array=0-{JOBS - 1}", *job)
    slurm.wait_empty()
    seconds = time.monotonic() - began
    printer.line("slurm.throughput.array", JOBS / seconds, "jobs/s", jobs=JOBS, slots=SLOTS, seconds=round(seconds, 2))


def _submit_many(slurm: Slurm, job: Sequence[str], count: int) -> None:
    for _ in range(count):
        slurm.submit(*job)


@contextlib.contextmanager
def _cluster() -> Iterator[Slurm]:
    folder = Path(tempfile.mkdtemp(prefix="trellis-slurm-"))
    folder.chmod(0o755)
    started: list[subprocess.Popen[bytes]] = []
    adopt_orphans()  # the processes of its jobs outlive its daemons: they come to us, and go with us
    try:
        _write_files(folder)
        slurm = Slurm(folder, {"PATH": _PATH, "SLURM_CONF": str(folder / "slurm.conf"), "HOME": str(folder)})
        started.append(_start(slurm, "munged", "-F", "--force", *_munge_files(folder)))
        _wait_until((folder / "munge.socket").exists, "munge")
        started.append(_start(slurm, "slurmctld", "-D", "-c"))
        started.extend(_start(slurm, "slurmd", "-D", "-N", f"n{number}") for number in range(1, NODES + 1))
        _wait_until(lambda: _idle_nodes(slurm) == NODES, "the nodes of Slurm")
        yield slurm
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for orphan in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                orphan.kill()
                orphan.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _write_files(folder: Path) -> None:
    for name in ("state", *(f"spool-n{number}" for number in range(1, NODES + 1))):
        (folder / name).mkdir(mode=0o755)
    key = folder / "munge.key"
    key.touch(mode=0o600)
    key.write_bytes(secrets.token_bytes(1024))
    ports: list[int] = []
    while len(ports) < NODES + 1:
        ports.append(free_port(avoid=ports))
    nodes = "\n".join(
        f"NodeName=n{number} NodeHostname={_hostname()} NodeAddr={LOOPBACK} Port={ports[number]} CPUs=8 RealMemory=8000"
        for number in range(1, NODES + 1)
    )
    (folder / "slurm.conf").write_text(f"""
ClusterName=bench
SlurmctldHost={_hostname()}({LOOPBACK})
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldDebug=error
SlurmdDebug=error
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters={TUNED}
SlurmdParameters=config_overrides
MaxJobCount=30000
MaxArraySize=10001
MinJobAge=60
KillWait=1
ReturnToService=2
MpiDefault=none
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
""")


def _munge_files(folder: Path) -> list[str]:
    return [
        f"--key-file={folder}/munge.key", f"--socket={folder}/munge.socket", f"--pid-file={folder}/munge.pid",
        f"--log-file={folder}/munge.log", f"--seed-file={folder}/munge.seed",
    ]  # fmt: skip


def _start(slurm: Slurm, program: str, *arguments: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [_find(program) or program, *arguments], cwd=slurm.folder, env=slurm.environment, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip


def _wait_until(is_true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + READY_S
    while not is_true():
        if time.monotonic() > deadline:
            raise BenchError(f"{what} did not come up within {READY_S:.0f} s")
        time.sleep(0.1)


def _idle_nodes(slurm: Slurm) -> int:
    try:
        return slurm.call("sinfo", "-h", "-N", "-o", "%t").split().count("idle")
    except BenchError:
        return 0  # the controller is not there yet


_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def _find(program: str) -> str | None:
    return shutil.which(program, path=_PATH)


def _hostname() -> str:
    return socket.gethostname().partition(".")[0]


if __name__ == "__main__":
    sys.exit(main())
