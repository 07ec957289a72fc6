"""When and where a blocked job will start: the ledger is led into the future, and the job placed there."""

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Sequence
from itertools import chain, groupby
from math import inf
from operator import itemgetter
from typing import NamedTuple, TypeAlias

from scheduler.amounts import asked
from scheduler.backfill import Claim, Counts, Guard, Release, Spare, ends_at, where_apart
from scheduler.gang import needed, place_gang
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant, Room
from scheduler.snapshot import ANYWHERE, JobClass, PendingJob

Change: TypeAlias = tuple[float, str, tuple[Grant, ...], tuple[Grant, ...]]
"""When, in which order within one instant, what is freed, and what is taken."""

Instant: TypeAlias = tuple[float, str]
"""When; and, of what has no time, after whose end: there, one comes after the other by id."""

_IN_TIME = itemgetter(0, 1)


def claim(
    job: PendingJob,
    ledger: Ledger,
    releases: Sequence[Release],
    claims: Sequence[Claim],
    now: float,
    *,
    within: Container[int] | None = None,
    alone: bool = False,
) -> Claim | None:
    """Find when and where a blocked job can start beside the other `claims`; None where no release makes room.

    `releases` are sorted. Of those without a time the one with the lowest id is taken to come first: ids grow with
    time. It may be on nodes `within` its reach. `alone` says that no further claim will be made beside this one, so that
    its nodes need not be fixed.
    """
    with ledger.what_if():
        future = _Future(job, ledger, claims, within)
        for step in _steps(releases, claims, now):
            found = future.reach(step, alone=alone and not claims)
            if found is not None:
                return found
    return None


def foresee(
    job: PendingJob,
    ledger: Ledger,
    releases: Sequence[Release],
    claims: Sequence[Claim],
    at: float,
    now: float,
    within: Container[int] | None = None,
) -> Claim | None:
    """Try to place a job at one moment, now or later, beside the other `claims`; None where it has no room."""
    with ledger.what_if():
        future = _Future(job, ledger, claims, within)
        step = _Step(at, "", [], [], claimed=True)
        if at > now:
            for ends_by, _, grants in releases:
                if ends_by > at:
                    break
                step.freed.extend(grants)
        for one in claims:
            if not one.booked and one.starts_at <= at < one.ends_at:
                step.taken.extend(one.grants)
        return future.reach(step, alone=False)


class _Step(NamedTuple):
    """A moment at which something changes: what becomes free, and what other claims take of it.

    `after` is who frees something last, where that is in no instant; `claimed` says that a claim begins, or is over.
    """

    at: float
    after: str
    freed: list[Grant]
    taken: list[Grant]
    claimed: bool


class _Future:
    """The ledger, led on from step to step; what is freed is put down only when there might be enough of it."""

    def __init__(self, job: PendingJob, ledger: Ledger, claims: Sequence[Claim], within: Container[int] | None) -> None:
        self._job = job
        self._ledger = ledger
        self._claims = claims
        self._within = within
        self._missing = _Missing(job.job_class, ledger)
        self._freed: list[Grant] = []
        self._taken: list[Grant] = []
        self._gained: dict[int, list[Grant]] = {}
        self._lacking = _Lacking(job.job_class, ledger)

    def reach(self, step: _Step, *, alone: bool) -> Claim | None:
        """Go on to the next step, and place the job there if it has room."""
        at = step.at
        for grant in step.freed:
            self._missing.give(grant)
        self._freed += step.freed
        self._taken += step.taken
        self._lacking.follow(step)
        if self._lacking or not self._missing.covered:
            return None
        self._put_down()
        job_class = self._job.job_class
        guard = guard_at((at, step.after), job_class, self._claims, self._ledger.rooms, self._within)
        mark = self._ledger.mark()
        grants = place_gang(self._ledger, job_class, guard)
        if len(grants) < needed(job_class):
            self._lacking.note(len(grants))
            return None
        counts = count_on(grants, len(job_class.roles))
        self._ledger.rollback(mark)
        spare = self._spare() if alone and anywhere(job_class) else None
        rooms = {number: self._ledger.rooms[number].copy() for number in counts}
        until, topology = ends_at(at, job_class), where_apart(job_class, self._ledger.capacity.topology)
        return Claim(self._job, at, until, tuple(grants), rooms, counts, spare, step.after, topology=topology)

    def _put_down(self) -> None:
        # What is taken first: a claim may have ended since, and only what was taken can be given back.
        for grant in self._taken:
            self._ledger.retake(grant)
        for grant in self._freed:
            self._ledger.give(grant)
            self._gained.setdefault(grant.number, []).append(grant)
        self._freed.clear()
        self._taken.clear()

    def _spare(self) -> Spare:
        request, least = self._job.job_class.roles[0].request, self._job.job_class.roles[0].least
        slots = {
            number: slots
            for number, room in enumerate(self._ledger.rooms)
            if self._reaches(number) and not room.exclusive and (slots := room.slots(request))
        }
        return Spare(request, sum(slots.values()) - least, slots, self._gained, self._ledger.rooms)

    def _reaches(self, number: int) -> bool:
        return self._ledger.nodes[number].ready and (self._within is None or number in self._within)


