"""What the node itself spends on one replica of /bin/true: launcher, supervisor and sandbox, no control plane."""

import select
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from agent import isolation, lease, pokes, trees
from agent.cargo import Cargo
from agent.clock import boottime
from agent.ground import Ground
from agent.launching import Launcher
from agent.layout import Home
from agent.settings import NodeSettings
from benchmarks.cpu import CpuMeter, machine_busy_s
from benchmarks.lines import Printer, say
from benchmarks.stack import BenchError
from trellis.vocabulary import ExecutorKind, NetworkPolicy
from trellis.wire import ReplicaSpec

ROUNDS, REPLICAS, AT_ONCE = 10, 48, 4
WITHIN_S = 10.0


def measure(printer: Printer) -> None:
    """CPU ms a replica of all its processes, and of the machine: the kernel's own threads tidy up after a sandbox.

    The value is the cheapest round's: others on the machine make a round dearer, never cheaper.
    """
    with _ground() as ground:
        say(f"confinement: {ground.confinement.detail}")
        poke = pokes.listen(ground.home.poke)
        launcher = Launcher(ground)
        launcher.warm()
        _round(ground, launcher, poke, "warm")
        meter = CpuMeter({"launcher": launcher.pid or 0})
        try:
            rounds = [_metered(meter, partial(_round, ground, launcher, poke, str(n))) for n in range(ROUNDS)]
        finally:
            meter.close()
            launcher.close()
        more = {"at_once": AT_ONCE, "isolation": ground.confinement.level, "n": ROUNDS * REPLICAS}
        for name, values in zip(("cpu", "machine", "wall"), zip(*rounds, strict=True), strict=True):
            each = sorted(value * 1000 / REPLICAS for value in values)
            printer.line(f"node.replica.{name}", each[0], "ms", median=round(each[len(each) // 2], 2), **more)


def _metered(meter: CpuMeter, act: Callable[[], None]) -> tuple[float, float, float]:
    """Seconds: CPU of the launcher and all below it, CPU of the machine, and by the clock."""
    cpu, machine, began = sum(meter.seconds().values()), machine_busy_s(), time.monotonic()
    act()
    return sum(meter.seconds().values()) - cpu, machine_busy_s() - machine, time.monotonic() - began


@contextmanager
def _ground() -> Iterator[Ground]:
    with tempfile.TemporaryDirectory(prefix="trellis-bench-") as folder:
        Path(folder).chmod(0o711)
        settings = NodeSettings("", home=Path(folder) / "home")
        Home(settings.home).create()
        ground = isolation.settle(settings, {})
        lease.renew(ground.home, boottime(), 3600.0)
        yield ground


def _round(ground: Ground, launcher: Launcher, poke: int, name: str) -> None:
    for first in range(0, REPLICAS, AT_ONCE):
        _run(ground, launcher, poke, [f"{name}-{n}" for n in range(first, first + AT_ONCE)])


def _run(ground: Ground, launcher: Launcher, poke: int, names: list[str]) -> None:
    if failed := launcher.launch([_spec(name) for name in names]):
        raise BenchError(f"a replica could not be launched: {failed}")
    waiting = {name: Cargo(ground.home.replica(name, 1)) for name in names}
    deadline = time.monotonic() + WITHIN_S
    poller = select.poll()
    poller.register(poke, select.POLLIN)
    while waiting:
        poller.poll(100)
        pokes.drain(poke)
        for name, cargo in list(waiting.items()):
            cargo.next_load()
            if cargo.ended and not cargo.replica.alive():
                trees.remove(waiting.pop(name).replica.path)
        if time.monotonic() > deadline:
            raise BenchError(f"{len(waiting)} replicas had not ended after {WITHIN_S:.0f} s")


def _spec(name: str) -> ReplicaSpec:
    return ReplicaSpec(
        replica_id=name, job_id="bench", project_id="bench", job_name="bench", attempt=1, fence=1, index=0, count=1,
        command=("/bin/true",), script=None, script_name="", arguments=(), environment={}, cpu_milli=1000,
        memory_bytes=1 << 30, gpus=(), time_limit_s=None, grace_s=30, executor=ExecutorKind.PROCESS,
        network=NetworkPolicy.NONE,
    )  # fmt: skip
