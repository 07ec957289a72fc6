"""When nodes will have room for a request, kept up to date; so that a forecast leaps to where and when it matters.

On a large cluster thousands of jobs end before a large one has room. `forecast.claim` goes through them all; here only
those nodes are led into the future that may have room by then.
"""

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator, Sequence
from heapq import heappop, heappush
from itertools import groupby
from math import inf
from typing import NamedTuple

from scheduler.backfill import Claim, Spare, ends_at, where_apart
from scheduler.forecast import Change, Instant, anywhere, changes_of, claim, count_on, guard_at
from scheduler.gang import needed, place_gang
from scheduler.ledger import Ledger
from scheduler.occupants import Occupants
from scheduler.placement.rooms import Grant
from scheduler.snapshot import JobClass, PendingJob, Request

MANY = 512
"""With so many jobs that will end, leaping costs less than going through them."""

_MOST_KEPT = 64
"""So many requests are kept an outlook for, those that were asked for last."""


_NEVER: Instant = (inf, "\U0010ffff")


class Outlook:
    """The instants, in order, at which nodes come to have room for one more replica of a request, `most` each.

    Never too late, but it may be too early: of devices only their sum is looked at, and claims are not.
    """

    def __init__(self, request: Request, most: int, ledger: Ledger, occupants: Occupants) -> None:
        self._request = request
        self._most = most
        self._rooms = ledger.rooms
        self._occupants = occupants
        self._of = [self._instants_of(number) for number in range(len(ledger.rooms))]
        self._era, self._seen = occupants.era, len(occupants.changed)
        self.instants = sorted((*at, number) for number, instants in enumerate(self._of) for at in instants)

    @property
    def lasts(self) -> bool:
        """Whether it can be brought up to date."""
        return self._era == self._occupants.era

    def catch_up(self) -> None:
        """Take in who came and went since."""
        changed = self._occupants.changed
        for number in set(changed[self._seen :]):
            fresh = self._instants_of(number)
            if fresh != self._of[number]:
                for at in self._of[number]:
                    del self.instants[bisect_left(self.instants, (*at, number))]
                for at in fresh:
                    insort(self.instants, (*at, number))
                self._of[number] = fresh
        self._seen = len(changed)

    def _instants_of(self, number: int) -> list[Instant]:
        room, request = self._rooms[number], self._request
        if not room.ready or (request.gpu_milli and request.gpu_models and room.model not in request.gpu_models):
            return []
        cpu_milli, memory_bytes, gpu_milli = room.cpu_milli, room.memory_bytes, sum(room.gpus)
        slots = self._slots(cpu_milli, memory_bytes, gpu_milli)
        instants: list[Instant] = [(-inf, "")] * slots
        if slots == self._most:
            return instants
        for at, job_id, cpus, memory, gpus in self._occupants.departures(number):
            cpu_milli += cpus
            memory_bytes += memory
            gpu_milli += gpus
            if gpu_milli < request.gpu_milli or cpu_milli < request.cpu_milli or memory_bytes < request.memory_bytes:
                continue
            slots = self._slots(cpu_milli, memory_bytes, gpu_milli)
            if slots > len(instants):
                instants += [(at, job_id)] * (slots - len(instants))
                if slots == self._most:
                    break
        return instants

    def _slots(self, cpu_milli: int, memory_bytes: int, gpu_milli: int) -> int:
        request, slots = self._request, self._most
        if request.gpu_milli:
            slots = min(slots, gpu_milli // request.gpu_milli)
        if request.cpu_milli:
            slots = min(slots, cpu_milli // request.cpu_milli)
        if request.memory_bytes:
            slots = min(slots, memory_bytes // request.memory_bytes)
        return max(0, slots)


class Case(NamedTuple):
    """Who is to start, beside whose claims, on which nodes; `alone`: no further claim will be made."""

    job: PendingJob
    claims: Sequence[Claim]
    now: float
    within: frozenset[int] | None
    alone: bool


def leap(case: Case, outlook: Outlook, ledger: Ledger, occupants: Occupants) -> Claim | None:
    """Find when and where a blocked job can start, as `forecast.claim` does."""
    with ledger.what_if():
        future = _Future(case, ledger, occupants)
        for at, numbers in _openings(case, outlook):
            found = future.go_on(at, numbers)
            if found is not None:
                return found
        return future.go_on(_NEVER, ())


def _openings(case: Case, outlook: Outlook) -> Iterator[tuple[Instant, list[int]]]:
    """Yield instants at which nodes come to have room: first all those without which there would be too little."""
    missing, within = needed(case.job.job_class), case.within
    numbers: list[int] = []
    for instant, together in groupby(outlook.instants, lambda one: (max(one[0], case.now), one[1])):
        fresh = [number for _, _, number in together if within is None or number in within]
        numbers += fresh
        missing -= len(fresh)
        if fresh and missing <= 0:
            yield instant, numbers
            numbers = []


class _Future:
    """The ledger, of which some nodes are led on in time."""

    def __init__(self, case: Case, ledger: Ledger, occupants: Occupants) -> None:
        self._case = case
        self._class = case.job.job_class
        self._ledger = ledger
        self._occupants = occupants
        self._changes: dict[int, list[Change]] = {}
        self._due: list[tuple[Instant, int]] = []
        self._slots: dict[int, int] = {}
        self._gained: dict[int, list[Grant]] = {}
        self._short = 0
        # Where no node changes, a claim that begins or is over may make the difference.
        self._turns = sorted({_instant(change) for one in case.claims for change in changes_of(one)})

    def go_on(self, until: Instant, numbers: Collection[int]) -> Claim | None:
        """Try at every instant before `until` that may make a difference; then open these nodes, and try again."""
        while (at := self._next()) < until:
            found = self._try(at, ())
            if found is not None:
                return found
        return self._try(until, numbers) if until < _NEVER else None

    def _next(self) -> Instant:
        """Return when the next thing happens on a node that is open, or to a claim."""
        if not self._changes:
            return _NEVER
        return min(self._due[0][0] if self._due else _NEVER, self._turns[0] if self._turns else _NEVER)

    def _try(self, at: Instant, numbers: Collection[int]) -> Claim | None:
        turned = not self._changes
        while self._turns and self._turns[0] <= at:
            self._turns.pop(0)
            turned = True
        for number in numbers:
            if number not in self._changes:
                self._open(number)
        while self._due and self._due[0][0] <= at:
            self._lead(heappop(self._due)[1], at)
        if turned:
            self._short = 0
        if self._short > 0 or sum(self._slots.values()) < needed(self._class):
            return None
        return self._place(at)

    def _open(self, number: int) -> None:
        self._slots[number] = self._count(number)
        self._short -= self._slots[number]
        changes = list(self._changes_on(number))
        changes.sort(key=_instant, reverse=True)
        self._changes[number] = changes
        if changes:
            heappush(self._due, (_instant(changes[-1]), number))

    def _lead(self, number: int, at: Instant) -> None:
        """Put down what changes on a node up to an instant; what is taken first, as only that can be given back."""
        changes = self._changes[number]
        past = []
        while changes and _instant(changes[-1]) <= at:
            past.append(changes.pop())
        for _, _, _, taken in past:
            for grant in taken:
                self._ledger.retake(grant)
        for _, _, freed, _ in past:
            for grant in freed:
                self._ledger.give(grant)
                self._gained.setdefault(number, []).append(grant)
        slots = self._count(number)
        self._short -= max(0, slots - self._slots[number])
        self._slots[number] = slots
        if changes:
            heappush(self._due, (_instant(changes[-1]), number))

    def _changes_on(self, number: int) -> Iterator[Change]:
        for share in self._occupants.on(number):
            for at, job_id, grants in share.occupant.releases():
                yield at, job_id, _on(grants, number), ()
        for one in self._case.claims:
            if not one.booked and number in one.counts:
                for at, job_id, freed, taken in changes_of(one):
                    yield at, job_id, _on(freed, number), _on(taken, number)

    def _count(self, number: int) -> int:
        room, role = self._ledger.rooms[number], self._class.roles[0]
        return 0 if room.exclusive else room.slots(role.request)

    def _place(self, instant: Instant) -> Claim | None:
        case, ledger, job_class = self._case, self._ledger, self._class
        at = max(instant[0], case.now)
        guard = guard_at((at, instant[1]), job_class, case.claims, ledger.rooms, case.within)
        mark = ledger.mark()
        grants = place_gang(ledger, job_class, guard)
        if len(grants) < needed(job_class):
            self._short = needed(job_class) - len(grants)
            return None
        ledger.rollback(mark)
        counts = count_on(grants, 1)
        rooms = {number: ledger.rooms[number].copy() for number in counts}
        spare = self._spare() if case.alone and not case.claims and anywhere(job_class) else None
        until, topology = ends_at(at, job_class), where_apart(job_class, ledger.capacity.topology)
        return Claim(case.job, at, until, tuple(grants), rooms, counts, spare, instant[1], topology=topology)

    def _spare(self) -> Spare:
        role, slots = self._class.roles[0], {number: slots for number, slots in self._slots.items() if slots}
        return Spare(role.request, sum(slots.values()) - role.least, slots, self._gained, self._ledger.rooms)


def _instant(change: Change) -> Instant:
    return change[0], change[1] if change[0] == inf else ""


def _on(grants: Sequence[Grant], number: int) -> tuple[Grant, ...]:
    return tuple([grant for grant in grants if grant.number == number])


class Forecasts:
    """The claims that were made last. They serve again, in the same order, until something changes that they depend on."""

    def __init__(self, ledger: Ledger, occupants: Occupants) -> None:
        self._ledger = ledger
        self._occupants = occupants
        self._known: list[_Known] = []
        self._next = 0
        self._outlooks: dict[tuple[Request, int], Outlook] = {}

    def begin(self, claims: Sequence[Claim]) -> None:
        """A round begins, with these claims that were not made here: beside such, none serves again."""
        self._next = 0
        if claims:
            self._known.clear()

    def claim(
        self,
        job: PendingJob,
        claims: Sequence[Claim],
        now: float,
        *,
        within: frozenset[int] | None,
        alone: bool,
    ) -> Claim | None:
        """Find when and where a blocked job can start, as `claim` does."""
        version = self._ledger.version, self._occupants.version
        if self._next < len(self._known):
            known = self._known[self._next]
            lasts = known.found is None or known.found.starts_at > now
            if lasts and known.job is job and known[1:4] == (version, within, alone):
                self._next += 1
                return known.found
            del self._known[self._next :]
        found = self._find(Case(job, claims, now, within, alone))
        self._known.append(_Known(job, version, within, alone, found))
        self._next += 1
        return found

    def _find(self, case: Case) -> Claim | None:
        releases = self._occupants.releases
        if len(releases) > MANY and _may_leap(case.job.job_class):
            return leap(case, self._outlook(case.job.job_class), self._ledger, self._occupants)
        job, claims, now, within, alone = case
        return claim(job, self._ledger, releases, claims, now, within=within, alone=alone)

    def _outlook(self, job_class: JobClass) -> Outlook:
        """Return the outlook for what such jobs ask for, up to date."""
        role = job_class.roles[0]
        key = role.request, role.least
        outlook = self._outlooks.pop(key, None)
        if outlook is None or not outlook.lasts:
            outlook = Outlook(role.request, role.least, self._ledger, self._occupants)
            if len(self._outlooks) >= _MOST_KEPT:
                del self._outlooks[next(iter(self._outlooks))]
        outlook.catch_up()
        self._outlooks[key] = outlook
        return outlook


def _may_leap(job_class: JobClass) -> bool:
    """Tell whether room is all that counts, whoever else is on a node."""
    constraints, roles = job_class.constraints, job_class.roles
    return len(roles) == 1 and not (constraints.exclusive or constraints.affinities or roles[0].request.mig_profile)


class _Known(NamedTuple):
    """A claim, or that there is none, and what was asked when."""

    job: PendingJob
    version: tuple[int, int]
    within: frozenset[int] | None
    alone: bool
    found: Claim | None
