"""How long it takes to find places on 12,500 nodes: `python -m benchmarks.placement`, on one core, CPU time."""

import time
from collections.abc import Callable, Iterator
from itertools import islice
from math import inf
from random import Random

from benchmarks.lines import Printer
from scheduler.backfill import Guard
from scheduler.capacity import Setting
from scheduler.gang import needed, place_gang
from scheduler.ledger import Ledger
from scheduler.snapshot import ANYWHERE, Constraints, JobClass, Node, Operator, Request, Role, Shape, Term

SEED = 7
NODES, DEVICES, RACK, BLOCK, ZONE = 12_500, 8, 32, 160, 1250
MODELS = ("a100", "h100", "l40s", "t4")
GIB = 2**30
CLASSES, JOBS, RUNS = 200, 35_000, 20


def measure(printer: Printer) -> None:
    """One job after another on an empty and on a full cluster, and a gang that wants to be in one rack."""
    for name, shapes in (("best_fit", False), ("gradient", True)):
        for percent in (0, 95):
            _measure_many(printer, f"{name}_{percent}_percent_full", percent, shapes=shapes)
    _measure_many(printer, "constrained_0_percent_full", 0, shapes=True, constraints=_picky)
    for required in (False, True):
        _measure_gang(printer, required=required)


def _measure_many(
    printer: Printer,
    name: str,
    percent: int,
    *,
    shapes: bool,
    constraints: Callable[[Random], Constraints] | None = None,
) -> None:
    """Place jobs of 200 classes in mixed order; a class that fails once is left alone, as in a plan."""
    random = Random(SEED)
    classes = [_a_class(random, constraints(random) if constraints else ANYWHERE) for _ in range(CLASSES)]
    popular = tuple(Shape(job_class.roles[0].request, 1.0) for job_class in classes[:35]) if shapes else ()
    ledger = Ledger(list(_cluster(random, percent, whole_nodes=False)), Setting(("zone", "block", "rack"), (), popular))
    failed: set[int] = set()
    guard, placed, seconds = Guard((), inf), 0, []
    for job_class in islice(iter(lambda: random.choice(classes), None), 10 * JOBS):
        if placed == JOBS or len(failed) == CLASSES:
            break
        if id(job_class) not in failed:
            begun = time.process_time()
            found = bool(place_gang(ledger, job_class, guard))
            seconds.append(time.process_time() - begun)
            ledger.settle()
            placed += found
            if not found:
                failed.add(id(job_class))
    printer.line(f"placement.{name}", sum(seconds), "s", placed=placed, attempts=len(seconds), seed=SEED)
    printer.times(f"placement.{name}.each", seconds, seed=SEED)


def _measure_gang(printer: Printer, *, required: bool) -> None:
    random = Random(SEED)
    ledger = Ledger(list(_cluster(random, 70, whole_nodes=True)), Setting(("zone", "block", "rack")))
    wish = Constraints(within="block" if required else "rack", within_required=required)
    request, count = Request(64_000, 400 * GIB, 8000), 24 if required else 64
    seconds = []
    for number in range(RUNS + 1):
        # A class of its own each time: what is asked for alike is known, who asks is not.
        job_class = JobClass(f"p{number}", "q", (Role(request, count, count),), constraints=wish)
        mark, begun = ledger.mark(), time.process_time()
        grants = place_gang(ledger, job_class, Guard((), inf))
        seconds.append(time.process_time() - begun)
        assert len(grants) == needed(job_class), "the gang has no room: nothing was measured"
        ledger.rollback(mark)
    name = f"gang_of_{count}_{'one_block' if required else 'rack_preferred'}_70_percent_full"
    printer.times(f"placement.{name}", seconds[1:], seed=SEED, first_ms=round(seconds[0] * 1000, 1))


def _cluster(random: Random, percent_full: int, *, whole_nodes: bool) -> Iterator[Node]:
    for number in range(NODES):
        if whole_nodes:
            busy = [random.randrange(100) < percent_full] * DEVICES
        else:
            busy = [random.randrange(100) < percent_full for _ in range(DEVICES)]
        free = DEVICES - sum(busy)
        yield Node(
            id=f"n{number:05}",
            name=f"node-{number:05}",
            ready=True,
            cpu_milli=DEVICES * 8000,
            memory_bytes=DEVICES * 64 * GIB,
            cpu_milli_free=free * 8000,
            memory_bytes_free=free * 64 * GIB,
            gpu_model=MODELS[number // BLOCK % len(MODELS)],
            gpu_milli_free=tuple(0 if one else 1000 for one in busy),
            gpu_links=(0,) * DEVICES,
            gpu_numa=(0,) * (DEVICES // 2) + (1,) * (DEVICES // 2),
            domains=(f"z{number // ZONE}", f"b{number // BLOCK}", f"r{number // RACK}"),
            labels=(("disk", ("ssd", "hdd")[number % 2]),),
        )


def _a_class(random: Random, constraints: Constraints) -> JobClass:
    gpu_milli = random.choice((0, 250, 500, 1000, 1000, 2000, 4000, 8000))
    times = max(1, gpu_milli // 1000)
    models = (random.choice(MODELS),) if gpu_milli and random.random() < 0.8 else ()
    request = Request(random.randrange(1, 9) * 1000 * times, random.randrange(4, 64) * GIB * times, gpu_milli, models)
    return JobClass("p", "q", (Role(request),), constraints=constraints)


def _picky(random: Random) -> Constraints:
    """One of the two kinds of disk, or one of six pairs of zones: eight sets of nodes that overlap."""
    disk = Term("disk", Operator.IN, (random.choice(("ssd", "hdd")),))
    zone = random.randrange(6)
    zones = Term("zone", Operator.IN, (f"z{zone}", f"z{zone + 4}"))
    return Constraints(selector=(random.choice((disk, zones)),))


if __name__ == "__main__":
    measure(Printer())
