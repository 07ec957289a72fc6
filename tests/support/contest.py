"""Two projects that always want more than there is, on paper: what does one of them gain by how it asks?"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from scheduler.config import Config
from scheduler.engine import plan
from scheduler.snapshot import Account, PendingJob, RunningJob, Snapshot
from scheduler.usage import blend
from tests.support.clusters import DEFAULT, a_job, a_node, a_request, applied, without

STEP_S = 600.0
HALF_LIFE_S = 3600.0
CPUS = 8

Asks = Callable[[str, float], list[PendingJob]]
"""Makes new jobs; given are a prefix for their ids and the time."""


def plain(project: str, *, cpus: int = 1, **values: float) -> Asks:
    """Ask for one job of so many CPUs; `values` are those of the job, deadlines counted from when it comes."""

    def ask(prefix: str, now: float) -> list[PendingJob]:
        job = a_job(f"{project}-{prefix}", a_request(cpus=cpus, gib=0), at=now, project=project)
        due = values.get("deadline")
        expected = values.get("expected_s")
        return [replace(job, deadline=None if due is None else now + due, expected_s=expected)]

    return ask


@dataclass(slots=True)
class Contest:
    """A node of eight CPUs; both sides keep `backlog` jobs waiting, each of which runs for `run_s`.

    `meddle` is called at each step with the contest, before the plan: what a cheat does with jobs that wait or run.
    """

    config: Config
    sides: dict[str, Asks]
    run_s: dict[str, float] = field(default_factory=dict)
    backlog: int = 12
    meddle: Callable[["Contest"], None] | None = None
    now: float = 0.0
    waiting: list[PendingJob] = field(default_factory=list)
    running: list[RunningJob] = field(default_factory=list)
    past: dict[str, float] = field(default_factory=dict)
    had: dict[str, float] = field(default_factory=dict)
    asked: int = 0

    def play(self, hours: float) -> dict[str, float]:
        """Go on for so long; return which part of the whole time's CPUs each side has had."""
        steps = round(hours * 3600 / STEP_S)
        for _ in range(steps):
            self._step()
        return {side: had / (steps * CPUS) for side, had in self.had.items()}

    def cancel(self, job_id: str) -> None:
        """Take a job away, whether it waits or runs."""
        self.waiting = [job for job in self.waiting if job.id != job_id]
        self.running = [job for job in self.running if job.id != job_id]

    def _step(self) -> None:
        self.running = [
            job for job in self.running if job.started_at + self.run_s.get(job.job_class.project_id, 3600.0) > self.now
        ]
        for side, asks in self.sides.items():
            while sum(job.job_class.project_id == side for job in self.waiting) < self.backlog:
                self.asked += 1
                self.waiting += asks(f"{self.asked:06}", self.now)
        if self.meddle is not None:
            self.meddle(self)
        after = applied(self._snapshot(), plan(self._snapshot(), self.config))
        self.waiting, self.running = list(after.pending), list(after.running)
        for side in self.sides:
            cpus = sum(
                one.cpu_milli for job in self.running for one in job.holdings if job.job_class.project_id == side
            )
            self.had[side] = self.had.get(side, 0.0) + cpus / 1000
            self.past[side] = blend(self.past.get(side, 0.0), cpus / 1000 / CPUS, STEP_S, HALF_LIFE_S)
        self.now += STEP_S

    def _snapshot(self) -> Snapshot:
        held = [holding for job in self.running for holding in job.holdings]
        accounts = tuple(Account(side, used=self.past.get(side, 0.0)) for side in self.sides)
        node = without(a_node(cpus=CPUS), held)
        return Snapshot(self.now, (node,), (DEFAULT,), tuple(self.waiting), tuple(self.running), accounts=accounts)
