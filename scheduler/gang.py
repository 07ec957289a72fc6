"""Replicas that start together or not at all."""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import NamedTuple

from scheduler.backfill import Guard
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant
from scheduler.placement.tallies import Tally
from scheduler.placement.topology import Part
from scheduler.placement.views import View
from scheduler.snapshot import JobClass

_ROLE = attrgetter("role")
_MOST_TRIES = 64
"""So many domains of one level are tried; all but a few fail for claims of others or for roles in each other's way."""


def place_gang(ledger: Ledger, job_class: JobClass, guard: Guard) -> list[Grant]:
    """Take room for the fewest replicas that the job starts with, one after the other, as far as there is any.

    Short of all of them the ledger is left as it was, and the grants tell only how many would have found room.
    """
    if _alone(job_class):
        return _place_one(ledger, job_class, guard)
    attempt = _Attempt(ledger, job_class, guard)
    wish = _wish(ledger, job_class, attempt.views)
    placed = attempt.place_near(wish) if wish is not None else attempt.place()
    if not placed:
        undo(ledger, attempt.mark, attempt.grants, guard)
    return sorted(attempt.grants, key=_ROLE) if len(job_class.roles) > 1 else attempt.grants


def extend_gang(ledger: Ledger, job_class: JobClass, present: Iterable[Grant], guard: Guard, most: int) -> list[Grant]:
    """Take room for up to `most` replicas beside those `present`, as far as roles may have more: one of each in turn.

    What must lie in one domain goes on to.
    """
    attempt = _Attempt(ledger, job_class, guard)
    held = list(present)
    attempt.present = held if job_class.constraints.exclusive else ()
    attempt.own = {grant.number for grant in attempt.present}
    missing = [role.most - sum(grant.role == number for grant in held) for number, role in enumerate(job_class.roles)]
    wish = _wish(ledger, job_class, attempt.views)
    tied = wish is not None and wish.required and bool(held)
    home = ledger.capacity.topology.part_of(wish.depth, held[0].number) if wish and tied else None
    if tied and home is None:
        return []  # it is not known any more where the others are
    progress = True
    while progress and len(attempt.grants) < most:
        progress = False
        for role, more in enumerate(missing):
            if more > 0 and len(attempt.grants) < most and attempt.add(role, home):
                missing[role] -= 1
                progress = True
    return attempt.grants


def needed(job_class: JobClass) -> int:
    """How many replicas a job of this class starts with."""
    return sum(role.least for role in job_class.roles)


def undo(ledger: Ledger, mark: int, grants: Sequence[Grant], guard: Guard) -> None:
    """Give back what was taken since `mark`, also to the claims."""
    for grant in grants:
        guard.release(grant)
    ledger.rollback(mark)


def _alone(job_class: JobClass) -> bool:
    """Tell whether it is one replica that nothing ties to others: most jobs are."""
    return len(job_class.roles) == 1 and job_class.roles[0].least == 1 and not job_class.constraints.within


def _place_one(ledger: Ledger, job_class: JobClass, guard: Guard) -> list[Grant]:
    grant = ledger.capacity.views(job_class, guard.within)[0].find(guard.permits, 0, job_class)
    if grant is None:
        return []
    ledger.take(grant)
    guard.hold(grant)
    return [grant]


class _Wish(NamedTuple):
    """To lie in one part of the tree at `depth`; if not `required`, in the narrowest that there is, in few of them."""

    depth: int
    required: bool


def _wish(ledger: Ledger, job_class: JobClass, views: Sequence[View]) -> _Wish | None:
    """Return how near to each other the replicas want to be.

    One that must be near its own kind, of which there is none yet, must be so with the others that start with it.
    """
    constraints, topology = job_class.constraints, ledger.capacity.topology
    if not (constraints.within or constraints.affinities):
        return None
    depths = [
        depth
        for watch in views[0].field.watches
        if watch.rule.own and watch.rule.required and not watch.rule.apart and not watch.total
        and (depth := topology.depth(watch.rule.level)) is not None
    ]  # fmt: skip
    depth = topology.depth(constraints.within) if constraints.within else None
    if depth is not None and constraints.within_required:
        depths.append(depth)
    if depths:
        return _Wish(max(depths), required=True)
    return None if depth is None else _Wish(depth, required=False)


