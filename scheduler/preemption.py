"""Who must go so that one job fits at one place: the fewest, the least important, those with least to do again.

Nodes are opened cheapest first until the job has its replicas; then everyone is put back, last chosen first, without
whom it fits as well. What frees scattered devices that no replica can use is never chosen: a node counts by the
replicas it would hold.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heapify, heappop, heappush
from itertools import islice
from typing import Any, Protocol

from scheduler.backfill import Guard
from scheduler.config import Preemption
from scheduler.gang import needed, place_gang, undo
from scheduler.ledger import Ledger
from scheduler.occupants import Occupant, Occupants
from scheduler.placement.rooms import Grant, Room
from scheduler.plan import EvictionKind
from scheduler.snapshot import WHOLE, JobClass, Request

CANDIDATES = 64
"""How many nodes are compared at a time, or a quarter of that for each replica: those with the least important, newest work."""

DOMAINS = 8
"""How many domains of a level are tried for a job that must lie in one."""

Cost = tuple[Any, ...]
"""What opening a node takes: 0 nothing, 1 surplus replicas, 2 whole jobs; the highest rank that goes; what is lost."""

FREE: Cost = (0, (), 0)


class Rule(Protocol):
    """Who may be made to go for one job, in which order, and what that costs."""

    kind: EvictionKind
    most_priority: float

    def may_go(self, occupant: Occupant) -> bool:
        """Tell whether a job may be made to end, those chosen so far given."""

    def may_shrink(self, occupant: Occupant) -> bool:
        """Tell whether a job may be made to give up replicas that it can do without."""

    def rank(self, occupant: Occupant) -> tuple[int, ...]:
        """Order those who go: the lowest rather than any that is higher."""

    def lost(self, occupant: Occupant) -> int:
        """Return what is lost if it goes, in millionths of a GPU-second."""

    def note(self, occupant: Occupant, grants: Sequence[Grant], *, goes: bool) -> None:
        """Hear that grants are to be given up, or may be kept after all."""

    def satisfied(self) -> bool:
        """Tell whether enough have gone for the job to be allowed to start, room apart."""


def evictable(occupant: Occupant, config: Preemption, now: float) -> bool:
    """Tell whether nothing protects a job from being made to end: it has run a while, was not often made to before, and
    has not been told already.
    """
    return (
        occupant.releasing_at is None
        and occupant.job_class.preemptible
        and occupant.started_at < now >= occupant.started_at + config.min_run_s
        and occupant.preemptions < config.max_preemptions
    )


def nobody(_: Occupant) -> bool:
    """No job is spared."""
    return False


class ByPriority:
    """Jobs of a lower priority go; if `shrinking`, replicas that a job can do without go for one of its own priority too.

    Those that `spared` names stay, however important the job is that waits.
    """

    kind = EvictionKind.PREEMPT

    def __init__(
        self,
        priority: int,
        config: Preemption,
        now: float,
        *,
        shrinking: bool = True,
        spared: Callable[[Occupant], bool] = nobody,
    ) -> None:
        self._level = priority - max(1, config.priority_threshold)
        self.most_priority: float = priority if shrinking else self._level
        self._config = config
        self._now = now
        self._spared = spared

    def may_go(self, occupant: Occupant) -> bool:
        """Tell whether its priority is lower by the threshold, and nothing protects it."""
        lower = occupant.job_class.priority <= self._level
        return lower and evictable(occupant, self._config, self._now) and not self._spared(occupant)

    def may_shrink(self, occupant: Occupant) -> bool:
        """Tell whether it is not more important."""
        no_higher = occupant.job_class.priority <= self.most_priority
        return no_higher and occupant.releasing_at is None and not self._spared(occupant)

    def rank(self, occupant: Occupant) -> tuple[int, ...]:
        """Order by priority."""
        return (occupant.job_class.priority,)

    def lost(self, occupant: Occupant) -> int:
        """Return the work since its checkpoint."""
        return occupant.lost(self._now)

    def note(self, occupant: Occupant, grants: Sequence[Grant], *, goes: bool) -> None:
        """Nothing depends on who has gone."""

    def satisfied(self) -> bool:
        """Room is all that is missing."""
        return True


@dataclass(slots=True)
class Steps:
    """How many more looks at a node or a job one plan may take: a budget that is the same on any machine."""

    left: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Grants of a job, by index, that are given up together: all it has, or a replica that it can do without."""

    occupant: Occupant
    indexes: tuple[int, ...]
    whole: bool

    def grants(self) -> list[Grant]:
        """Return what becomes free."""
        return [self.occupant.grants[index] for index in self.indexes]


