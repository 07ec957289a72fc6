"""`python -m benchmarks.simulated [NODES ...]`: the platform on a simulated cluster of so many nodes, 1000 and 5000.

For each: the time to bring it up, the CPU of doing nothing, and jobs a second from the first submission to the last
end. One JSON object a line goes to standard output, prose to standard error.
"""

import argparse
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from app.cli.ports import free_port
from benchmarks.cpu import CpuMeter
from benchmarks.lines import Printer, say
from benchmarks.stack import ROOT, TRELLIS, BenchError, Stack
from trellis import Client
from trellis.submission import JobBody

SIZES = (1000, 5000)
UP_S, ENDED_S, SETTLE_S, IDLE_S = 300.0, 240.0, 15.0, 20.0
JOBS, BATCH, RUN_TIME = 3000, 500, "20m"  # a minute of play a second: each runs for 20 s
_LEFT = "SELECT count(*) FROM jobs WHERE ended_at IS NULL AND name = 'bench'"
_ENDS = """
    SELECT count(*) FILTER (WHERE state = 'succeeded'), extract(epoch FROM max(ended_at) - min(created_at)),
           extract(epoch FROM max(started_at) - min(created_at))
    FROM jobs WHERE name = 'bench'
"""


def main() -> None:
    """Measure each size that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulated", description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, metavar="NODES", default=SIZES)
    measure_all(parser.parse_args().sizes)


def measure_all(sizes: Sequence[int] = SIZES) -> None:
    """One cluster after another, each from an empty home. Raises BenchError."""
    for size in sizes:
        with _a_home() as home:
            measure(Printer(), home, size)


def measure(printer: Printer, home: Path, nodes: int) -> None:
    """Bring up so many nodes, rest, then play JOBS jobs. Raises BenchError."""
    port = free_port()
    stack = Stack(home, port, free_port(avoid=(port,)), nodes)
    say(f"simulating {nodes} nodes in {home}")
    printer.line(f"simulated.{nodes}.up", _up(stack, nodes), "s")
    try:
        meter = CpuMeter(stack.pids())
        try:
            _rest(printer, meter, nodes)
            _play(printer, meter, stack, nodes)
        finally:
            meter.close()
    finally:
        stack.down()


def _up(stack: Stack, nodes: int) -> float:
    profile = stack.home / "profile.yaml"
    machine = {"name": "dgx", "count": nodes, "gpus": 8, "gpu_type": "H100", "cpu_cores": 96, "memory_gb": 2048}
    profile.write_text(json.dumps({"clusters": [{"nodes": [machine]}], "simulation": {"speed": 60}}))
    began = time.monotonic()
    done = subprocess.run(
        [*TRELLIS, "up", "--detach", "--simulate", str(profile), "--port", str(stack.port),
         "--flower-port", str(stack.flower_port)],
        cwd=stack.home, env=_environment(stack), capture_output=True, text=True, check=False, timeout=UP_S,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    if done.returncode:
        raise BenchError(f"`trellis up --simulate` failed: {(done.stdout + done.stderr)[-2000:]}")
    return time.monotonic() - began


def _environment(stack: Stack) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith("TRELLIS_")}
    return {**kept, "TRELLIS_HOME": str(stack.home), "PYTHONPATH": str(ROOT)}


def _rest(printer: Printer, meter: CpuMeter, nodes: int) -> None:
    time.sleep(SETTLE_S)
    before = meter.seconds()
    time.sleep(IDLE_S)
    used = {name: 100 * (now - before[name]) / IDLE_S for name, now in meter.seconds().items()}
    printer.line(f"simulated.{nodes}.idle", sum(used.values()), "% of a core", **_rounded(used))


def _play(printer: Printer, meter: CpuMeter, stack: Stack, nodes: int) -> None:
    before = meter.seconds()
    with stack.client() as client, stack.database() as database:
        _submit(client)
        deadline = time.monotonic() + ENDED_S
        while database.execute(_LEFT).fetchall()[0][0]:
            if time.monotonic() > deadline:
                raise BenchError(f"{JOBS} jobs had not ended after {ENDED_S:.0f} s")
            time.sleep(0.2)
        succeeded, took_s, started_s = map(float, database.execute(_ENDS).fetchall()[0])
    if succeeded < JOBS:
        raise BenchError(f"{succeeded:.0f} of {JOBS} jobs succeeded")
    spent_ms = {name: 1000 * (now - before[name]) / JOBS for name, now in meter.seconds().items()}
    printer.line(f"simulated.{nodes}.started", JOBS / started_s, "jobs/s")
    printer.line(f"simulated.{nodes}.ended", JOBS / took_s, "jobs/s", run_s=20)
    printer.line(f"simulated.{nodes}.cpu", sum(spent_ms.values()), "ms a job", **_rounded(spent_ms))
    began = time.monotonic()
    with stack.client() as client:
        client.nodes.kinds()
    printer.line(f"simulated.{nodes}.kinds", 1000 * (time.monotonic() - began), "ms")


def _submit(client: Client) -> None:
    body: JobBody = {
        "command": ["true"], "name": "bench", "environment": {"SIMULATE_RUN_TIME": RUN_TIME},
        "resources": {"cpus": 8, "memory": "1GiB", "gpus": 1},
    }  # fmt: skip
    for _ in range(JOBS // BATCH):
        client.jobs.submit_batch([body] * BATCH)


def _rounded(figures: dict[str, float]) -> dict[str, float]:
    return {name: round(figure, 1) for name, figure in figures.items()}


@contextmanager
def _a_home() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="trellis-bench-"))
    folder.chmod(0o711)
    (folder / "home").mkdir(mode=0o711)
    try:
        yield folder / "home"
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
