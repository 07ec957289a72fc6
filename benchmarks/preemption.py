"""How long it takes to find out who must make room, on one core in CPU time, and how much of it that costs the others."""

import time
from collections.abc import Iterator
from random import Random

from benchmarks.lines import Printer
from scheduler.config import Config, Preemption
from scheduler.engine import Planner
from scheduler.plan import Plan
from scheduler.snapshot import (
    Holding,
    JobClass,
    Node,
    PendingJob,
    Queue,
    Request,
    Role,
    RunningJob,
    Snapshot,
)

SEED = 11
NODES, DEVICES, RACK = 12_500, 8, 50
SIZES = (*(1,) * 9, 2, 2, 4)  # so that 60,000 jobs run
MODELS = ("a100", "h100", "l40s", "t4")
GIB = 2**30
NOW = 1_000_000.0
CPU_A_GPU, MEMORY_A_GPU = 8000, 64 * GIB
LEVELS = ("zone", "rack")
RUNS = 5


def measure(printer: Printer) -> None:
    """A full cluster of low priorities, and jobs of a high one that come to it."""
    snapshot = _full_cluster()
    for name, jobs in _cases():
        seconds, made = _measure(snapshot, jobs)
        printer.times(
            f"preemption.{name}",
            seconds,
            seed=SEED,
            nodes=NODES,
            running=len(snapshot.running),
            evicted=len(made.evictions),
            gpu_hours_lost=round(_lost(snapshot, made), 2),
        )


def _measure(snapshot: Snapshot, jobs: list[PendingJob]) -> tuple[list[float], Plan]:
    """Time the decision after the jobs came; the indexes over running jobs are there by then."""
    seconds = []
    for _ in range(RUNS):
        planner = Planner(snapshot, Config(consolidate=False, preemption=Preemption(most_evictions=10_000)))
        planner.occupants.lowest()  # makes the indexes
        planner.decide(NOW)
        for job in jobs:
            planner.submit(job)
        begun = time.process_time()
        made = planner.decide(NOW)
        seconds.append(time.process_time() - begun)
    return seconds, made


def _lost(snapshot: Snapshot, made: Plan) -> float:
    running = {job.id: job for job in snapshot.running}
    evicted = [running[eviction.job_id] for eviction in made.evictions]
    held = ((sum(len(one.gpus) for one in job.holdings), job) for job in evicted)
    return sum(gpus * (NOW - max(job.started_at, job.checkpointed_at or 0)) for gpus, job in held) / 3600


def _full_cluster() -> Snapshot:
    """Every device is held: by single jobs of 1 to 8 GPUs, and by gangs on up to 8 nodes; three priorities."""
    random = Random(SEED)
    nodes = tuple(_node(number) for number in range(NODES))
    running = tuple(_running(random))
    return Snapshot(NOW, nodes, (Queue("q", "default"),), (), running, levels=LEVELS)


def _node(number: int) -> Node:
    rack = number // RACK
    return Node(
        id=f"n{number:05}",
        name=f"node-{number:05}",
        ready=True,
        cpu_milli=DEVICES * CPU_A_GPU,
        memory_bytes=DEVICES * MEMORY_A_GPU,
        cpu_milli_free=0,
        memory_bytes_free=0,
        gpu_model=MODELS[rack % len(MODELS)],
        gpu_milli_free=(0,) * DEVICES,
        domains=(f"z{rack // 50}", f"r{rack}"),
    )


def _running(random: Random) -> Iterator[RunningJob]:
    count = 0
    number = 0
    while number < NODES:
        if random.random() < 0.05:
            nodes = range(number, min(number + random.choice((2, 4, 8)), NODES))
            yield _job(count, random, [(one, range(DEVICES)) for one in nodes])
            count += 1
            number = nodes[-1] + 1
            continue
        left = list(range(DEVICES))
        while left:
            size = min(len(left), random.choice(SIZES))
            yield _job(count, random, [(number, left[:size])])
            count += 1
            del left[:size]
        number += 1


def _job(count: int, random: Random, places: list[tuple[int, range | list[int]]]) -> RunningJob:
    size = len(places[0][1])
    request = Request(CPU_A_GPU * size, MEMORY_A_GPU * size, size * 1000)
    job_class = JobClass("p", "q", (Role(request, len(places), len(places)),), priority=random.choice((0, 0, 1, 20)))
    started_at = NOW - random.expovariate(1 / 20_000)
    checkpointed_at = random.uniform(started_at, NOW) if random.random() < 0.5 else None
    holdings = tuple(
        Holding(f"n{number:05}", request.cpu_milli, request.memory_bytes, tuple((one, 1000) for one in devices))
        for number, devices in places
    )
    return RunningJob(f"r{count:06}", job_class, holdings, started_at, checkpointed_at=checkpointed_at)


def _cases() -> Iterator[tuple[str, list[PendingJob]]]:
    def wants(gpus: int, replicas: int, count: int) -> list[PendingJob]:
        request = Request(CPU_A_GPU * gpus, MEMORY_A_GPU * gpus, 1000 * gpus)
        job_class = JobClass("p", "q", (Role(request, replicas, replicas),), priority=10)
        return [PendingJob(f"j{number:03}", NOW, job_class) for number in range(count)]

    yield "gang_of_64_times_8_gpus", wants(8, 64, 1)
    yield "gang_of_256_times_1_gpu", wants(1, 256, 1)
    yield "one_gpu", wants(1, 1, 1)
    yield "one_node_of_8_gpus", wants(8, 1, 1)
    yield "storm_of_32_single_gpus", wants(1, 1, 32)
