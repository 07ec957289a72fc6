"""Two projects of equal weight that always want more than there is: how far apart is what they had after a day?

`Account.used` is measured once a minute, as the platform does it, with a half-life of an hour.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from random import Random

from benchmarks.lines import Printer, say
from scheduler.config import Config
from scheduler.engine import plan
from scheduler.plan import Placement
from scheduler.snapshot import Account, Holding, JobClass, Node, PendingJob, Queue, Request, Role, RunningJob, Snapshot
from scheduler.usage import blend

SEED = 5
NODES, DEVICES = 33, 8  # half of it is no whole number of large jobs
GPUS = NODES * DEVICES
HOURS, HALF_LIFE_S, STEP_S = 24, 3600.0, 60.0
GIB = 2**30
CPU_A_GPU, MEMORY_A_GPU = 8000, 64 * GIB


@dataclass(frozen=True, slots=True)
class Habit:
    """What a project submits: jobs of so many GPUs that run for `mean_s` on average, half of it at least."""

    gpus: int
    mean_s: float


ALIKE = (Habit(1, 3600.0), Habit(1, 3600.0))
UNLIKE = (Habit(1, 1800.0), Habit(8, 7200.0))


def measure(printer: Printer) -> None:
    """Projects that do alike, and one of small short jobs against one of large long ones."""
    for name, habits in (("alike", ALIKE), ("small_against_large", UNLIKE)):
        for policy in ("fair_share", ""):
            say(f"fairness: {name}, {policy or 'default'}")
            contest = Contest(dict(zip(("one", "other"), habits, strict=True)), Queue("q", "q", policy=policy))
            begun = time.process_time()
            one, other = contest.play()
            printer.line(
                f"fairness.{name}.{policy or 'default_policy'}",
                100 * abs(one - other) / max(one, other),
                "% apart",
                gpu_hours=[round(one, 1), round(other, 1)],
                used_percent=round(100 * (one + other) / (GPUS * HOURS), 2),
                hours=HOURS,
                half_life_s=HALF_LIFE_S,
                gpus=GPUS,
                jobs=contest.count,
                seed=SEED,
                cpu_s=round(time.process_time() - begun, 1),
            )


@dataclass(slots=True)
class Contest:
    """A cluster on which each project has always so many jobs waiting that they would fill it."""

    habits: dict[str, Habit]
    queue: Queue
    count: int = 0
    _random: Random = field(default_factory=lambda: Random(SEED))
    _waiting: dict[str, PendingJob] = field(default_factory=dict)
    _running: dict[str, RunningJob] = field(default_factory=dict)
    _ends_at: dict[str, float] = field(default_factory=dict)
    _runs_s: dict[str, float] = field(default_factory=dict)
    _used: dict[str, float] = field(default_factory=dict)

    def play(self, hours: int = HOURS) -> list[float]:
        """Let so many hours go by; return the GPU-hours that each project had in them."""
        had_s = dict.fromkeys(self.habits, 0.0)
        for step in range(round(hours * 3600 / STEP_S)):
            self._step(step * STEP_S)
            for project in self.habits:
                held = self._held(project)
                had_s[project] += held * STEP_S
                self._used[project] = blend(self._used.get(project, 0.0), held / GPUS, STEP_S, HALF_LIFE_S)
        return [seconds / 3600 for seconds in had_s.values()]

    def _step(self, now: float) -> None:
        for job_id in [job_id for job_id, ends_at in self._ends_at.items() if ends_at <= now]:
            del self._ends_at[job_id], self._running[job_id]
        for project, habit in self.habits.items():
            waiting = sum(job.job_class.project_id == project for job in self._waiting.values())
            for _ in range(GPUS // habit.gpus - waiting):
                self._submit(project, habit, now)
        for placement in plan(self._snapshot(now), Config()).placements:
            self._start(placement, now)

    def _submit(self, project: str, habit: Habit, now: float) -> None:
        job_id = f"j{self.count:06}"
        self.count += 1
        self._runs_s[job_id] = habit.mean_s * self._random.uniform(0.5, 1.5)
        request = Request(CPU_A_GPU * habit.gpus, MEMORY_A_GPU * habit.gpus, 1000 * habit.gpus)
        job_class = JobClass(project, self.queue.id, (Role(request),), time_limit_s=round(habit.mean_s * 2))
        self._waiting[job_id] = PendingJob(job_id, now, job_class)

    def _start(self, placement: Placement, now: float) -> None:
        job = self._waiting.pop(placement.job_id)
        request = job.job_class.roles[0].request
        holdings = tuple(
            Holding(replica.node_id, request.cpu_milli, request.memory_bytes, replica.gpus)
            for replica in placement.replicas
        )
        ends_by = now + (job.job_class.time_limit_s or 0)
        self._running[job.id] = RunningJob(job.id, job.job_class, holdings, now, ends_by)
        self._ends_at[job.id] = now + self._runs_s.pop(job.id)

    def _held(self, project: str) -> int:
        mine = (job for job in self._running.values() if job.job_class.project_id == project)
        return sum(len(one.gpus) for job in mine for one in job.holdings)

    def _snapshot(self, now: float) -> Snapshot:
        accounts = tuple(Account(project, used=self._used.get(project, 0.0)) for project in self.habits)
        waiting, running = tuple(self._waiting.values()), tuple(self._running.values())
        return Snapshot(now, tuple(self._nodes()), (self.queue,), waiting, running, accounts=accounts)

    def _nodes(self) -> Iterator[Node]:
        busy: dict[str, set[int]] = {}
        for job in self._running.values():
            for one in job.holdings:
                busy.setdefault(one.node_id, set()).update(device for device, _ in one.gpus)
        for node in _EMPTY:
            taken = busy.get(node.id, set())
            free = DEVICES - len(taken)
            yield replace(
                node,
                cpu_milli_free=free * CPU_A_GPU,
                memory_bytes_free=free * MEMORY_A_GPU,
                gpu_milli_free=tuple(0 if device in taken else 1000 for device in range(DEVICES)),
            )


_EMPTY = tuple(
    Node(
        id=f"n{number:02}",
        name=f"node-{number:02}",
        ready=True,
        cpu_milli=DEVICES * CPU_A_GPU,
        memory_bytes=DEVICES * MEMORY_A_GPU,
        cpu_milli_free=DEVICES * CPU_A_GPU,
        memory_bytes_free=DEVICES * MEMORY_A_GPU,
        gpu_model="h100",
        gpu_milli_free=(1000,) * DEVICES,
    )
    for number in range(NODES)
)
