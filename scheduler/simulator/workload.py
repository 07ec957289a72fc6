"""What a simulated cluster is given to do: jobs, and machines that break."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, log, pi, sin
from random import Random

from scheduler.snapshot import WHOLE, JobClass, Node, Request, Role

HOUR_S = 3600.0
DAY_S = 24 * HOUR_S
QUEUE_ID = "batch"
MOST_FAILURES = 3
LIMITS_S = (600, 1800, 3600, 2 * 3600, 4 * 3600, 8 * 3600, 12 * 3600, 86_400, 2 * 86_400, 4 * 86_400, 7 * 86_400)
"""What people round their limits up to."""


@dataclass(frozen=True, slots=True)
class Work:
    """A job, and what it will do once it runs, which no rule may look at.

    It needs `run_s` seconds with the fewest replicas it starts with. Its first attempts fail after so many seconds as
    `failures` says. `owner` is whose earlier jobs tell how long it may run.
    """

    id: str
    submitted_at: float
    job_class: JobClass
    run_s: float
    owner: str = ""
    deadline: float | None = None
    failures: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Workload:
    """All the work, by time of submission, then id; `dropped` counts what could not be made sense of."""

    works: tuple[Work, ...]
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Outage:
    """A node that is gone for a while, and with it whatever runs there."""

    node_id: str
    starts_at: float
    ends_at: float


@dataclass(frozen=True, slots=True)
class Load:
    """What kind of work to draw.

    So many `jobs`, in number such that they ask for `intensity` of all there is while they come; `daily` (0 to 1) is
    how much more come at noon and less at midnight. `sizes` are pairs of GPUs (CPUs, where there are no GPUs) and
    weight. Run times are log-normal: half are shorter than `median_s`, and `spread` is the deviation of the logarithm.
    Limits are up to `overestimate` times as long. Of the attempts `failing` (0 to 1) fail. A node breaks every
    `node_mtbf_h` hours on average, None: never, and is repaired in `repair_h`.
    """

    jobs: int = 1000
    intensity: float = 0.9
    daily: float = 0.0
    sizes: tuple[tuple[int, float], ...] = ((1, 60.0), (2, 15.0), (4, 10.0), (8, 15.0))
    median_s: float = 1800.0
    spread: float = 1.5
    overestimate: float = 5.0
    users: int = 20
    projects: int = 4
    failing: float = 0.0
    node_mtbf_h: float | None = None
    repair_h: float = 4.0


def draw_workload(load: Load, nodes: Sequence[Node], seed: int) -> Workload:
    """Draw work for a cluster; equal seeds give equal work.

    Raises: ValueError where the cluster has nothing to give, or a size is larger than the cluster.
    """
    random = Random(seed)
    machine = _Machine(nodes)
    classes: dict[tuple[int, int, int], JobClass] = {}
    drawn = [_draw(load, random) for _ in range(load.jobs)]
    asked_s = sum(size * min(run_s, limit_s) for size, run_s, limit_s, _ in drawn)
    pace = asked_s / (machine.units * load.intensity * max(load.jobs, 1))
    works, at = [], 0.0
    for number, (size, run_s, limit_s, user) in enumerate(drawn):
        at += random.expovariate(1.0) * pace / (1.0 + load.daily * sin(2 * pi * (at / DAY_S - 0.25)))
        key = (size, limit_s, user)
        if key not in classes:
            classes[key] = machine.job_class(size, limit_s, f"user{user}", f"project{user % load.projects}")
        failures = tuple(_draw_failures(load.failing, run_s, random))
        works.append(Work(f"{number:07}", round(at), classes[key], run_s, classes[key].user_id, failures=failures))
    return Workload(tuple(works))


def draw_outages(load: Load, nodes: Sequence[Node], until: float, seed: int) -> tuple[Outage, ...]:
    """Draw when nodes break, up to a time; equal seeds give equal outages."""
    if load.node_mtbf_h is None:
        return ()
    random = Random(seed)
    outages = []
    for node in nodes:
        at = random.expovariate(1.0 / (load.node_mtbf_h * HOUR_S))
        while at < until:
            ends_at = at + random.expovariate(1.0 / (load.repair_h * HOUR_S)) + 1.0
            outages.append(Outage(node.id, round(at), round(ends_at) + 1))
            at = outages[-1].ends_at + random.expovariate(1.0 / (load.node_mtbf_h * HOUR_S))
    return tuple(outages)


def _draw(load: Load, random: Random) -> tuple[int, int, int, int]:
    """Size, run time, limit, and user."""
    sizes, weights = zip(*load.sizes, strict=True)
    size = random.choices(sizes, weights)[0]
    # The run times of one user are alike: that is what predictions live on.
    user = min(int(random.expovariate(4.0 / load.users)), load.users - 1)
    habit = Random(user).gauss(0.0, load.spread * 0.8)
    run_s = max(1, round(exp(log(load.median_s) + habit + random.gauss(0.0, load.spread * 0.6))))
    wished_s = run_s * random.uniform(1.0, load.overestimate)
    limit_s = next((limit_s for limit_s in LIMITS_S if limit_s >= wished_s), LIMITS_S[-1])
    return size, run_s, limit_s, user


def _draw_failures(failing: float, run_s: float, random: Random) -> Iterator[float]:
    for _ in range(MOST_FAILURES):
        if random.random() >= failing:
            return
        yield max(1, round(random.random() * run_s))


class _Machine:
    """What of a cluster one job may ask for: its largest kind of node is what requests are cut to."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._largest = max(nodes, key=lambda node: (sum(node.gpu_milli_free), node.cpu_milli), default=None)
        self._nodes = sum(node.cpu_milli >= self._per_node.cpu_milli for node in nodes) if nodes else 0
        gpus = sum(sum(node.gpu_milli_free) for node in nodes) // WHOLE
        self.units = gpus or sum(node.cpu_milli for node in nodes) // WHOLE
        if not self.units:
            raise ValueError("the cluster has neither GPUs nor CPUs")

    @property
    def _per_node(self) -> Node:
        if self._largest is None:
            raise ValueError("the cluster has no node")
        return self._largest

    def job_class(self, size: int, limit_s: int, user_id: str, project_id: str) -> JobClass:
        """A job of `size` GPUs, or CPUs: on one node if it holds as many, else on several whole ones."""
        node = self._per_node
        gpus = sum(node.gpu_milli_free) // WHOLE
        per_node = gpus or node.cpu_milli // WHOLE
        replicas = -(-size // per_node)
        each = -(-size // replicas)
        if replicas > self._nodes:
            raise ValueError(f"sizes: {size} is more than the cluster has")
        share = Request(
            cpu_milli=node.cpu_milli * each // per_node,
            memory_bytes=node.memory_bytes * each // per_node,
            gpu_milli=each * WHOLE if gpus else 0,
        )
        roles = (Role(share, replicas, replicas),)
        return JobClass(project_id, QUEUE_ID, roles, time_limit_s=limit_s, user_id=user_id)
