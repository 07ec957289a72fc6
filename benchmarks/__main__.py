"""`python -m benchmarks [SECTION ...]`: measure a stack of its own, in at most six minutes.

One JSON object a line goes to standard output, prose to standard error. Exit code 1 if a section failed.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import NoReturn

from benchmarks import (
    arrays,
    backlog,
    checkpoint,
    cycle,
    followers,
    latency,
    metrics,
    node,
    pipelines,
    rest,
    scheduler,
    simulated,
    stages,
    startup,
    throughput,
)
from benchmarks.bench import Bench
from benchmarks.cpu import CpuMeter
from benchmarks.lines import Printer, say
from benchmarks.stack import NODES, SLOTS, BenchError, Stack, folder_for_stack
from trellis.errors import TrellisError

WITHIN_S = 350
ON_STACK: dict[str, Callable[[Bench], None]] = {
    "latency": latency.measure,
    "throughput": throughput.measure,
    "rest": rest.measure,
    "arrays": arrays.measure,
    "backlog": backlog.measure,
    "cycle": cycle.measure,
    "followers": followers.measure,
    "pipelines": pipelines.measure,
}
# The first takes as long as all the others, the second 5 GiB of disk, the others a minute and more.
ON_DEMAND = ("simulated", "checkpoint", "metrics", "pipelines", "stages")
SECTIONS = ("startup", *(name for name in ON_STACK if name not in ON_DEMAND), "node", "scheduler")


def main() -> int:
    """Run the sections that were asked for; where none was, all but those ON_DEMAND."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("sections", nargs="*", metavar="SECTION", help=", ".join((*SECTIONS, *ON_DEMAND)))
    parser.add_argument(
        "--nodes", type=int, choices=(1, 2, 4, 8), default=NODES, help=f"over which {SLOTS} slots are spread"
    )
    given = parser.parse_args()
    wanted = given.sections or list(SECTIONS)
    known = (*SECTIONS, *ON_DEMAND)
    if unknown := set(wanted) - set(known):
        parser.error(f"there is no section {', '.join(sorted(unknown))}: there are {', '.join(known)}")
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _end)
    signal.alarm(WITHIN_S)
    failed = [name for name, act in _plan(wanted, given.nodes) if not _done(name, act)]
    if failed:
        say(f"failed: {', '.join(failed)}")
    return 1 if failed else 0


def _plan(wanted: Sequence[str], nodes: int) -> Iterator[tuple[str, Callable[[], None]]]:
    """The sections in order; the stack lives for as long as one needs it."""
    if "startup" in wanted:
        yield "startup of commands", lambda: startup.measure_commands(Printer())
    on_stack = [name for name in (*ON_STACK, "metrics") if name in wanted]
    if on_stack or "startup" in wanted:
        yield "stack", lambda: _on_stack(on_stack, nodes, cold="startup" in wanted)
    if "node" in wanted:
        yield "node", lambda: node.measure(Printer())
    if "scheduler" in wanted:
        yield "scheduler", lambda: scheduler.measure(Printer())
    if "simulated" in wanted:
        yield "simulated", simulated.measure_all
    if "checkpoint" in wanted:
        yield "checkpoint", lambda: checkpoint.measure(Printer())
    if "stages" in wanted:
        yield "stages", lambda: stages.measure(Printer())


def _on_stack(names: Sequence[str], nodes: int, *, cold: bool) -> None:
    with folder_for_stack(nodes) as stack:
        say(f"starting a stack in {stack.home}")
        if cold:
            startup.measure_stack(Printer(), stack)
        else:
            stack.up()
        stack.wait_for_nodes()
        with _metered(stack) as meter:
            failed = [name for name in names if not _done(name, partial(_on, name, stack, meter))]
    if failed:
        raise BenchError(", ".join(failed))


def _on(name: str, stack: Stack, meter: CpuMeter) -> None:
    act = metrics.measure if name == "metrics" else ON_STACK[name]
    act(Bench(stack, meter, Printer()))


@contextmanager
def _metered(stack: Stack) -> Iterator[CpuMeter]:
    meter = CpuMeter(stack.pids())
    try:
        yield meter
    finally:
        meter.close()


def _done(name: str, act: Callable[[], None]) -> bool:
    say(f"measuring {name}")
    try:
        act()
    except (BenchError, TrellisError, TimeoutError) as error:
        say(f"{name}: {error}")
        return False
    return True


def _end(number: int, _: FrameType | None) -> NoReturn:
    signal.alarm(0)
    why = f"not done after {WITHIN_S} s" if number == signal.SIGALRM else "told to stop"
    sys.exit(f"bench: {why}")


if __name__ == "__main__":
    sys.exit(main())
