"""What would become of jobs if they came now: the planner's own answer, then the same planner led on through time.

First comes what the next plans do. Where a job still waits and nothing is promised to it, time goes on: every running
job takes all that its limit allows, nobody else comes, and whoever was evicted waits again.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import inf

from scheduler.amounts import asked
from scheduler.config import Config
from scheduler.engine import Planner
from scheduler.plan import Eviction, Placement, Plan, Reason, ReplicaPlacement, Resize, Verdict
from scheduler.snapshot import PendingJob, Snapshot

MOST_PLANS = 100
"""So many plans are made for moments to come before the answer is "later"."""


class Certainty(StrEnum):
    """How sure a start is.

    At once; promised (no later, as long as limits hold and nobody of a higher rank comes); expected (if each job takes all its
    limit allows and nobody comes); later than what was looked at; unknown: it hangs on jobs without a limit; never.
    """

    NOW = "now"
    PROMISED = "promised"
    EXPECTED = "expected"
    LATER = "later"
    UNKNOWN = "unknown"
    NEVER = "never"


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of one job. `starts_at` is on the snapshot's clock; where it is LATER, the start lies behind it.

    `replicas` is where, as far as that is settled; of what is promised only `node_ids` are. `position` is its place in its
    queue, from 1, 0 for one that starts now.
    """

    job_id: str
    certainty: Certainty
    starts_at: float | None = None
    replicas: tuple[ReplicaPlacement, ...] = ()
    node_ids: tuple[str, ...] = ()
    reason: str = ""
    position: int = 0


@dataclass(frozen=True, slots=True)
class Foresight:
    """One fate a job; why those wait that do not start now; who must go for them, or give up replicas, at once."""

    fates: tuple[Fate, ...]
    verdict: Verdict | None = None
    evictions: tuple[Eviction, ...] = ()
    resizes: tuple[Resize, ...] = ()


def foresee(snapshot: Snapshot, config: Config, jobs: Sequence[PendingJob], most_plans: int = MOST_PLANS) -> Foresight:
    """Say what would become of `jobs`, all of one class, if they waited beside all that waits in `snapshot`.

    Raises: ValueError for broken input, as `plan` does.
    """
    course = _Course(snapshot, config, jobs)
    course.settle(snapshot.now)
    evictions, resizes = tuple(course.evictions), tuple(course.resizes)
    fates = {job_id: _at_once(snapshot.now, placement) for job_id, placement in course.placed.items()}
    left = [job for job in jobs if job.id not in fates]
    verdict = course.verdict_on(left[0].id) if left else None
    for job, position in zip(left, course.positions(left), strict=True):
        fates[job.id] = _waiting(job, course, verdict, position)
    unsettled = [job_id for job_id, fate in fates.items() if fate.certainty is Certainty.UNKNOWN]
    if unsettled and verdict is not None and verdict.reason not in (Reason.QUEUE_PAUSED, Reason.NO_NODES):
        for job_id, expected in course.lead_on(unsettled, snapshot.now, most_plans).items():
            fates[job_id] = _expected(fates[job_id], expected)
    return Foresight(tuple(fates[job.id] for job in jobs), verdict, evictions, resizes)


@dataclass(frozen=True, slots=True)
class _Expected:
    """A start that was come upon; without a placement, only that there was none up to then."""

    at: float
    placement: Placement | None = None


