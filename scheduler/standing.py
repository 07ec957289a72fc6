"""What the rank of a waiting job depends on, beside the job itself."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from scheduler.config import Config
from scheduler.inheritance import Lift
from scheduler.snapshot import PendingJob
from scheduler.usage import Usage


@dataclass(slots=True)
class Standing:
    """Who has how much, how to weigh it, and what is lent through dependencies, by id of the job that gets it.

    Ranks read it each time they are asked for, so whoever keeps it puts in place what has changed.
    """

    usage: Usage
    config: Config = field(default_factory=Config)
    lifts: Mapping[str, Lift] = field(default_factory=dict)

    def priority(self, job: PendingJob) -> int:
        """Return the job's priority, or that of a job that waits for it if that is higher."""
        lift = self.lifts.get(job.id)
        return lift.priority if lift else job.job_class.priority

    def deadline(self, job: PendingJob) -> float | None:
        """Return when the job must have ended, be it for one that waits for it; None where nobody minds."""
        lift = self.lifts.get(job.id)
        return lift.deadline if lift else job.deadline