class _Attempt:
    """One try at placing a class's replicas, and what it has taken so far."""

    def __init__(self, ledger: Ledger, job_class: JobClass, guard: Guard) -> None:
        self.ledger = ledger
        self.views = ledger.capacity.views(job_class, guard.within)
        self.mark = ledger.mark()
        self.grants: list[Grant] = []
        self.own: set[int] = set()
        """Nodes that an exclusive job has for itself: closed to all others, not to its further replicas."""
        self.present: Sequence[Grant] = ()
        """What such a job held there before."""
        self._job_class = job_class
        self._guard = guard
        # The largest first: small ones find room beside them, not the other way round.
        self._roles = list(range(len(job_class.roles)))
        if len(job_class.roles) > 1:
            self._roles.sort(key=lambda role: _size(job_class, role), reverse=True)

    def place(self) -> bool:
        """Place every role's fewest replicas, each where it is best; tell whether all have room."""
        return all(self.add(role, None) for role in self._roles for _ in range(self._job_class.roles[role].least))

    def place_near(self, wish: _Wish) -> bool:
        """Place every role's fewest replicas near to each other; tell whether all have room."""
        for depth in (wish.depth,) if wish.required else range(wish.depth, -2, -1):
            for part in self._parts(depth)[:_MOST_TRIES]:
                if self._fill(part):
                    return True
                undo(self.ledger, self.mark, self.grants, self._guard)
                self.grants.clear()
        # For whoever wants to know how many there would be room for.
        roomiest = max(self._all_parts(wish.depth if wish.required else -1), key=self._slots, default=None)
        if roomiest is not None:
            self._fill(roomiest)
        return False

    def add(self, role: int, home: Part | None) -> bool:
        """Place one more replica where it is best, in `home` if there is one; tell whether it has room."""
        view = self.views[role]
        if home is not None:
            return self._spread(self.ledger.capacity.tally(view), home, role, 1) == 1
        if any(self._on_node(number, role, 1) for number in sorted(self.own)):
            return True
        grant = view.find(self._guard.permits, role, self._job_class)
        if grant is None:
            return False
        self._take(grant)
        return True

    def _parts(self, depth: int) -> list[Part]:
        """Return the parts of a depth with room for each role by itself, those with least left over first."""
        roles = self._job_class.roles
        tallies = [self.ledger.capacity.tally(view) for view in self.views]
        found = []
        for part in self._all_parts(depth):
            slots = [tally.of(part) for tally in tallies]
            if all(each >= role.least for each, role in zip(slots, roles, strict=True)):
                found.append((sum(slots), part))
        return [part for _, part in sorted(found)]

    def _all_parts(self, depth: int) -> Iterator[Part]:
        return self.ledger.capacity.topology.parts(depth)

    def _slots(self, part: Part) -> int:
        """Return for how much of the role that is worst off a part has room, in thousandths."""
        roles = self._job_class.roles
        tallies = [self.ledger.capacity.tally(view) for view in self.views]
        return min(tally.of(part) * 1000 // role.least for tally, role in zip(tallies, roles, strict=True))

    def _fill(self, part: Part) -> bool:
        """Place every role's fewest replicas in one part; tell whether all have room."""
        for role in self._roles:
            least = self._job_class.roles[role].least
            if self._spread(self.ledger.capacity.tally(self.views[role]), part, role, least) < least:
                return False
        return True

    def _spread(self, tally: Tally, part: Part, role: int, count: int) -> int:
        """Place up to `count` replicas over few parts of a part; return how many.

        The roomiest first, but for the last one, which is the tightest that holds the rest. Source: Kueue's
        topology-aware scheduling; Slurm's topology/tree does it by switches.
        """
        if part.depth == len(self.ledger.capacity.topology.levels):
            return self._on_node(part.number, role, count)
        waiting = sorted(filter(None, (self._option(tally, each, role) for each in self._below(tally, part))))
        placed = 0
        while placed < count and waiting:
            option = waiting.pop(_choose(waiting, count - placed))
            placed += self._spread(tally, option.part, role, min(count - placed, -option.less_slots))
        return placed

    def _below(self, tally: Tally, part: Part) -> Iterable[Part]:
        topology = self.ledger.capacity.topology
        if part.depth + 1 < len(topology.levels):
            return topology.below(part)
        return (each for each in topology.below(part) if each.number in tally.slots)

    def _option(self, tally: Tally, part: Part, role: int) -> "_Option | None":
        slots = tally.of(part)
        if not slots:
            return None
        if part.depth < len(self.ledger.capacity.topology.levels):
            return _Option(0, -slots, 0, part)
        points = self.views[role].field.points_of(part.number)
        return _Option(points, -slots, self.ledger.rooms[part.number].cpu_milli, part)

    def _on_node(self, number: int, role: int, count: int) -> int:
        """Place up to `count` replicas on one node; return how many."""
        view, room = self.views[role], self.ledger.rooms[number]
        for placed in range(count):
            view.catch_up()
            open_to_us = view.field.allows(number) or (number in self.own and self._is_ours(view, number))
            if not open_to_us or not room.slots(view.request, 1):
                return placed
            grant = view.grant(number, role, self._job_class)
            if not self._guard.permits(grant):
                return placed
            self._take(grant)
        return count

    def _is_ours(self, view: View, number: int) -> bool:
        """Tell whether a node that is closed to all others for this job is still good for more of it."""
        ours = sum(grant.number == number for grant in (*self.present, *self.grants))
        alone = self.ledger.rooms[number].tenants == ours
        return alone and view.field.admits(number) and not view.field.refuses(number)

    def _take(self, grant: Grant) -> None:
        self.ledger.take(grant)
        self._guard.hold(grant)
        self.grants.append(grant)
        if self._job_class.constraints.exclusive:
            self.own.add(grant.number)


class _Option(NamedTuple):
    """A part with room; sorted, the best is first: least speaks against it, most room, then fewest CPUs, then name."""

    points: int
    less_slots: int
    cpu_milli: int
    part: Part


def _choose(waiting: Sequence[_Option], count: int) -> int:
    """Return the place of the first, or, of those as good that hold all of `count`, of the tightest."""
    points = waiting[0].points
    end = bisect_left(waiting, (points, 1 - count))
    if end == 0:
        return 0
    return bisect_left(waiting, (points, waiting[end - 1].less_slots))


def _size(job_class: JobClass, role: int) -> tuple[int, int, int]:
    request = job_class.roles[role].request
    return request.gpu_milli, request.cpu_milli, request.memory_bytes
