"""Room that is kept for the jobs it was made for, until they start: nobody else gets what their victims leave."""

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import inf

from scheduler.amounts import asked
from scheduler.backfill import Claim, Guard, ends_at, where_apart
from scheduler.gang import needed, place_gang, undo
from scheduler.ledger import Ledger
from scheduler.occupants import Occupant, Occupants
from scheduler.placement.rooms import Grant
from scheduler.reclaim import Books
from scheduler.snapshot import JobClass, PendingJob, Role

GuardOf = Callable[[JobClass], Guard]
"""What keeps jobs of a class off what is others', if they start now."""


@dataclass(frozen=True, slots=True)
class Owed:
    """What is kept for a job; one that moves there may still be running elsewhere."""

    job: PendingJob
    grants: tuple[Grant, ...]


class Debts:
    """What is owed to whom, from plan to plan.

    Who has been told to end and is `patience_s` overdue is no longer counted on. `changes` counts what became different.
    """

    def __init__(self, ledger: Ledger, occupants: Occupants, patience_s: float, books: Books) -> None:
        self.changes = 0
        self.due_at: dict[str, float] = {}
        self._ledger = ledger
        self._occupants = occupants
        self._patience_s = patience_s
        self._books = books
        self._owed: dict[str, Owed] = {}

    def __contains__(self, job_id: object) -> bool:
        return job_id in self._owed

    def __bool__(self) -> bool:
        return bool(self._owed)

    def keep(self, job: PendingJob, grants: Sequence[Grant]) -> None:
        """Owe a job this from now on."""
        self._owed[job.id] = Owed(job, tuple(grants))
        self.changes += 1

    def settle(self, job_id: str) -> None:
        """The job has started, or wants nothing any more."""
        if self._owed.pop(job_id, None) is not None:
            self.changes += 1

    def rank(self, owed: Owed) -> float:
        """Return the priority that a claim has; nobody else gets what was promised to one that must still move there."""
        return inf if owed.job.id in self._occupants.by_id else owed.job.job_class.priority

    def in_order(self) -> list[Owed]:
        """Return all, the most important first: where two are in each other's way, the first one has it."""
        return sorted(self._owed.values(), key=lambda owed: (-self.rank(owed), owed.job.id))

    def by_class(self) -> dict[JobClass, list[Owed]]:
        """Return all by the class of who is owed it."""
        found: dict[JobClass, list[Owed]] = {}
        for owed in self.in_order():
            found.setdefault(owed.job.job_class, []).append(owed)
        return found

    def review(self, now: float, wanted: Container[str], guard_of: GuardOf) -> None:
        """Forget what is not `wanted` by its job (ids), and what cannot be kept: others have it, or will not go."""
        with self._ledger.what_if():
            self.release_coming(now)
            wanting = [owed for owed in self.in_order() if owed.job.id in wanted]
            kept = {owed.job.id for owed in wanting if self.take(owed, guard_of(owed.job.job_class))}
            for owed in wanting:
                if owed.job.id not in kept and self.renew(owed, guard_of(owed.job.job_class)):
                    kept.add(owed.job.id)
        for job_id in self._owed.keys() - kept:
            self.settle(job_id)

    def renew(self, owed: Owed, guard: Guard) -> bool:
        """Keep as much elsewhere, where others have some of what is owed; it is taken. Tell whether there is any."""
        grants = place_gang(self._ledger, owed.job.job_class, guard)
        if len(grants) < needed(owed.job.job_class):
            return False
        self.keep(owed.job, grants)
        return True

    def take(self, owed: Owed, guard: Guard) -> bool:
        """Take exactly what is owed, if all of it is there and may be had."""
        if not self._lies_in_one(owed):
            return False
        mark = self._ledger.mark()
        taken: list[Grant] = []
        views = self._ledger.capacity.views(owed.job.job_class, guard.within)
        for grant in owed.grants:
            view, number = views[grant.role], grant.number
            view.catch_up()
            beside_own = any(one.number == number for one in taken) and not view.field.refuses(number)
            may = view.field.allows(number) or beside_own
            if not (may and self._ledger.rooms[number].covers(grant) and guard.permits(grant)):
                undo(self._ledger, mark, taken, guard)
                return False
            self._ledger.take(grant)
            guard.hold(grant)
            taken.append(grant)
        return True

    def _lies_in_one(self, owed: Owed) -> bool:
        """Tell whether all lies in one domain still, where it must."""
        constraints, topology = owed.job.job_class.constraints, self._ledger.capacity.topology
        if not constraints.within_required:
            return True
        return len({topology.domain(constraints.within, grant.number) for grant in owed.grants}) == 1

    def release_coming(self, now: float) -> None:
        """Free, in a what-if, what those leave who have been told to end."""
        for _, occupant in sorted(self._occupants.releasing.items()):
            for place, grant in zip(occupant.places, occupant.grants, strict=True):
                at = occupant.leaving.get(place) if occupant.releasing_at is None else occupant.releasing_at
                if at is not None and now <= at + self._patience_s:
                    self._ledger.give(grant)

    def leavers(self, now: float) -> list[Occupant]:
        """Return the jobs that have been told to end, whole, and are counted on to do so."""
        return [
            occupant
            for _, occupant in sorted(self._occupants.releasing.items())
            if occupant.releasing_at is not None and now <= occupant.releasing_at + self._patience_s
        ]

    def claims(self, booked: list[Claim], now: float) -> list[Claim]:
        """Return reservations, which no longer count on it, and what is owed as claims; `due_at` says when each is due.

        They keep others out from now on, be it for ever so short.
        """
        self.due_at.clear()
        if not self._owed:
            return booked
        lacking: dict[str, set[int]] = {}
        with self._ledger.what_if():
            for owed in self.in_order():
                lacking[owed.job.id] = {one.number for one in owed.grants if not self._is_free(one)}
                for grant in owed.grants:
                    self._ledger.retake(grant)
        allowed_at = self._limits_allow_at(now)
        with self._ledger.what_if():
            self.release_coming(now)
            claims = [self._claim(owed, lacking[owed.job.id], now, allowed_at[owed.job.id]) for owed in self.in_order()]
        for claim in claims:
            guard = Guard(booked, claim.ends_at)
            for grant in claim.grants:
                guard.hold(grant)
        return booked + claims

    def _limits_allow_at(self, now: float) -> dict[str, float]:
        """Tell by job when all limits let it start, those ahead of it first: room may be free long before a quota is.

        Who only moves has ended by then where it runs now.
        """
        found: dict[str, float] = {}
        mark, at = self._books.mark(), now
        leavers = sorted(self.leavers(now), key=_released_at)
        for owed in self.in_order():
            moving = self._occupants.by_id.get(owed.job.id)
            if moving is not None:
                found[owed.job.id] = now if moving.releasing_at is None else max(now, moving.releasing_at)
                continue
            job_class = owed.job.job_class
            while leavers and self._books.refusal(job_class, asked(job_class)) is not None:
                leaver = leavers.pop(0)
                self._books.give(leaver.job_class, leaver.amounts)
                at = max(at, _released_at(leaver))
            self._books.take(job_class, asked(job_class))
            found[owed.job.id] = at
        self._books.rollback(mark)
        return found

    def _is_free(self, grant: Grant) -> bool:
        """Tell whether it could be taken now, with nobody there who must be alone or whom it must be alone from."""
        room = self._ledger.rooms[grant.number]
        alone = grant.job_class is not None and grant.job_class.constraints.exclusive
        return room.covers(grant) and not (room.tenants if alone else room.exclusive)

    def told_for(self, jobs: Iterable[Owed]) -> int:
        """Count those who have been told to end, or to give up replicas, where something is owed to these jobs."""
        numbers = {grant.number for owed in jobs for grant in owed.grants}
        there = {share.id for number in numbers for share in self._occupants.on(number)}
        return len(there & self._occupants.releasing.keys())

    def _claim(self, owed: Owed, lacking: Collection[int], now: float, allowed_at: float) -> Claim:
        """Claim what is owed beside what is owed to others on the same nodes: all must find their devices."""
        gone_at = (at for number in lacking for at in self._ends_on(number))
        due_at = self.due_at[owed.job.id] = max([allowed_at, *gone_at])
        numbers = {grant.number for grant in owed.grants}
        together = [one for one in self.in_order() if any(grant.number in numbers for grant in one.grants)]
        roles: list[Role] = []
        counts = {number: [0] * sum(len(one.job.job_class.roles) for one in together) for number in sorted(numbers)}
        for one in together:
            for grant in one.grants:
                if grant.number in counts:
                    counts[grant.number][len(roles) + grant.role] += 1
            roles += one.job.job_class.roles
        return Claim(
            job=replace(owed.job, job_class=replace(owed.job.job_class, roles=tuple(roles))),
            starts_at=now,
            ends_at=ends_at(due_at, owed.job.job_class),
            grants=owed.grants,
            rooms={number: self._ledger.rooms[number].copy() for number in counts},
            counts={number: tuple(each) for number, each in counts.items()},
            topology=where_apart(owed.job.job_class, self._ledger.capacity.topology),
        )

    def _ends_on(self, number: int) -> Iterator[float]:
        """Yield when those on a node end who have been told to."""
        for share in self._occupants.on(number):
            occupant = share.occupant
            if occupant.releasing_at is not None:
                yield occupant.releasing_at
            yield from occupant.leaving.values()


def _released_at(occupant: Occupant) -> float:
    return inf if occupant.releasing_at is None else occupant.releasing_at
