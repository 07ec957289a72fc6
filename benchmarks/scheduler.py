"""How long one plan takes: the best of a few runs on one core. `plan` is a function: no stack is needed."""

import time
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from benchmarks.lines import Printer
from scheduler.config import Config
from scheduler.engine import plan
from scheduler.snapshot import (
    Account,
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

SEED = 7
NODES, DEVICES, PENDING, CLASSES = 1000, 8, 20_000, 200
MODELS = ("a100", "h100", "l40s", "t4")
GIB = 2**30
NOW = 1_000_000.0
CPU_A_GPU, MEMORY_A_GPU = 8000, 64 * GIB


class Mix(NamedTuple):
    """What classes are drawn from: the GPUs of a replica, in milli, and how many replicas."""

    gpu_milli: tuple[int, ...] = (0, 250, 500, 1000, 1000, 2000, 4000, 8000)
    replicas: tuple[int, ...] = (1, 1, 1, 2, 4)


MIXED = Mix()
RUNNING = [
    JobClass(f"p{number % 4}", f"q{number % 2}", (Role(Request(CPU_A_GPU, MEMORY_A_GPU, 1000)),), priority=number % 3)
    for number in range(12)
]


def measure(printer: Printer) -> None:
    """Plans of large clusters, and the ones that small clusters make all the time."""
    for name, build, config, runs in CASES:
        snapshot = build()
        placed = len(plan(snapshot, config).placements)
        seconds = min(_measure(snapshot, config) for _ in range(runs))
        printer.line(f"scheduler.{name}", seconds * 1000, "ms", seed=SEED, placed=placed, best_of=runs)


def _measure(snapshot: Snapshot, config: Config) -> float:
    begun = time.perf_counter()
    plan(snapshot, config)
    return time.perf_counter() - begun


def large(percent_full: int, count: int = NODES, waiting: int = PENDING, mix: Mix = MIXED) -> Snapshot:
    """Whole-GPU, shared and CPU jobs of four projects in two queues, of three priorities, most with a time limit."""
    random = Random(SEED)
    nodes, running = [], []
    for number in range(count):
        busy = [random.randrange(100) < percent_full for _ in range(DEVICES)]
        running += list(_running_on(number, busy, random))
        nodes.append(_gpu_node(number, busy))
    queues = (Queue("q0", "batch", weight=1), Queue("q1", "research", weight=3, policy="fair_share"))
    classes = [draw_class(random, mix) for _ in range(CLASSES)]
    pending = tuple(_pending(number, random.choice(classes)) for number in range(waiting))
    accounts = tuple(Account(f"p{i}", used=i / 10) for i in range(4))
    return Snapshot(NOW, tuple(nodes), queues, pending, tuple(running), accounts=accounts)


def _gpu_node(number: int, busy: list[bool]) -> Node:
    used = sum(busy)
    return Node(
        id=f"n{number:05}",
        name=f"node-{number:05}",
        ready=True,
        cpu_milli=DEVICES * CPU_A_GPU,
        memory_bytes=DEVICES * MEMORY_A_GPU,
        cpu_milli_free=(DEVICES - used) * CPU_A_GPU,
        memory_bytes_free=(DEVICES - used) * MEMORY_A_GPU,
        gpu_model=MODELS[number % len(MODELS)],
        gpu_milli_free=tuple(0 if one else 1000 for one in busy),
    )


def _running_on(number: int, busy: list[bool], random: Random) -> Iterator[RunningJob]:
    for device, one in enumerate(busy):
        if one:
            holding = Holding(f"n{number:05}", CPU_A_GPU, MEMORY_A_GPU, ((device, 1000),))
            ends_by = NOW + random.randrange(86_400) if random.random() < 0.8 else None
            started_at = NOW - random.randrange(86_400)
            yield RunningJob(f"r{number:05}{device}", random.choice(RUNNING), (holding,), started_at, ends_by)


def draw_class(random: Random, mix: Mix = MIXED) -> JobClass:
    """What a class of pending jobs asks for."""
    gpu_milli = random.choice(mix.gpu_milli)
    request = Request(
        cpu_milli=random.randrange(1, 9) * 1000 * max(1, gpu_milli // 1000),
        memory_bytes=random.randrange(4, 64) * GIB * max(1, gpu_milli // 1000),
        gpu_milli=gpu_milli,
        gpu_models=random.choice(((), *((model,) for model in MODELS))) if gpu_milli else (),
    )
    replicas = random.choice(mix.replicas)
    return JobClass(
        time_limit_s=random.choice((None, random.randrange(60, 86_400))),
        project_id=f"p{random.randrange(4)}",
        queue_id=f"q{random.randrange(2)}",
        priority=random.randrange(3),
        roles=(Role(request, replicas, replicas),),
    )


def _pending(number: int, job_class: JobClass) -> PendingJob:
    return PendingJob(f"j{number:06}", NOW - 1 - number, job_class)


def _one_job() -> Snapshot:
    nodes = tuple(_gpu_node(number, [False] * DEVICES) for number in range(NODES))
    job = PendingJob("j", NOW, JobClass("p", "q", (Role(Request(8000, 64 * GIB, 1000, ("h100",))),)))
    return Snapshot(NOW, nodes, (Queue("q", "default"),), (job,))


def _small(*, busy: bool) -> Snapshot:
    nodes = tuple(
        Node(f"n{i}", f"node-{i}", True, 8000, 16 * GIB, 0 if busy else 8000, (8 if busy else 16) * GIB)
        for i in range(4)
    )
    job_class = JobClass("p", "q", (Role(Request(1000, GIB)),))
    count = 32 if busy else 0
    running = tuple(RunningJob(f"r{i}", job_class, (Holding(f"n{i % 4}", 1000, GIB),)) for i in range(count))
    pending = tuple(PendingJob(f"j{i:04}", float(i), job_class) for i in range(1000))
    return Snapshot(NOW, nodes, (Queue("q", "default"),), pending, running)


# "large": 1000 nodes of 8 GPUs and 20,000 pending jobs in 200 classes.
CASES: tuple[tuple[str, Callable[[], Snapshot], Config, int], ...] = (
    ("large_95_percent_full", lambda: large(95), Config(max_placements=PENDING), 3),
    ("large_full", lambda: large(100), Config(), 3),
    ("large_empty", lambda: large(0), Config(max_placements=PENDING), 2),
    ("large_empty_at_most_500_placed", lambda: large(0), Config(), 2),
    ("1000_nodes_idle_one_job", _one_job, Config(), 10),
    ("4_nodes_idle_1000_pending", lambda: _small(busy=False), Config(), 20),
    ("4_nodes_full_1000_pending", lambda: _small(busy=True), Config(), 20),
)
