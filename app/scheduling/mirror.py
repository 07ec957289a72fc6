"""The scheduler's paper cluster, kept in a process from cycle to cycle: after the first, only what changed is read.

What changed is read off the events, which only name the jobs whose rows are then compared with the paper. Those of
transactions that were open when we last looked may have lower ids than some that we have seen.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, select, text

from app.core.events import Event
from app.core.uow import UnitOfWork
from app.resources.health import nodes_with_faults
from app.scheduling.classes import Classes
from app.scheduling.cluster import load_snapshot
from app.scheduling.jobs import Jobs, left_by, load_blocked, load_jobs, write_holding
from app.scheduling.policy import SchedulingPolicy, config_of, policy_in_force
from app.scheduling.predictions import Expected, expected_by
from scheduler.backfill import Release
from scheduler.engine import Planner
from scheduler.plan import Plan, Verdict
from scheduler.snapshot import BlockedJob, RunningJob

# Read all anew now and then, whatever the events said: what a fault put wrong is right again after that.
REFRESH = timedelta(minutes=5)
MOST_CHANGES = 20_000
START_S = 1.0
# Numbers are given to transactions and to events in two steps: a neighbour may be between them.
MARGIN = 100
# Before the first look nobody noted who was open.
LOOK_BACK = 5000
# Of these only their being there counts: the cluster itself, or how it is to be shared, is another.
_REBUILDING = (
    "node.", "queue.", "pool.", "topology.", "allocation.", "reservation.", "policy.", "quota.",
)  # fmt: skip
# But not of this one: a node that is given up was silent already, and not ready. What ran there ends job by job.
# Nor of what is only told of a node, and changes nothing of what it gives.
_FOLLOWED = frozenset({"node.lost", "node.health_changed", "node.hook_ran", "node.hook_failed"})


class _News:
    """The events that were not seen before: each once, however late it is committed.

    A transaction writes its events after it got its number, so their ids are above all that were given out before. If
    at some look no number from x on was given out yet, then whatever has number x or more has ids above those of that
    look: below them, once all before x have ended, nothing can come any more.
    """

    def __init__(self) -> None:
        self._settled: int | None = None
        self._seen: set[int] = set()
        self._looks: deque[tuple[int, int]] = deque()

    def read(self, uow: UnitOfWork) -> Sequence[tuple[UUID | None, str]]:
        """Job (if it is about one) and kind of every event since the last reading, at most MOST_CHANGES."""
        oldest, following, newest = uow.execute(_LOOK).one()
        since = newest - LOOK_BACK if self._settled is None else self._settled
        found = [row for row in uow.execute(_SINCE, {"since": since}) if row.id not in self._seen]
        self._seen.update(row.id for row in found)
        self._settle(since, oldest, following, newest)
        return [(row.job_id, row.kind) for row in found]

    def _settle(self, since: int, oldest: int, following: int, newest: int) -> None:
        self._looks.append((following, newest))
        self._settled = since
        while self._looks and self._looks[0][0] <= oldest:
            self._settled = max(since, self._looks.popleft()[1] - MARGIN)
        if self._settled > since:
            self._seen = {event_id for event_id in self._seen if event_id > self._settled}


# In order, so that a plan which was made for any `since` goes by the index: without, it reads the whole table.
_SINCE = (
    select(Event.id, Event.job_id, Event.kind)
    .where(Event.id > bindparam("since"))
    .order_by(Event.id)
    .limit(MOST_CHANGES)
)
_LOOK = text(
    """
    SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
           pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
           (SELECT coalesce(max(id), 0) FROM events)
    """
)


class Mirror:
    """The planner of one process; empty until the first cycle, and again after a fault."""

    def __init__(self) -> None:
        self.classes = Classes()
        self._expected = Expected()
        self._planner: Planner | None = None
        self.interval_s = SchedulingPolicy().scheduling_interval_ms / 1000
        self._news = _News()
        self._built_at: datetime | None = None
        self._unconfirmed: set[UUID] = set()
        self._lenders: frozenset[str] = frozenset()
        self._owed: dict[str, list[Any]] = {}
        self._faulty: frozenset[int] = frozenset()

    @contextmanager
    def lent(self, uow: UnitOfWork) -> Iterator[Planner]:
        """The planner as the rows are now. Who gets it holds the turn; what fails on the way empties the mirror."""
        planner, self._planner = self._planner, None
        lent = self._refreshed(uow, planner)
        yield lent
        self._planner = lent

    def expect(self, made: Plan) -> None:
        """Note what was planned: until its rows are seen, nobody knows whether that was committed."""
        told = [[one.job_id for one in made.placements], [one.job_id for one in made.evictions]]
        told.append([one.job_id for one in made.resizes])
        self._unconfirmed = {UUID(job_id) for job_ids in told for job_id in job_ids}

    def promised(self, made: Plan) -> dict[UUID, list[Any] | None]:
        """Which jobs are owed something else after this plan than before, and what; None: nothing any more."""
        owed = {one.job_id: [write_holding(each) for each in one.holdings] for one in made.promises if one.holdings}
        before, self._owed = self._owed, owed
        started = {one.job_id for one in made.placements}
        void = {UUID(job_id): None for job_id in before.keys() - owed.keys() - started}
        return void | {UUID(job_id): kept for job_id, kept in owed.items() if before.get(job_id) != kept}

    def by_key(self, verdicts: Iterable[Verdict]) -> dict[str, Verdict]:
        """The verdicts of a plan by the `class_key` of the jobs' rows."""
        return {self.classes.keys[verdict.job_class]: verdict for verdict in verdicts}

    def _refreshed(self, uow: UnitOfWork, planner: Planner | None) -> Planner:
        if planner is None or self._is_old(uow):
            return self._build(uow)
        changed = self._changed(uow)
        if changed is None or (changed and not self._follow(uow, planner, changed)):
            return self._build(uow)
        return planner

    def _follow(self, uow: UnitOfWork, planner: Planner, changed: set[UUID]) -> bool:
        """Bring what the planner knows of these jobs in line with their rows; False where the paper does not add up."""
        self._expected.learn(uow, [job_id for job_id in changed if planner.find_release(str(job_id)) is not None])
        if self._frees_faulty(planner, changed):
            return False
        jobs = load_jobs(uow, self.classes, self._expected, list(changed))
        concerned = bool(jobs.blocked) or not self._lenders.isdisjoint(map(str, changed))
        if concerned:
            planner.block(())  # who waited for others may be about to be queued: nobody is to be known as both
        if not _update(planner, changed, jobs):
            return False
        if concerned:
            self._block(uow, planner)
        return True

    def _block(self, uow: UnitOfWork, planner: Planner) -> None:
        """Tell of those that wait for others, and remember whose change would change what they lend."""
        blocked = load_blocked(uow, self._expected)
        self._lenders = _lenders(blocked)
        planner.block([job for job in blocked if planner.find_pending(job.id) is None])

    def _build(self, uow: UnitOfWork) -> Planner:
        self.classes = Classes()
        self._unconfirmed = set()
        self._news = _News()
        self._news.read(uow)  # before the rows: what is committed in between is read twice, not missed
        self._built_at = uow.clock.now()
        policy = policy_in_force(uow).policy
        self.interval_s = policy.scheduling_interval_ms / 1000
        self._expected = expected_by(uow, policy)
        snapshot = load_snapshot(uow, self.classes, self._expected)
        planner = Planner(snapshot, config_of(policy))
        self._faulty = frozenset(planner.ledger.number_of[str(node_id)] for node_id in nodes_with_faults(uow))
        self._lenders = _lenders(snapshot.blocked)
        owed = {job.id: job.owed for job in snapshot.pending} | {job.id: job.owed for job in snapshot.running}
        self._owed = {job_id: [write_holding(each) for each in kept] for job_id, kept in owed.items() if kept}
        return planner

    def _frees_faulty(self, planner: Planner, changed: set[UUID]) -> bool:
        """Whether one of these jobs may give back a device that nobody is to have: on paper that would be free."""
        if not self._faulty:
            return False
        known = (planner.find_release(name) for job_id in changed for name in (str(job_id), left_by(str(job_id))))
        return any(grant.number in self._faulty for release in known if release for grant in release[2])

    def _is_old(self, uow: UnitOfWork) -> bool:
        return self._built_at is None or not timedelta() <= uow.clock.now() - self._built_at < REFRESH

    def _changed(self, uow: UnitOfWork) -> set[UUID] | None:
        """The jobs that something happened to since the last look; None if more happened than to jobs."""
        news = self._news.read(uow)
        cluster = [kind for job_id, kind in news if job_id is None and kind not in _FOLLOWED]
        if len(news) >= MOST_CHANGES or any(kind.startswith(_REBUILDING) for kind in cluster):
            return None
        changed = {job_id for job_id, _ in news if job_id is not None} | self._unconfirmed
        self._unconfirmed = set()
        return changed


