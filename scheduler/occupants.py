"""Who holds what, node by node, and what would be lost if they went."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush, merge
from itertools import chain
from math import floor, inf
from operator import add, sub
from typing import NamedTuple

from scheduler.amounts import held
from scheduler.backfill import Release, ends_at
from scheduler.placement.rooms import Grant
from scheduler.snapshot import WHOLE, Amounts, JobClass, PendingJob, RunningJob

_MOST_CHANGES = 200_000
"""After so many another era begins."""

_FIRST = (0,)
_FEW = 16
"""So many are put in their places, or taken out, one by one."""


class Share(NamedTuple):
    """What one job holds on one node; sorted, those who rather go come first."""

    priority: int
    newest: int
    id: str
    occupant: "Occupant"
    cpu_milli: int
    memory_bytes: int
    gpu_milli: int


Departure = tuple[float, str, int, int, int]
"""When a job leaves a node, its id (empty but for one that nobody knows when it ends), and the CPUs, memory and GPUs that
it holds there; a plain tuple, as a large cluster has a hundred thousand of them.
"""


@dataclass(eq=False, slots=True)
class Occupant:
    """A running job; `grants` are what it holds on nodes that are known, `places` their places in its `size` holdings.

    `kept_at` is what it would go on from: its last checkpoint, or its start. `leaving` says of some places by when the
    replica there has ended, `releasing_at` the same of the whole job.
    """

    id: str
    job_class: JobClass
    grants: tuple[Grant, ...]
    amounts: Amounts
    places: tuple[int, ...]
    size: int
    started_at: float
    kept_at: int
    ends_by: float
    expected_by: float
    preemptions: int = 0
    releasing_at: float | None = None
    leaving: dict[int, float] = field(default_factory=dict)

    @classmethod
    def of_running(cls, job: RunningJob, numbers: Mapping[str, int], amounts: Amounts) -> "Occupant":
        """Return what the snapshot says of a job; what lies on nodes that it lacks helps nobody."""
        known = [(place, one) for place, one in enumerate(job.holdings) if one.node_id in numbers]
        ends_by = inf if job.ends_by is None else job.ends_by
        return cls(
            id=job.id,
            job_class=job.job_class,
            grants=tuple([Grant.of(numbers[one.node_id], one, job.job_class) for _, one in known]),
            amounts=amounts,
            places=tuple([place for place, _ in known]),
            size=len(job.holdings),
            started_at=job.started_at,
            # A checkpoint older than the start is that of an earlier attempt: this one has lost nothing before it began.
            kept_at=floor(max(job.started_at, job.checkpointed_at or job.started_at)),
            ends_by=ends_by,
            expected_by=ends_by if job.expected_by is None else job.expected_by,
            preemptions=job.preemptions,
            releasing_at=job.releasing_at,
            leaving={place: one.releasing_at for place, one in known if one.releasing_at is not None},
        )

    @classmethod
    def of_start(cls, job: PendingJob, grants: Sequence[Grant], amounts: Amounts, now: float) -> "Occupant":
        """Return a job as it starts."""
        ends_by = ends_at(now, job.job_class)
        expected_by = ends_by if job.expected_s is None else now + job.expected_s
        places = _FIRST if len(grants) == 1 else tuple(range(len(grants)))
        return cls(
            job.id, job.job_class, tuple(grants), amounts, places, len(places), now, floor(now), ends_by, expected_by
        )

    @property
    def worth(self) -> int:
        """What it holds, in millionths of a GPU; a CPU counts as a thousandth of one, so that GPUs decide."""
        return self.amounts.gpu_milli * WHOLE + self.amounts.cpu_milli

    @property
    def spread(self) -> int:
        """On how many nodes it is."""
        return 1 if len(self.grants) <= 1 else len({grant.number for grant in self.grants})

    def lost(self, now: float) -> int:
        """Return what would have to be done again if it went now, in millionths of a GPU-second.

        A checkpoint that is said to lie in the future saves no more than one made now.
        """
        return self.worth * max(0, floor(now) - self.kept_at)

    def staying(self) -> Iterator[int]:
        """Yield the indexes of the grants whose replicas have not been told to end."""
        return (index for index, place in enumerate(self.places) if place not in self.leaving)

    def grants_from(self, place: int) -> list[Grant]:
        """Return what the replicas from this place on hold."""
        return [grant for at, grant in zip(self.places, self.grants, strict=True) if at >= place]

    def surplus(self) -> dict[int, int]:
        """Return by role how many replicas it could do without."""
        roles = self.job_class.roles
        if all(role.least == role.most for role in roles):
            return {}
        left = {number: -role.least for number, role in enumerate(roles)}
        for index in self.staying():
            left[self.grants[index].role] += 1
        return {number: count for number, count in left.items() if count > 0}

    @property
    def release(self) -> Release:
        """All that will become free, and when the last of it."""
        return self.ends_by if self.releasing_at is None else self.releasing_at, self.id, self.grants

    def releases(self) -> list[Release]:
        """What will become free when."""
        if not self.leaving:
            return [self.release]
        at = self.release[0]
        together: dict[float, list[Grant]] = {at: []}
        for place, grant in zip(self.places, self.grants, strict=True):
            together.setdefault(min(at, self.leaving.get(place, at)), []).append(grant)
        return [(when, self.id, tuple(grants)) for when, grants in together.items()]


class Occupants:
    """All that runs, by id and by node; who came is put in order among the others when somebody must go.

    `releases` is what will become free, soonest first. `version` grows with every change that could make somebody go
    who could not before. `changed` are the numbers of the nodes where anything about it has changed, in order, since the
    `era` began.
    """

    def __init__(self, models: Sequence[str]) -> None:
        self.by_id: dict[str, Occupant] = {}
        self.releasing: dict[str, Occupant] = {}
        self.version = 0
        self.changed: list[int] = []
        self.era = 0
        self.movable = 0
        """How many say that they can go on elsewhere."""
        self.elastic: dict[str, Occupant] = {}
        """Those that may have more replicas than they need."""
        self._models = models
        self._on: dict[int, list[Share]] = {}
        self._ranked: dict[int, dict[str, list[tuple[int, str, Occupant]]]] = {}
        self._unindexed: dict[str, Occupant] = {}
        """Those that have yet to be put in order among the others, by node and by priority."""
        self._releases: list[Release] = []
        self._releases_to_come: list[Release] = []
        """Those that have yet to be put in order among the others."""
        self._departures: dict[int, list[Departure]] = {}
        self._newest: list[tuple[float, str]] = []
        """A heap of when jobs started, without those that were seen to have run long enough."""

    def add(self, occupant: Occupant) -> None:
        """A job runs. Raises ValueError if it did already."""
        self._enter(occupant)
        self._releases_to_come += occupant.releases()

    def add_all(self, occupants: Iterable[Occupant]) -> None:
        """Many jobs run, before anybody was made to go. Raises ValueError if one did already."""
        for occupant in occupants:
            self._enter(occupant)
            self._releases += occupant.releases()
        self._releases.sort()

    @property
    def releases(self) -> Sequence[Release]:
        """What will become free, soonest first."""
        if self._releases_to_come:
            # Putting thousands in their places one by one moves the others as often.
            if len(self._releases_to_come) > _FEW:
                self._releases += self._releases_to_come
                self._releases.sort()
            else:
                for release in self._releases_to_come:
                    insort(self._releases, release)
            self._releases_to_come.clear()
        return self._releases

    def remove(self, job_id: str) -> Occupant:
        """A job runs no longer. Raises KeyError if it did not."""
        occupant = self.by_id.pop(job_id)
        self.releasing.pop(job_id, None)
        self._count(occupant, -1)
        self._note(occupant)
        self._forget_releases(occupant)
        if self._unindexed.pop(job_id, None) is None:
            for number, share in _shares(occupant):
                shares = self._on[number]
                del shares[bisect_left(shares, share)]
            for ranked in self._lists_of(occupant):
                del ranked[bisect_left(ranked, (occupant.kept_at, occupant.id))]
        return occupant

    def extend(self, occupant: Occupant, grants: Sequence[Grant]) -> None:
        """A job has got more replicas."""
        self.remove(occupant.id)
        occupant.places += tuple(range(occupant.size, occupant.size + len(grants)))
        occupant.size += len(grants)
        occupant.grants += tuple(grants)
        occupant.amounts = Amounts(*map(add, occupant.amounts, held(grants)))
        self.add(occupant)

    def shorten(self, occupant: Occupant, places: Sequence[int]) -> list[Grant]:
        """The replicas at these places are gone; return what they held. The others move up."""
        self.remove(occupant.id)
        pairs = list(zip(occupant.places, occupant.grants, strict=True))
        gone = [grant for place, grant in pairs if place in places]
        kept = [
            (place - sum(other < place for other in places), grant) for place, grant in pairs if place not in places
        ]
        occupant.size -= len(set(places))
        occupant.places = tuple([place for place, _ in kept])
        occupant.grants = tuple([grant for _, grant in kept])
        occupant.amounts = Amounts(*map(sub, occupant.amounts, held(gone)))
        staying = (
            (place - sum(other < place for other in places), at)
            for place, at in occupant.leaving.items()
            if place not in places
        )
        occupant.leaving = dict(staying)
        self.add(occupant)
        return gone

    def tell(self, occupant: Occupant, by: float | None, places: Sequence[int] = ()) -> None:
        """Note that it must end by then, None: that it need not; only its replicas at these places, where there are any."""
        self._forget_releases(occupant)
        if not places:
            occupant.releasing_at = by
        elif by is None:
            for place in places:
                del occupant.leaving[place]
        else:
            occupant.leaving.update(dict.fromkeys(places, by))
        self._releases_to_come += occupant.releases()
        if occupant.releasing_at is None and not occupant.leaving:
            del self.releasing[occupant.id]
        else:
            self.releasing[occupant.id] = occupant
        self._note(occupant)

    def on(self, number: int) -> Sequence[Share]:
        """Return who is on a node, lowest priority first, then those with least to do again for what they hold."""
        self._index()
        return self._on.get(number, ())

    def departures(self, number: int) -> Sequence[Departure]:
        """Return who is to leave a node, soonest first, by the first that is known to happen of it."""
        known = self._departures.get(number)
        if known is None:
            known = []
            for _, _, _, occupant, cpu_milli, memory_bytes, gpu_milli in self.on(number):
                at = occupant.ends_by if occupant.releasing_at is None else occupant.releasing_at
                if occupant.leaving:
                    at = min(at, *occupant.leaving.values())
                known.append((at, occupant.id if at == inf else "", cpu_milli, memory_bytes, gpu_milli))
            known.sort()
            self._departures[number] = known
        return known

    def lowest(self) -> float:
        """Return the lowest priority that runs, infinity where nothing does."""
        self._index()
        return min((priority for priority, models in self._ranked.items() if any(models.values())), default=inf)

    def ripens_at(self, now: float, min_run_s: float) -> float:
        """Return when the next one has run long enough to be sent away, infinity if all have."""
        newest, most_pops = self._newest, _FEW
        while newest and not self._is_young(newest[0], now - min_run_s):
            if most_pops:
                heappop(newest)
                most_pops -= 1
            else:  # thousands at once, as when a planner begins
                newest[:] = [one for one in newest if self._is_young(one, now - min_run_s)]
                heapify(newest)
        return newest[0][0] + min_run_s if newest else inf

    def ranked(self, models: Sequence[str], most: float) -> Iterator[Occupant]:
        """Yield those of at most priority `most` that hold something on nodes of these models (none named: any).

        In the order of `on`.
        """
        self._index()
        for priority in sorted(priority for priority in self._ranked if priority <= most):
            by_model = self._ranked[priority]
            lists = [reversed(by_model[model]) for model in (models or sorted(by_model)) if model in by_model]
            for _, _, occupant in merge(*lists, reverse=True) if len(lists) > 1 else chain(*lists):
                yield occupant

    def _enter(self, occupant: Occupant) -> None:
        if occupant.id in self.by_id:
            raise ValueError(f"job {occupant.id} runs twice")
        self.by_id[occupant.id] = self._unindexed[occupant.id] = occupant
        self._count(occupant, 1)
        self._note(occupant)
        heappush(self._newest, (occupant.started_at, occupant.id))
        if occupant.releasing_at is not None or occupant.leaving:
            self.releasing[occupant.id] = occupant

    def _is_young(self, start: tuple[float, str], ripe_at: float) -> bool:
        """Tell whether that job began later than `ripe_at`, and still runs."""
        started_at, job_id = start
        return started_at > ripe_at and (there := self.by_id.get(job_id)) is not None and there.started_at == started_at

    def _note(self, occupant: Occupant) -> None:
        self.version += 1
        if len(self.changed) > _MOST_CHANGES:
            self.changed.clear()
            self.era += 1
        for grant in occupant.grants:
            self.changed.append(grant.number)
            self._departures.pop(grant.number, None)

    def _forget_releases(self, occupant: Occupant) -> None:
        releases = self._releases
        for release in occupant.releases():
            place = bisect_left(releases, release)
            if place < len(releases) and releases[place][:2] == release[:2]:
                del releases[place]
            else:
                self._releases_to_come.remove(release)

    def _count(self, occupant: Occupant, change: int) -> None:
        job_class = occupant.job_class
        self.movable += change * job_class.checkpointable
        if any(role.least < role.most for role in job_class.roles):
            if change > 0:
                self.elastic[occupant.id] = occupant
            else:
                del self.elastic[occupant.id]

    def _index(self) -> None:
        fresh, self._unindexed = self._unindexed, {}
        # Putting thousands in their places one by one moves the others as often.
        put = insort if len(fresh) <= _FEW else list.append
        numbers: set[int] = set()
        for occupant in fresh.values():
            for number, share in _shares(occupant):
                put(self._on.setdefault(number, []), share)
                numbers.add(number)
            for ranked in self._lists_of(occupant):
                put(ranked, (occupant.kept_at, occupant.id, occupant))
        if put is insort:
            return
        for number in numbers:
            self._on[number].sort()
        for by_model in self._ranked.values():
            for ranked in by_model.values():
                ranked.sort()

    def _lists_of(self, occupant: Occupant) -> list[list[tuple[int, str, Occupant]]]:
        by_model = self._ranked.setdefault(occupant.job_class.priority, {})
        if len(occupant.grants) == 1:
            return [by_model.setdefault(self._models[occupant.grants[0].number], [])]
        models = {self._models[grant.number] for grant in occupant.grants}
        return [by_model.setdefault(model, []) for model in models]


def _shares(occupant: Occupant) -> Iterator[tuple[int, Share]]:
    """What it holds node by node."""
    sums: dict[int, list[int]] = {}
    for grant in occupant.grants:
        each = sums.setdefault(grant.number, [0, 0, 0])
        each[0] += grant.cpu_milli
        each[1] += grant.memory_bytes
        each[2] += sum([milli for _, milli in grant.gpus])
    key = occupant.job_class.priority, -occupant.kept_at, occupant.id, occupant
    for number, each in sums.items():
        yield number, Share(*key, *each)
