"""Conservative backfill: whoever waits is promised a start, and no promise is ever put off for another.

A job that comes gets the first start that puts off nobody. When something becomes free sooner than it had to, each
promise in turn is lifted and made anew, never for later. Source: Mu'alem and Feitelson, TPDS 2001.
"""

from collections.abc import Callable, Container, Iterable, Sequence
from math import inf

from scheduler.amounts import asked
from scheduler.backfill import Claim, Release, binding, ends_at
from scheduler.forecast import foresee
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant, sum_up
from scheduler.snapshot import Amounts, JobClass, PendingJob
from scheduler.timeline import Timeline


class Agenda:
    """What is promised to whom. It is told what is freed; at each moment, all that wait are attended to in turn.

    Promises are ordered by start, then by when they were made: the room that one counts on is what those before it
    leave. `releases` tells what will become free, as of when it is asked.
    """

    def __init__(self, ledger: Ledger, releases: Callable[[], Sequence[Release]], now: float) -> None:
        self._ledger = ledger
        self._releases = releases
        self._claims: dict[str, Claim] = {}
        self._made: dict[str, int] = {}
        self._freed: list[Release] = []
        self._booked: Sequence[Claim] = ()
        self._now = now
        self._gained = False
        self._timeline = Timeline(ledger.free, now)
        for at, _, grants in releases():
            if now < at < inf:
                self._timeline.give(at, inf, sum_up(grants))

    @property
    def claims(self) -> list[Claim]:
        """All that is promised, soonest first."""
        return sorted(self._claims.values(), key=self._key)

    def free(self, release: Release) -> None:
        """What a running job held is free, perhaps sooner than at its time."""
        self._freed.append(release)

    def withdraw(self, job_id: str) -> None:
        """A job waits no longer: what it was promised is free."""
        if job_id in self._claims:
            self._lift(self._claims[job_id])
            self._gained = True

    def begin(self, booked: Sequence[Claim], now: float) -> None:
        """Go on to another moment; `booked` are the reservations as they bind those who start now."""
        self._now = now
        self._booked = booked
        self._timeline.advance(now)
        for at, _, grants in self._freed:
            if at > now:
                self._timeline.give(now, at, sum_up(grants))
                self._gained = True
                for claim in self._claims.values():
                    if claim.starts_at < at:
                        _move(claim, grants, taken=False)
        self._freed.clear()

    def attend(self, job: PendingJob, within: Container[int] | None) -> Sequence[Grant]:
        """Promise a job a start, or an earlier one if there is; return what is held for it if it starts now.

        Who may improve first is who is attended to first.
        """
        old = self._claims.get(job.id)
        if old is None:
            self._promise(job, inf, within)
        elif self._gained and old.starts_at > self._now:
            self._improve(job, old, within)
        due = self._claims.get(job.id)
        if due is None or due.starts_at > self._now or not self._take(due):
            return ()
        del self._claims[job.id], self._made[job.id]
        return due.grants

    def conclude(self) -> None:
        """All have been attended to: a promise that is due and could not be kept is void, and will be made anew."""
        self._gained = False
        for claim in [claim for claim in self._claims.values() if claim.starts_at <= self._now]:
            self._lift(claim)
            self._gained = True

    def _improve(self, job: PendingJob, old: Claim, within: Container[int] | None) -> None:
        """Promise a job an earlier start if there is one by now; else leave everything as it is."""
        length_s = old.ends_at - old.starts_at
        amounts = sum_up(old.grants)
        self._timeline.give(old.starts_at, old.ends_at, amounts)
        earlier = self._timeline.find(self._now, length_s, amounts, before=old.starts_at)
        self._timeline.give(old.starts_at, old.ends_at, _less(amounts))
        if earlier is not None:
            number = self._made[job.id]
            self._lift(old)
            self._promise(job, old.starts_at, within)
            if job.id not in self._claims:
                self._keep(old, number)

    def _promise(self, job: PendingJob, before: float, within: Container[int] | None) -> None:
        """Promise the first start before some moment at which the nodes really have room."""
        at, amounts = self._now, _counted(job.job_class)
        while (found := self._timeline.find(at, ends_at(0.0, job.job_class), amounts, before)) is not None:
            others = [*binding(self._booked, job.job_class), *self._claims.values()]
            claim = foresee(job, self._ledger, self._releases(), others, found, self._now, within)
            if claim is not None:
                self._keep(claim, max(self._made.values(), default=0) + 1, held=True)
                return
            at = self._timeline.next_step(found)
            if at == inf:
                return

    def _keep(self, claim: Claim, number: int, *, held: bool = False) -> None:
        """Enter a promise; `held`: those after it know of it already."""
        self._claims[claim.job.id] = claim
        self._made[claim.job.id] = number
        self._timeline.give(claim.starts_at, claim.ends_at, _less(sum_up(claim.grants)))
        if not held:
            self._tell(claim, taken=True)

    def _lift(self, claim: Claim) -> None:
        self._tell(claim, taken=False)
        self._timeline.give(claim.starts_at, claim.ends_at, sum_up(claim.grants))
        del self._claims[claim.job.id], self._made[claim.job.id]

    def _tell(self, claim: Claim, *, taken: bool) -> None:
        """Change what those count on that begin after a claim and before its end."""
        key = self._key(claim)
        for other in self._claims.values():
            if self._key(other) > key and other.starts_at < claim.ends_at:
                _move(other, claim.grants, taken=taken)

    def _key(self, claim: Claim) -> tuple[float, int]:
        return claim.starts_at, self._made[claim.job.id]

    def _take(self, due: Claim) -> bool:
        """Take what is promised for now, if it is there: who ran on beyond a limit may still have it."""
        mark = self._ledger.mark()
        for grant in due.grants:
            if not (self._ledger.nodes[grant.number].ready and self._ledger.rooms[grant.number].covers(grant)):
                self._ledger.rollback(mark)
                return False
            self._ledger.take(grant)
        return True


def _move(claim: Claim, grants: Iterable[Grant], *, taken: bool) -> None:
    for grant in grants:
        room = claim.rooms.get(grant.number)
        if room is not None:
            if taken:
                room.take(grant)
            else:
                room.give(grant)


def _counted(job_class: JobClass) -> Amounts:
    """Return what a class asks for as far as the timeline counts it, which knows nothing of slices."""
    amounts = asked(job_class)
    sliced = any(role.request.mig_profile for role in job_class.roles)
    return amounts._replace(gpu_milli=0) if sliced else amounts


def _less(amounts: Amounts) -> Amounts:
    return Amounts(-amounts.cpu_milli, -amounts.memory_bytes, -amounts.gpu_milli)