@dataclass(frozen=True, slots=True)
class Clearance:
    """Who goes, who gives up which grants (by index), and what the job gets then."""

    evicted: tuple[Occupant, ...]
    shrunk: tuple[Piece, ...]
    grants: tuple[Grant, ...]
    kind: EvictionKind


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a search goes through: the ledger, in a what-if; who holds it; which nodes belong together; the steps left.

    `domain` is a key for what a node lies in, of the level that must hold all replicas of a class.
    """

    ledger: Ledger
    occupants: Occupants
    domain: Callable[[JobClass, int], int]
    steps: Steps


class Search:
    """Finds room for one job by making others go under one rule; used once.

    `guard` keeps the room of those whose claims bind the job. What is found stays taken in the ledger; where nothing is
    found the ledger is as before.
    """

    def __init__(self, cluster: Cluster, job_class: JobClass, rule: Rule, guard: Guard) -> None:
        self._cluster = cluster
        self._ledger = cluster.ledger
        self._class = job_class
        self._rule = rule
        self._guard = guard
        self._mark = cluster.ledger.mark()
        self._needed = needed(job_class)
        self._anywhere = not (job_class.constraints.within or job_class.constraints.affinities)
        self._views = cluster.ledger.capacity.views(job_class, guard.within)
        self._allowed = cluster.ledger.capacity.allowed(job_class.constraints, guard.within)
        self._own: Counter[int] = Counter()
        self._gone: dict[str, set[int]] = {}
        self._chosen: list[Piece] = []
        self._touched: set[int] = set()
        self._estimates: dict[tuple[int, Request], Cost | None] = {}

    def find(self) -> Clearance | None:
        """Return who goes and what the job gets, None if nobody's going would help."""
        for scope in self._scopes():
            found = self._clear(scope)
            if found is not None:
                return found
            self._forget(self._mark)
        return None

    def undo(self, found: Clearance) -> None:
        """Leave everything as it was before `find`."""
        for grant in found.grants:
            self._guard.release(grant)
        self._forget(self._mark)

    def _clear(self, scope: Collection[int]) -> Clearance | None:
        taken = self._take_free(scope)
        there = Counter(grant.role for grant in taken)
        opened = all(
            self._open(scope, role.request, role.least - there[number], number, taken)
            for number, role in enumerate(self._class.roles)
        )
        for grant in taken:
            self._ledger.give(grant)
            self._guard.release(grant)
        self._own.clear()
        if not opened or not self._satisfy():
            return None
        self._put_back()
        grants = self._place()
        if grants is None:
            return None
        return Clearance(
            evicted=tuple(piece.occupant for piece in self._chosen if piece.whole),
            shrunk=tuple(self._shrunk()),
            grants=tuple(grants),
            kind=self._rule.kind,
        )

    def _take_free(self, scope: Collection[int]) -> list[Grant]:
        """Take, of what the job needs, what is free anyhow; nothing where replicas must be near each other or others."""
        if not self._anywhere or not isinstance(scope, range):
            return []
        grants = place_gang(self._ledger, self._class, self._guard)
        short = len(grants) < self._needed  # they have been put back then
        for grant in grants:
            if short:
                self._ledger.take(grant)
                self._guard.hold(grant)
            self._own[grant.number] += 1
            self._touched.add(grant.number)
        return grants

    def _forget(self, mark: int) -> None:
        self._ledger.rollback(mark)
        for piece in self._chosen:
            self._rule.note(piece.occupant, piece.grants(), goes=False)
        self._chosen.clear()
        self._gone.clear()
        self._touched.clear()

    def _shrunk(self) -> Iterator[Piece]:
        ended = {piece.occupant.id for piece in self._chosen if piece.whole}
        return (piece for piece in self._chosen if not piece.whole and piece.occupant.id not in ended)

    # Opening nodes

    def _open(self, scope: Collection[int], request: Request, count: int, role: int, taken: list[Grant]) -> bool:
        """Make room for `count` replicas, node by node, the cheapest next; tell whether there is."""
        candidates = self._candidates(scope, request)
        heap: list[tuple[Cost, int]] = []
        while count and (heap or (heap := next(candidates, []))):
            estimate, number = heappop(heap)
            found = self._next_slot(number, request)
            if found is None:
                continue
            cost, pieces, grant = found
            if cost > estimate and heap and (cost, number) > heap[0]:
                heappush(heap, (cost, number))
                continue
            count -= 1
            taken.append(grant := grant._replace(role=role))
            for other in self._choose(pieces) | {number}:
                # Somebody who goes here may have been in the way there as well.
                heappush(heap, (FREE if other != number else cost, other))
            self._ledger.take(grant)
            self._guard.hold(grant)
            self._own[number] += 1
            self._touched.add(number)
        return not count

    def _candidates(self, scope: Collection[int], request: Request) -> Iterator[list[tuple[Cost, int]]]:
        """Yield heaps of nodes by what they would cost: many small ones, or, where it matters which they are, one of all."""
        if self._needed > 1 and not self._anywhere:
            yield self._heap(scope, request)
            return
        if not self._rule.satisfied() and (free := self._free_node()):
            yield free
        nodes = self._nodes_of_least(scope, request)
        while heap := self._heap(islice(nodes, max(CANDIDATES, CANDIDATES * self._needed // 4)), request):
            yield heap

    def _free_node(self) -> list[tuple[Cost, int]]:
        """Return a node where nobody has to go for there to be room."""
        mark = self._ledger.mark()
        grants = self._place()
        if grants is None:
            return []
        undo(self._ledger, mark, grants, self._guard)
        return [(FREE, grants[0].number)]

    def _heap(self, numbers: Iterable[int], request: Request) -> list[tuple[Cost, int]]:
        heap = [(cost, number) for number in numbers if (cost := self._cost(number, request))]
        heapify(heap)
        return heap

    def _nodes_of_least(self, scope: Collection[int], request: Request) -> Iterator[int]:
        """Yield nodes that might do, those first where somebody is of least importance and newest."""
        seen: set[int] = set()
        allowed = scope if isinstance(scope, range) else set(scope)
        models = request.gpu_models if request.gpu_milli else ()
        for occupant in self._cluster.occupants.ranked(models, self._rule.most_priority):
            self._cluster.steps.left -= 1
            if self._cluster.steps.left <= 0:
                return
            for grant in occupant.grants:
                number = grant.number
                if number not in seen and number in allowed:
                    seen.add(number)
                    if self._cost(number, request):
                        yield number

    def _cost(self, number: int, request: Request) -> Cost | None:
        """Guess what one more replica there costs, None if there can be none; devices are not looked at one by one."""
        key = number, request
        if key not in self._estimates:
            self._cluster.steps.left -= 1
            self._estimates[key] = self._estimate(number, request)
        return self._estimates[key]

    def _estimate(self, number: int, request: Request) -> Cost | None:
        room = self._ledger.rooms[number]
        wrong_model = request.gpu_milli and request.gpu_models and room.model not in request.gpu_models
        if wrong_model or not self._reaches(number):
            return None
        cpu_milli, memory_bytes = room.cpu_milli - request.cpu_milli, room.memory_bytes - request.memory_bytes
        gpu_milli = sum(room.gpus) - request.gpu_milli  # they may lie in pieces: a closer look will tell
        if cpu_milli >= 0 and memory_bytes >= 0 and gpu_milli >= 0 and self._fits(room, number, request):
            return FREE
        rule = self._rule
        going = []
        for priority, _, _, occupant, cpu, memory, gpu in self._cluster.occupants.on(number):
            if priority > rule.most_priority:
                break
            if rule.may_go(occupant) or (rule.may_shrink(occupant) and occupant.surplus()):
                going.append(occupant)
                cpu_milli += cpu
                memory_bytes += memory
                gpu_milli += gpu
                if cpu_milli >= 0 and memory_bytes >= 0 and gpu_milli >= 0:
                    return 2, rule.rank(occupant), sum([self._part_lost(one) for one in going])
        return None

    def _reaches(self, number: int) -> bool:
        """Tell whether the job may be on a node at all, whoever goes."""
        return self._ledger.rooms[number].ready and (self._allowed is None or number in self._allowed)

    def _fits(self, room: Room, number: int, request: Request) -> bool:
        """Tell whether there is room for one more replica, beside nobody whom it must be alone with, or who must be."""
        own = self._own[number]
        alone = room.tenants == own if self._class.constraints.exclusive else room.exclusive == 0
        return alone and room.slots(request, 1) > 0

    def _is_near(self, number: int) -> bool:
        """Tell whether the job may be on a node as far as it must be near others, or apart from them."""
        field = self._views[0].field
        if not field.watches:
            return True
        field.catch_up()
        return not field.refuses(number)

    def _next_slot(self, number: int, request: Request) -> tuple[Cost, list[Piece], Grant] | None:
        """Find out who must go for one more replica on a node: in order until it fits, then put back in reverse."""
        room = self._ledger.rooms[number].copy()
        gone: list[Piece] = []
        for piece in self._pieces(number):
            if self._fits(room, number, request):
                break
            if piece.whole:  # what it gives up as surplus is part of it
                merged = [other for other in gone if other.occupant is piece.occupant]
                indexes = {index for other in merged for index in other.indexes}
                for other in merged:
                    gone.remove(other)
                _move(room, number, replace(piece, indexes=tuple(set(piece.indexes) - indexes)), goes=True)
            else:
                _move(room, number, piece, goes=True)
            gone.append(piece)
        if not (self._fits(room, number, request) and self._is_near(number)):
            return None
        for piece in reversed(gone.copy()):
            _move(room, number, piece, goes=False)
            if self._fits(room, number, request):
                gone.remove(piece)
            else:
                _move(room, number, piece, goes=True)
        grant = room.grant(number, request, 0, self._class)
        return (self._sum(gone), gone, grant) if room.covers(grant) and self._guard.permits(grant) else None

    def _pieces(self, number: int) -> list[Piece]:
        """What could be given up on a node, surplus replicas first, then whole jobs, by rank and loss."""
        found: list[tuple[tuple[Any, ...], Piece]] = []
        for share in self._cluster.occupants.on(number):
            occupant = share.occupant
            gone = self._gone.get(occupant.id, ())
            left = [index for index in occupant.staying() if index not in gone]
            here = [index for index in left if occupant.grants[index].number == number]
            if not here:
                continue
            rank, lost = self._rule.rank(occupant), self._rule.lost(occupant)
            if self._rule.may_shrink(occupant) and (surplus := occupant.surplus()):
                spare = Counter(surplus)
                spare.subtract(occupant.grants[index].role for index in gone)
                for index in reversed(here):
                    if spare[occupant.grants[index].role] > 0:
                        spare[occupant.grants[index].role] -= 1
                        found.append(((1, rank, -index, occupant.id), Piece(occupant, (index,), whole=False)))
            if self._rule.may_go(occupant):
                key = 2, rank, lost, -occupant.started_at, occupant.id
                found.append((key, Piece(occupant, tuple(left), whole=True)))
        found.sort(key=_first)
        return [piece for _, piece in found]

    def _sum(self, pieces: Sequence[Piece]) -> Cost:
        if not pieces:
            return FREE
        ranks = [self._rule.rank(piece.occupant) for piece in pieces]
        lost = sum(self._part_lost(piece.occupant) for piece in pieces if piece.whole)
        return 1 + any(piece.whole for piece in pieces), max(ranks), lost

    def _part_lost(self, occupant: Occupant) -> int:
        """Return which part of a loss to count on one node: the job may well use the others that it frees too."""
        return self._rule.lost(occupant) // min(occupant.spread, self._needed)

    def _choose(self, pieces: Sequence[Piece]) -> set[int]:
        """Let these go; return the nodes where that makes room."""
        numbers: set[int] = set()
        for piece in pieces:
            for grant in piece.grants():
                self._ledger.give(grant)
                numbers.add(grant.number)
            self._gone.setdefault(piece.occupant.id, set()).update(piece.indexes)
            self._rule.note(piece.occupant, piece.grants(), goes=True)
            self._chosen.append(piece)
        self._touched |= numbers
        if numbers:
            self._estimates.clear()
        return numbers

    def _satisfy(self) -> bool:
        """Have more go, where room is not all that is missing, first in rank first."""
        if self._rule.satisfied():
            return True
        heap = []
        for occupant in self._cluster.occupants.ranked((), self._rule.most_priority):
            self._cluster.steps.left -= 1
            if occupant.id not in self._gone and self._rule.may_go(occupant):
                heap.append((self._rule.rank(occupant), self._rule.lost(occupant), occupant.id))
        heapify(heap)
        while heap and self._cluster.steps.left > 0:
            rank, lost, job_id = heappop(heap)
            occupant = self._cluster.occupants.by_id[job_id]
            self._cluster.steps.left -= 1
            # Who is on nodes of two models is listed twice.
            if job_id in self._gone or not self._rule.may_go(occupant):
                continue
            if (present := self._rule.rank(occupant)) > rank:  # others went, so that its turn comes later
                heappush(heap, (present, lost, job_id))
                continue
            self._choose([Piece(occupant, tuple(occupant.staying()), whole=True)])
            if self._rule.satisfied():
                return True
        return False

    # Putting back

    def _put_back(self) -> None:
        """Let everyone stay, last chosen first, without whose going the job starts as well."""
        roles = self._class.roles
        slots = {number: self._slots(number) for number in self._touched}
        totals = [sum(each[index] for each in slots.values()) for index in range(len(roles))]
        ended: set[str] = set()
        for piece in reversed(self._chosen.copy()):
            if piece.occupant.id in ended:
                continue
            for grant in piece.grants():
                self._ledger.retake(grant)
            self._rule.note(piece.occupant, piece.grants(), goes=False)
            fresh = {number: self._slots(number) for number in {grant.number for grant in piece.grants()}}
            after = [
                total + sum(fresh[number][index] - slots[number][index] for number in fresh)
                for index, total in enumerate(totals)
            ]
            # Room that was free went first. So with one role too few slots on these nodes are too few: no need to try.
            enough = len(roles) > 1 or after[0] >= roles[0].least
            if enough and self._rule.satisfied() and self._starts():
                self._chosen.remove(piece)
                slots.update(fresh)
                totals = after
                continue
            for grant in piece.grants():
                self._ledger.give(grant)
            self._rule.note(piece.occupant, piece.grants(), goes=True)
            if piece.whole:
                ended.add(piece.occupant.id)

    def _slots(self, number: int) -> list[int]:
        room = self._ledger.rooms[number]
        if room.tenants if self._class.constraints.exclusive else room.exclusive:
            return [0] * len(self._class.roles)
        return [room.slots(role.request, role.least) for role in self._class.roles]

    def _starts(self) -> bool:
        mark = self._ledger.mark()
        grants = self._place()
        if grants is not None:
            undo(self._ledger, mark, grants, self._guard)
        return grants is not None

    def _place(self) -> list[Grant] | None:
        """Place the job as it would be in the end; None if it does not fit."""
        mark = self._ledger.mark()
        grants = place_gang(self._ledger, self._class, self._guard)
        if len(grants) < self._needed:
            return None
        if len({self._cluster.domain(self._class, grant.number) for grant in grants}) > 1:
            undo(self._ledger, mark, grants, self._guard)
            return None
        return grants

    # Domains

    def _scopes(self) -> Iterator[Collection[int]]:
        """Yield sets of nodes to find room in: the domains of a level that must hold all replicas, cheapest first.

        Nobody is made to go for a level that is only preferred.
        """
        everywhere = range(len(self._ledger.nodes))
        if not self._class.constraints.within_required:
            yield everywhere
            return
        domains: dict[int, list[int]] = {}
        for number in everywhere:
            if self._reaches(number):
                domains.setdefault(self._cluster.domain(self._class, number), []).append(number)
        yield from self._cheapest(domains.values())

    def _cheapest(self, domains: Collection[list[int]]) -> Iterator[list[int]]:
        """Yield the domains whose cheapest nodes cost least, of those with enough nodes."""
        role = max(self._class.roles, key=lambda one: (one.request.gpu_milli, one.least))
        request = role.request
        found = []
        for numbers in domains:
            costs = sorted(cost for number in numbers if (cost := self._cost(number, request)))
            widest = max((len(self._ledger.rooms[number].gpus) for number in numbers), default=0) * WHOLE
            # No node holds more replicas than its devices do, so there must be this many nodes.
            fewest = -(-role.least // max(1, widest // request.gpu_milli)) if request.gpu_milli else 1
            if len(costs) >= fewest:
                worst = max(costs[:fewest])
                found.append(((worst[:2], sum(cost[2] for cost in costs[:fewest]), numbers[0]), numbers))
        found.sort(key=_first)
        yield from (numbers for _, numbers in found[:DOMAINS])


def _move(room: Room, number: int, piece: Piece, *, goes: bool) -> None:
    for grant in piece.grants():
        if grant.number == number:
            if goes:
                room.give(grant)
            else:
                room.take(grant)


def _first(pair: tuple[Any, Any]) -> Any:
    return pair[0]
