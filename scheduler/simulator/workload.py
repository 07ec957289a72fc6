"""What a simulated cluster is given to do."""

from dataclasses import dataclass

from scheduler.snapshot import JobClass


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
