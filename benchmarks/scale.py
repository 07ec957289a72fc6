"""Plans at the size of the largest clusters: 12,500 nodes of 8 GPUs, 100,000 jobs that wait; on one core, CPU time.

The planner is kept from plan to plan, as the platform keeps it: to read everything anew costs what `build` says.
"""

import gc
import time
from dataclasses import replace
from random import Random

from benchmarks.lines import Printer, percentile
from benchmarks.scheduler import MIXED, NOW, SEED, Mix, draw_class, large
from scheduler.config import Config
from scheduler.engine import Planner
from scheduler.plan import Plan
from scheduler.snapshot import PendingJob, Snapshot

NODES, PENDING = 12_500, 100_000
ARRIVALS = 500
RUNS = 3
CONFIG = Config(max_placements=PENDING)
ALONE = Mix((500, 1000, 1000, 2000, 4000, 8000), (1,))
"""About 35,000 such jobs fill the cluster; of those of `MIXED` more, with twice as many replicas."""
CASES = (("95_percent_full", 95, MIXED), ("empty", 0, ALONE), ("empty_for_small_gangs", 0, MIXED))


def measure(printer: Printer) -> None:
    """Whole plans of a full and of an empty cluster, and what one more job costs."""
    for name, percent, mix in CASES:
        snapshot = large(percent, NODES, PENDING, mix)
        _measure_cycle(printer, name, snapshot)
        if percent:
            _measure_arrivals(printer, snapshot, "arrival", most_priority=0)
            _measure_arrivals(printer, snapshot, "arrival_for_whom_others_go", most_priority=2)


def _measure_cycle(printer: Printer, name: str, snapshot: Snapshot) -> None:
    built, planned = [], []
    made = Plan((), ())
    for _ in range(RUNS):
        made = Plan((), ())  # to let go of the one before takes time, too
        begun = time.process_time()
        planner = Planner(snapshot, CONFIG)
        _index(planner)
        built.append(time.process_time() - begun)
        gc.collect()
        gc.freeze()  # what stands there anyhow is not to be gone through while we measure
        begun = time.process_time()
        made = planner.plan(NOW)
        planned.append(time.process_time() - begun)
        gc.unfreeze()
    printer.line(
        f"scale.cycle.{name}",
        min(planned) * 1000,
        "ms",
        seed=SEED,
        nodes=NODES,
        pending=PENDING,
        running=len(snapshot.running),
        placed=len(made.placements),
        replicas=sum(len(one.replicas) for one in made.placements),
        evicted=len(made.evictions),
        verdicts=len(made.verdicts),
        best_of=RUNS,
    )
    printer.line(f"scale.build.{name}", min(built) * 1000, "ms", seed=SEED, best_of=RUNS)


def _index(planner: Planner) -> None:
    """Make what a kept planner has from earlier plans: who runs by priority, by node and by end."""
    planner.occupants.lowest()
    for number in range(NODES):
        planner.occupants.departures(number)
    _ = planner.occupants.releases


def _measure_arrivals(printer: Printer, snapshot: Snapshot, name: str, *, most_priority: int) -> None:
    """One job after another comes to a full cluster where all else is settled; above priority 0, others go for it.

    That such a plan equals one that is made anew, the properties show on small clusters (tests/property).
    """
    random = Random(SEED)
    drawn = [draw_class(random) for _ in range(50)]
    classes = [replace(one, priority=min(one.priority, most_priority)) for one in drawn]
    planner = Planner(replace(snapshot, pending=_patient(snapshot)), CONFIG)
    while _decides(planner.decide(NOW)):
        pass
    seconds, placed, evicted = [], 0, 0
    for number in range(ARRIVALS):
        job = PendingJob(f"new-{number}", NOW, random.choice(classes))
        begun = time.process_time()
        planner.submit(job)
        made = planner.decide(NOW)
        seconds.append(time.process_time() - begun)
        placed += len(made.placements)
        evicted += len(made.evictions)
        for one in made.evictions:  # they end at once: the next plan finds their room free
            planner.end(one.job_id)
    p99 = percentile(seconds, 99) * 1000
    printer.times(f"scale.{name}", seconds, p99=round(p99, 2), seed=SEED, placed=placed, evicted=evicted)


def _patient(snapshot: Snapshot) -> tuple[PendingJob, ...]:
    """All that wait, but as jobs of the lowest priority, for whom nobody is sent away."""
    classes = {job.job_class: replace(job.job_class, priority=0) for job in snapshot.pending}
    return tuple(replace(job, job_class=classes[job.job_class]) for job in snapshot.pending)


def _decides(made: Plan) -> bool:
    return bool(made.placements or made.evictions)
