"""Which node is the best one for a replica: a field of nodes, ranked for what is asked of devices, seen by one request.

A search is exact: it finds the node with the lowest score, of equals the one with the least memory left, then the
lowest number, whatever happened before (spread takes the most memory). It looks at the groups in the order of the best score that a node in them could have, and stops where none can be better.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Collection, Iterator
from math import inf
from typing import NamedTuple

from scheduler.placement.fields import Field, Group
from scheduler.placement.layouts import Devices, choose_share
from scheduler.placement.rooms import Grant
from scheduler.placement.scoring import Gauge
from scheduler.placement.states import Demand, Outcome, State
from scheduler.snapshot import WHOLE, JobClass, Request

Permits = Callable[[Grant], bool]
"""Whether a start there is allowed besides having the room, such as by a claim of another job."""

POINT = 1 << 100
"""One point against a node weighs more than any score."""


Found = tuple[float, int, int]
"""The score of the best node, its free memory, by which equals are told apart, and its number."""

_NOBODY: Found = (inf, 0, -1)
_NONE_BETTER: Found = (inf, 1, -1)
"""What a search says that did not look at all nodes, as none of the others could be better."""


class Ranked(NamedTuple):
    """A group whose devices serve a demand, and what no node in it can be better than; scores begin at `base`."""

    bound: int
    serial: int
    group: Group
    base: int


class Ranking:
    """The groups of a field whose devices serve one demand, by the best score that a node in them could have.

    Shared by all requests that ask for the same devices.
    """

    def __init__(self, field: Field, demand: Demand, gauge: Gauge) -> None:
        self.gauge = gauge
        self.entries: list[Ranked] = []
        self._field = field
        self._demand = demand
        self._outcomes: dict[State, tuple[Outcome, ...]] = {}
        self._best_of: dict[tuple[State, int], tuple[int, int]] = {}
        self._known: dict[Group, Ranked | None] = {}
        self._in_rank: set[Group] = set()
        self._born = 0

    def catch_up(self) -> None:
        """Rank the groups that have come to have nodes since."""
        born, seen = self._field.born, self._born
        if seen == len(born):
            return
        self._born = len(born)
        in_rank, known = self._in_rank, self._known
        for group in born[seen:] if self._born - seen < len(known) else dict.fromkeys(born[seen:]):
            if group in in_rank or not group.size:
                continue
            if group in known:
                entry = known[group]
            else:
                entry = known[group] = self._rank(group)
            if entry is not None:
                in_rank.add(group)
                insort(self.entries, entry)

    def drop(self, place: int) -> None:
        """Let go of an entry whose group has no nodes left."""
        self._in_rank.discard(self.entries[place].group)
        del self.entries[place]

    def best_outcome(self, state: State, band: int) -> tuple[int, int]:
        """Return (worth, hole) of the best way to serve the demand on a node in `state`, with so many CPUs left."""
        key = (state, band)
        best = self._best_of.get(key)
        if best is None:
            weigh, demand = self.gauge.weigh, self._demand
            best = min((weigh(outcome, demand, band), outcome.hole) for outcome in self._outcomes_in(state))
            self._best_of[key] = best
        return best

    def _rank(self, group: Group) -> Ranked | None:
        """Rank a group as for a request that asks for no CPUs: others fare no better. None where devices are short."""
        if not self._outcomes_in(group.state):
            return None
        base = group.points * POINT - self.gauge.before(group.state, group.band)
        most = min(group.top - 1, self._field.cluster.most_cpu_milli) if self.gauge.spread else 0
        bound = base + self.best_outcome(group.state, group.band)[0] + self.gauge.leftover(most)
        return Ranked(bound, group.serial, group, base)

    def _outcomes_in(self, state: State) -> tuple[Outcome, ...]:
        outcomes = self._outcomes.get(state)
        if outcomes is None:
            outcomes = self._outcomes[state] = self._field.cluster.states.outcomes(state, self._demand)
        return outcomes


class View:
    """A field as one request sees it."""

    def __init__(self, field: Field, request: Request, ranking: Ranking) -> None:
        self.field = field
        self.request = request
        self.demand = Demand.of(request)
        self._ranking = ranking
        self._rooms = field.cluster.rooms
        self._thresholds = field.cluster.thresholds
        self._bounds: dict[Group, int] = {}
        # Where no node of a group had room, none has until another comes.
        self._in_vain: dict[Group, int] = {}
        self._bounded = bool(self._thresholds) and not ranking.gauge.spread
        self._search = self._best_in if self._bounded else self._first_in
        if ranking.gauge.spread:
            self._search = self._emptiest_in

    def find(self, permits: Permits, role: int = 0, job_class: JobClass | None = None) -> Grant | None:
        """Choose node and devices for one replica, None where no node has room that `permits` allows."""
        self.catch_up()
        number = self._best(())
        if number < 0:
            return None
        grant = self.grant(number, role, job_class)
        if permits(grant):
            return grant
        refused = {number}
        while (number := self._best(refused)) >= 0:
            grant = self.grant(number, role, job_class)
            if permits(grant):
                return grant
            refused.add(number)
        return None

    def grant(self, number: int, role: int = 0, job_class: JobClass | None = None) -> Grant:
        """Choose the devices on a node that has room."""
        request, room = self.request, self._rooms[number]
        gpu_milli = request.gpu_milli
        if 0 < gpu_milli < WHOLE:
            state = self.field.cluster.states.of(room)
            band = bisect_right(self._thresholds, room.cpu_milli - request.cpu_milli)
            hole = self._ranking.best_outcome(state, band)[1]
            gpus: Devices = ((choose_share(room.layout, room.gpus, hole), gpu_milli),)
            return Grant(number, request.cpu_milli, request.memory_bytes, gpus, (), role, job_class)
        gpus, slices = room.choose(request, self.field.cluster.states.slice_weights)
        return Grant(number, request.cpu_milli, request.memory_bytes, gpus, slices, role, job_class)

    def catch_up(self) -> None:
        """Take in what has changed since."""
        self.field.catch_up()
        self._ranking.catch_up()

    def groups(self) -> Iterator[Group]:
        """Yield the groups with devices for the request, best first, as of the last `catch_up`."""
        return (entry.group for entry in self._ranking.entries if entry.group.size)

    def slots(self, number: int) -> int:
        """Count the replicas that a node has room for now; 0 on one that the field has not."""
        return self._rooms[number].slots(self.request) if self.field.allows(number) else 0

    def _best(self, refused: Collection[int]) -> int:
        """Return the best node of all groups; -1 if none has room."""
        entries, search, in_vain = self._ranking.entries, self._search, self._in_vain
        cpu_milli = self.request.cpu_milli
        place, best = -1, _NOBODY
        while (place := place + 1) < len(entries):
            entry = entries[place]
            if entry[0] > best[0]:
                break
            group = entry[2]
            if not group.size:
                self._ranking.drop(place)
                place -= 1
            elif group.cpus[-1] >= cpu_milli:
                if best is not _NOBODY and self._bounded and self._bound(entry) > best[0]:
                    continue
                if in_vain.get(group) == group.entered:
                    continue
                found = search(entry, refused, best[0])
                if found < best:
                    best = found
                elif found is _NOBODY and not refused:
                    in_vain[group] = group.entered
        return best[2]

    def _bound(self, entry: Ranked) -> int:
        """Return what no node of a group can be better than for this request: with its CPUs taken off."""
        group = entry[2]
        bound = self._bounds.get(group)
        if bound is None:
            cpu_milli, thresholds = self.request.cpu_milli, self._thresholds
            band = bisect_right(thresholds, group.top - 1 - cpu_milli)
            least = max((thresholds[group.band - 1] if group.band else 0) - cpu_milli, 0)
            worth = self._ranking.best_outcome(group.state, band)[0] + self._ranking.gauge.leftover(least)
            bound = self._bounds[group] = entry[3] + worth
        return bound

    def _first_in(self, entry: Ranked, refused: Collection[int], most: float) -> Found:
        """Find the best node of a group where the fewest CPUs are all that counts; none that scores more than `most`."""
        group, cpu_milli, memory_bytes = entry[2], self.request.cpu_milli, self.request.memory_bytes
        cpus, tops = group.cpus, group.tops
        place = bisect_left(cpus, cpu_milli) if cpus[0] < cpu_milli else 0
        end = len(cpus) if most == inf else bisect_right(cpus, most - entry[0] + cpu_milli)
        while place < end:
            if tops[place] >= memory_bytes:
                for memory, number in _with_memory(group.tiers[place], memory_bytes):
                    if number not in refused:
                        return entry[0] + cpus[place] - cpu_milli, memory, number
            place += 1
        return _NOBODY if end == len(cpus) else _NONE_BETTER

    def _best_in(self, entry: Ranked, refused: Collection[int], _most: float) -> Found:
        """Find the best node of a group: of those in each band after, the one with the fewest CPUs."""
        group, cpu_milli, memory_bytes = entry[2], self.request.cpu_milli, self.request.memory_bytes
        cpus, tops, thresholds, ranking = group.cpus, group.tops, self._thresholds, self._ranking
        place = bisect_left(cpus, cpu_milli) if cpus[0] < cpu_milli else 0
        best = _NOBODY
        while place < len(cpus):
            found = None
            if tops[place] >= memory_bytes:
                tier = _with_memory(group.tiers[place], memory_bytes)
                found = next((each for each in tier if each[1] not in refused), None)
            if found is None:
                place += 1
                continue
            left = cpus[place] - cpu_milli
            band = bisect_right(thresholds, left)
            score = entry[3] + ranking.best_outcome(group.state, band)[0] + ranking.gauge.leftover(left)
            best = min(best, (score, *found))
            if band == len(thresholds) or thresholds[band] + cpu_milli >= group.top:
                break
            place = bisect_left(cpus, thresholds[band] + cpu_milli, place + 1)
        return best

    def _emptiest_in(self, entry: Ranked, refused: Collection[int], _most: float) -> Found:
        """Find the best node of a group where the more CPUs are left the better, then the more memory."""
        group, cpu_milli, memory_bytes = entry[2], self.request.cpu_milli, self.request.memory_bytes
        for place in range(len(group.cpus) - 1, -1, -1):
            milli = group.cpus[place]
            if milli < cpu_milli:
                break
            if group.tops[place] >= memory_bytes:
                tier = _with_memory(group.tiers[place], memory_bytes)
                found = min(((-memory, number) for memory, number in tier if number not in refused), default=None)
                if found is not None:
                    left = milli - cpu_milli
                    worth = self._ranking.best_outcome(group.state, bisect_right(self._thresholds, left))[0]
                    return entry[3] + worth + self._ranking.gauge.leftover(left), *found
        return _NOBODY


def _with_memory(tier: list[tuple[int, int]], memory_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield those of a tier with so much memory, the least first."""
    return map(tier.__getitem__, range(bisect_left(tier, (memory_bytes,)), len(tier)))