class _Course:
    """A planner on its way through time, and what it has done with the jobs that are asked about."""

    def __init__(self, snapshot: Snapshot, config: Config, jobs: Sequence[PendingJob]) -> None:
        pending = (*snapshot.pending, *jobs)
        self.planner = Planner(replace(snapshot, pending=pending), config)
        self.placed: dict[str, Placement] = {}
        self.evictions: list[Eviction] = []
        self.resizes: list[Resize] = []
        self.promised: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._ids = {job.id for job in jobs}
        self._known = {job.id: job for job in pending}
        self._known |= {
            job.id: PendingJob(job.id, job.started_at, job.job_class)
            for job in snapshot.running
            if job.job_class.queue_id
        }
        # Of those that end without us, whoever is owed room elsewhere waits again as well.
        self._evicted = {job.id for job in snapshot.running if job.owed}
        self._due = inf
        self._bounds = sorted({at for one in snapshot.reservations for at in (one.starts_at, one.ends_at)})

    def settle(self, now: float) -> int:
        """Plan for one moment until a plan starts less than it may; return how many plans that took."""
        plans = 0
        while True:
            made = self.planner.decide(now)
            plans += 1
            self._note(made, now)
            if len(made.placements) < self.planner.config.max_placements or not made.placements:
                return plans

    def verdict_on(self, job_id: str) -> Verdict:
        """Say why a job waits after the last plan."""
        return next(verdict for verdict in self.planner.verdicts() if job_id in verdict.job_ids)

    def positions(self, jobs: Sequence[PendingJob]) -> list[int]:
        """Return the places of waiting jobs of one class in their queue, from 1."""
        if not jobs:
            return []
        line = self.planner.lines[jobs[0].job_class.queue_id]
        place = {job.id: number for number, job in enumerate(line.jobs(), 1)}
        return [place[job.id] for job in jobs]

    def lead_on(self, job_ids: Iterable[str], now: float, most_plans: int) -> Mapping[str, _Expected]:
        """Let time go on until these jobs have started, nothing more is known to end, or `most_plans` have been made."""
        waiting, plans = set(job_ids), 0
        found: dict[str, _Expected] = {}
        while waiting:
            at = self._next_moment(now)
            if at == inf:
                return found
            if plans >= most_plans:
                return found | {job_id: _Expected(now) for job_id in waiting}
            now = at
            self._release(now)
            plans += self.settle(now)
            started = waiting & self.placed.keys()
            found |= {job_id: _Expected(now, self.placed[job_id]) for job_id in started}
            waiting -= started
        return found

    def never(self, job: PendingJob) -> bool:
        """Tell whether the limits of its queue, accounts and pool are below what it asks for."""
        return self.planner.admission.is_beyond(job.job_class, asked(job.job_class))

    def _note(self, made: Plan, now: float) -> None:
        self.placed |= {one.job_id: one for one in made.placements if one.job_id in self._ids}
        self.evictions += [one for one in made.evictions if one.for_job_id in self._ids]
        self.resizes += [one for one in made.resizes if one.for_job_id in self._ids]
        self._evicted |= {one.job_id for one in made.evictions}
        self.promised = {one.job_id: (one.starts_at, one.node_ids) for one in made.promises if one.job_id in self._ids}
        self._due = min((one.starts_at for one in made.promises if one.starts_at > now), default=inf)

    def _next_moment(self, now: float) -> float:
        """Return when something is due to happen: what has overrun its limit is taken to end at once."""
        releases = self.planner.releases()
        ends = max(releases[0][0], now) if releases else inf
        return min(ends, self._due, next((at for at in self._bounds if at > now), inf))

    def _release(self, now: float) -> None:
        """End what is due by now; who was evicted waits again."""
        due = dict.fromkeys(job_id for at, job_id, _ in self.planner.releases() if at <= now)
        for job_id in due:
            occupant = self.planner.occupants.by_id[job_id]
            if occupant.release[0] > now:
                self.planner.give_up(job_id, [place for place, at in occupant.leaving.items() if at <= now])
                continue
            self.planner.end(job_id)
            if job_id in self._evicted:
                self._evicted.discard(job_id)
                self.planner.submit(self._known[job_id])


def _at_once(now: float, placement: Placement) -> Fate:
    return Fate(placement.job_id, Certainty.NOW, now, placement.replicas, reason=placement.reason)


def _waiting(job: PendingJob, course: _Course, verdict: Verdict | None, position: int) -> Fate:
    if (verdict is not None and verdict.reason is Reason.NEVER_FITS) or course.never(job):
        return Fate(job.id, Certainty.NEVER, position=position)
    starts_at, node_ids = course.promised.get(job.id, (inf, ()))
    if starts_at < inf:
        return Fate(job.id, Certainty.PROMISED, starts_at, node_ids=node_ids, position=position)
    return Fate(job.id, Certainty.UNKNOWN, position=position)


def _expected(fate: Fate, expected: _Expected) -> Fate:
    if expected.placement is None:
        return Fate(fate.job_id, Certainty.LATER, expected.at, position=fate.position)
    placement = expected.placement
    return Fate(
        fate.job_id,
        Certainty.EXPECTED,
        expected.at,
        placement.replicas,
        reason=placement.reason,
        position=fate.position,
    )