def _lenders(blocked: Iterable[BlockedJob]) -> frozenset[str]:
    """Those whose change would change what is lent: who waits, and for whom."""
    return frozenset(job_id for job in blocked for job_id in (job.id, *job.needs))


def _update(planner: Planner, changed: set[UUID], jobs: Jobs) -> bool:
    """Bring what the planner knows of `changed` in line with `jobs`; False where the paper does not add up.

    What agrees is left alone: had it been freed and taken again, all that wait would be tried again.
    """
    pending = {job.id: job for job in jobs.pending}
    running = {job.id: job for job in jobs.running}
    for job_id in map(str, changed):
        waits = planner.find_pending(job_id)
        if waits is not None and waits == pending.get(job_id):
            del pending[job_id]
        elif waits is not None:
            planner.withdraw(job_id)
        for name in (job_id, left_by(job_id)):
            known = planner.find_release(name)
            if known is not None and name in running and _is_as(planner, running[name], known):
                del running[name]
            elif known is not None:
                planner.end(name)
    try:
        for holder in running.values():
            planner.hold(holder)
        for job in pending.values():
            planner.submit(job)
    except ValueError:
        return False
    return True


def _is_as(planner: Planner, job: RunningJob, known: Release) -> bool:
    """Whether the paper says of a running job what its row says: what it holds, what of it goes, what it is owed."""
    leaving = {place for place, one in enumerate(job.holdings) if one.releasing_at is not None}
    goes = planner.occupants.by_id[job.id].leaving.keys() == leaving
    return goes and (not job.owed or job.id in planner.debts) and _agree(known, planner.release_of(job))


def _agree(one: Release, other: Release) -> bool:
    """A job starts a little after the plan that started it: so little that it is not worth planning anew."""
    return one[2] == other[2] and (one[0] == other[0] or abs(one[0] - other[0]) < START_S)
