"""Rank that a job gets from those that wait for it (SCH-7), so that the urgent never waits on the idle.

A job is as urgent as the most urgent one that needs it, and must end in time for that one to run. What is lent is
bounded: only within one project, never more than the lender has, and only by jobs that can come to run at all.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf, isfinite

from scheduler.snapshot import BlockedJob, PendingJob, RunningJob


@dataclass(frozen=True, slots=True)
class Lift:
    """What a job's rank becomes; `lender_id` is whose priority that is, or, if only the deadline is lent, whose that is.

    `deadline` is on the snapshot's clock: the lender's, less the time that everything in between is thought to run.
    """

    priority: int
    deadline: float | None
    lender_id: str


@dataclass(slots=True)
class _Rank:
    """Lowest first, each with the id of who lends it; "" is the job itself, and comes first among equals."""

    urgency: tuple[int, str]
    due: tuple[float, str]

    def lend(self, lender_id: str, expected_s: float) -> "_Rank":
        """Return what a job with this rank, which runs `expected_s`, gives to those it needs."""
        (urgency, urgency_of), (due, due_of) = self.urgency, self.due
        return _Rank((urgency, urgency_of or lender_id), (due - expected_s, due_of or lender_id))

    def raise_to(self, lent: "_Rank") -> None:
        """Take what is better of the own and the lent."""
        self.urgency, self.due = min(self.urgency, lent.urgency), min(self.due, lent.due)


def inherit(blocked: Sequence[BlockedJob], jobs: Mapping[str, PendingJob | RunningJob]) -> dict[str, Lift]:
    """Return the lifts, by id, of those of `jobs` that get any.

    One pass from the last dependent to the first need: time and space grow with the number of needs. A job that can
    never start, because it waits in a circle or for one, lends nothing; needs of which nothing is known are met.
    Raises: ValueError for a blocked job that comes twice, is in `jobs` too, or is to run for less than no time.
    """
    waiting = {job.id: job for job in blocked}
    _check(blocked, waiting, jobs)
    ranks: dict[str, _Rank] = {}
    for job in reversed(_in_order(waiting)):
        lent = (ranks.get(job.id) or _own_rank(job)).lend(job.id, job.expected_s)
        for need in job.needs:
            other = waiting.get(need) or jobs.get(need)
            if other is not None and _project(other) == job.project_id:
                if need not in ranks:
                    ranks[need] = _own_rank(other)
                ranks[need].raise_to(lent)
    return {job_id: lift for job_id in ranks if job_id in jobs and (lift := _lift(ranks[job_id])) is not None}


def _lift(rank: _Rank) -> Lift | None:
    (urgency, urgency_of), (due, due_of) = rank.urgency, rank.due
    lender_id = urgency_of or due_of
    return Lift(-urgency, due if isfinite(due) else None, lender_id) if lender_id else None


def _in_order(waiting: Mapping[str, BlockedJob]) -> list[BlockedJob]:
    """Return the blocked jobs that can come to run, each behind all that it needs (Kahn 1962)."""
    unmet = {job.id: len({need for need in job.needs if need in waiting}) for job in waiting.values()}
    dependents: dict[str, list[BlockedJob]] = {}
    for job in waiting.values():
        for need in set(job.needs):
            dependents.setdefault(need, []).append(job)
    found = [job for job in waiting.values() if not unmet[job.id]]
    for job in found:  # grows as it is walked
        for dependent in dependents.get(job.id, ()):
            unmet[dependent.id] -= 1
            if not unmet[dependent.id]:
                found.append(dependent)
    return found


def _own_rank(job: PendingJob | RunningJob | BlockedJob) -> _Rank:
    if isinstance(job, RunningJob):
        return _Rank((-job.job_class.priority, ""), (inf, ""))
    priority = job.priority if isinstance(job, BlockedJob) else job.job_class.priority
    return _Rank((-priority, ""), (inf if job.deadline is None else job.deadline, ""))


def _project(job: PendingJob | RunningJob | BlockedJob) -> str:
    return job.project_id if isinstance(job, BlockedJob) else job.job_class.project_id


def _check(
    blocked: Sequence[BlockedJob], waiting: Mapping[str, BlockedJob], jobs: Mapping[str, PendingJob | RunningJob]
) -> None:
    if len(waiting) < len(blocked):
        raise ValueError("two blocked jobs of the snapshot have the same id")
    for job in blocked:
        if job.id in jobs:
            raise ValueError(f"job {job.id} is blocked, and is pending or runs as well")
        if not 0 <= job.expected_s < inf:
            raise ValueError(f"job {job.id} is expected to run for {job.expected_s} s")