class _Lacking:
    """How many replicas more there must be room for before it is worth to try again: true while there must be some.

    A node that becomes free, but for fewer of them than a try fell short by, makes no difference; only for a job that
    wants to be alone, or looks who is there, it may.
    """

    def __init__(self, job_class: JobClass, ledger: Ledger) -> None:
        constraints, self._roles = job_class.constraints, job_class.roles
        self._counts = not (constraints.exclusive or constraints.affinities)
        self._needed = needed(job_class)
        self._rooms = ledger.rooms
        self._copies: dict[int, Room] = {}
        self._slots: dict[int, int] = {}
        self._short = 0

    def __bool__(self) -> bool:
        return self._counts and self._short > 0

    def note(self, placed: int) -> None:
        """So many had room in a try, all else being put down. Of replicas that are not alike it says little how many lack."""
        self._copies.clear()
        self._short = self._needed - placed if len(self._roles) == 1 else 1

    def follow(self, step: _Step) -> None:
        """What a step changes, on copies of the nodes: putting it down in the ledger costs more."""
        if step.claimed:  # something else may have changed than room
            self._short = 0
        if not self:
            return
        for grant in step.taken:
            self._room(grant.number).take(grant)
        for grant in step.freed:
            self._room(grant.number).give(grant)
        for number in {grant.number for grant in (*step.freed, *step.taken)}:
            slots = self._count(self._copies[number])
            self._short -= max(0, slots - self._slots[number])
            self._slots[number] = slots

    def _room(self, number: int) -> Room:
        room = self._copies.get(number)
        if room is None:
            room = self._copies[number] = self._rooms[number].copy()
            self._slots[number] = self._count(room)
        return room

    def _count(self, room: Room) -> int:
        if room.exclusive:
            return 0
        return sum([room.slots(role.request, role.least) for role in self._roles])


class _Missing:
    """How far the whole cluster's sums are from what a job asks for: enough of them is not yet room, but less is none.

    What claims take is not counted: some of it is not free before others go.
    """

    def __init__(self, job_class: JobClass, ledger: Ledger) -> None:
        wanted, free = asked(job_class), ledger.free
        self._cpu_milli = wanted.cpu_milli - free.cpu_milli
        self._memory_bytes = wanted.memory_bytes - free.memory_bytes
        # Slices of partitioned devices are no part of the free GPUs.
        self._counts_gpus = not any(role.request.mig_profile for role in job_class.roles)
        self._gpu_milli = wanted.gpu_milli - free.gpu_milli if self._counts_gpus else 0

    @property
    def covered(self) -> bool:
        """Whether nothing is missing."""
        return self._cpu_milli <= 0 and self._memory_bytes <= 0 and self._gpu_milli <= 0

    def give(self, grant: Grant) -> None:
        """Count what becomes free."""
        self._cpu_milli -= grant.cpu_milli
        self._memory_bytes -= grant.memory_bytes
        if self._counts_gpus:
            for _, milli in grant.gpus:
                self._gpu_milli -= milli


def _steps(releases: Sequence[Release], claims: Sequence[Claim], now: float) -> Iterator[_Step]:
    """Yield what changes, instant by instant.

    All that ends in one instant is free in that instant; what has no time is not assumed to come together.
    """
    for at, together in groupby(_changes(releases, claims), lambda change: max(change[0], now)):
        if at == inf:
            for _, job_id, freed, taken in together:
                yield _Step(inf, job_id, list(freed), list(taken), claimed=not freed)
            return
        step, claimed = _Step(at, "", [], [], claimed=False), False
        for _, _, freed, taken in together:
            step.freed.extend(freed)
            step.taken.extend(taken)
            claimed |= not freed
        yield step._replace(claimed=claimed)


def _changes(releases: Sequence[Release], claims: Iterable[Claim]) -> Iterator[Change]:
    """Yield what is freed and what claims take and free, in time; of many releases mostly the first few are asked for."""
    reached = 0
    for change in sorted(chain.from_iterable(map(changes_of, claims)), key=_IN_TIME):
        place = bisect_left(releases, change[:2], reached)
        for number in range(reached, place):
            yield (*releases[number], ())
        reached = place
        yield change
    for number in range(reached, len(releases)):
        yield (*releases[number], ())


def changes_of(claim: Claim) -> tuple[Change, ...]:
    """Return what changes as a claim begins, and as it ends."""
    if claim.booked:  # its room is kept by the guard, and given to nobody before it ends
        return ((claim.ends_at, claim.job.id, (), ()),)
    begun: Change = (claim.starts_at, claim.after, (), claim.grants)
    # Where neither has a time, the end still comes after the beginning.
    order = max(claim.after, claim.job.id) if claim.starts_at == inf else claim.job.id
    return begun, (claim.ends_at, order, claim.grants, ())


def guard_at(
    instant: Instant, job_class: JobClass, claims: Iterable[Claim], rooms: Sequence[Room], within: Container[int] | None
) -> Guard:
    """Return what keeps a class that starts then off the claims of others, and on nodes `within` its reach.

    What begins up to then has been taken; what is booked then is kept free.
    """
    at = instant[0]
    later = [one for one in claims if (one.starts_at, one.after) > instant]
    booked = [one.at_present(rooms) for one in claims if one.booked and one.starts_at <= at < one.ends_at]
    # Where nobody knows when, it may be at any time.
    return Guard([*later, *booked], ends_at(at, job_class), within, starts_at=at if at < inf else -inf)


def anywhere(job_class: JobClass) -> bool:
    """Tell whether replicas are alike, and may be on any nodes, near to each other or not."""
    return len(job_class.roles) == 1 and job_class.constraints == ANYWHERE


def count_on(grants: Iterable[Grant], roles: int) -> dict[int, Counts]:
    """Count replicas by node number and role."""
    counts: dict[int, list[int]] = {}
    for grant in grants:
        counts.setdefault(grant.number, [0] * roles)[grant.role] += 1
    return {number: tuple(each) for number, each in counts.items()}
