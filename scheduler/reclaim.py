"""Who gives back what was lent: jobs of pools that borrow, whatever their priority, when the lender needs its own.

The rules are Kueue's (KEP-1714): where both pools' ways up first meet, compare the two sides. A side that stays within
its own, the new job included, takes back from one that borrows. A side that borrows itself takes only from one that
would, without the victim, still owe at least as much as it does with its job (a); where that finds nobody, from one
that owes more than it would (b).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from scheduler.amounts import asked, held
from scheduler.config import Preemption
from scheduler.occupants import Occupant
from scheduler.placement.rooms import Grant
from scheduler.plan import EvictionKind, Reason
from scheduler.preemption import evictable, nobody
from scheduler.snapshot import UNLIMITED, Amounts, JobClass, Pool

Side = tuple[str, ...]
"""A pool and those above it, the root first."""


class Lenders(Protocol):
    """The books of pools that lend to each other."""

    def borrows(self, pool_id: str, amounts: Sequence[int]) -> bool:
        """Tell whether taking `amounts` goes beyond the pool's own in a resource that is asked for."""

    def debt(self, pool_id: str, amounts: Sequence[int]) -> tuple[int, ...]:
        """Return how much of others' it would use with `amounts` more, at each level below the root, for its weight."""


class Shares(Protocol):
    """Who has how much of the cluster."""

    def path(self, job_class: JobClass) -> tuple[int, ...]:
        """Return the rank of a class among all, by what its accounts used and hold: who had least is lowest."""


class Books(Protocol):
    """Who may hold how much; what is tried is rolled back."""

    @property
    def usage(self) -> Shares:
        """Who has how much."""

    @property
    def cohorts(self) -> Lenders:
        """The books of pools."""

    def refusal(self, job_class: JobClass, amounts: Amounts, jobs: int = 1) -> tuple[Reason, str] | None:
        """Say which limit keeps a job from starting."""

    def take(self, job_class: JobClass, amounts: Amounts, jobs: int = 1) -> None:
        """Count what a job holds from now on."""

    def give(self, job_class: JobClass, amounts: Amounts, jobs: int = 1) -> None:
        """Count no longer what a job has given back."""

    def mark(self) -> int:
        """Return a point to roll back to."""

    def rollback(self, mark: int) -> None:
        """Undo everything since `mark`."""


class Pools:
    """Which pool a queue is charged to, and which pools lie above it."""

    def __init__(self, pools: Sequence[Pool], pool_of_queue: Mapping[str, str]) -> None:
        above = {pool.id: pool.parent_id for pool in pools}
        self.names = {pool.id: pool.name for pool in pools}
        self._sides = {queue_id: _side(pool_id, above) for queue_id, pool_id in pool_of_queue.items()}

    def side(self, job_class: JobClass) -> Side:
        """Return the pools that a job is charged to, the root first; none where its queue has no pool."""
        return self._sides.get(job_class.queue_id, ())


@dataclass(frozen=True, slots=True)
class Lending:
    """Who lends to whom, and how much of it is used."""

    books: Books
    pools: Pools


def of_own_right(lending: Lending, job_class: JobClass) -> Callable[[Occupant], bool]:
    """Return who is safe from a job's priority: where it would borrow, those who do not, in other pools of its cohort.

    A pool takes back its own from a borrower of any priority; if that one could then send the owner's job away in turn,
    they would do so for ever.
    """
    side, books = lending.pools.side(job_class), lending.books
    if not side or not books.cohorts.borrows(side[-1], asked(job_class)):
        return nobody

    def spared(occupant: Occupant) -> bool:
        theirs = lending.pools.side(occupant.job_class)
        if not _common(side, theirs) or theirs == side:
            return False
        mark = books.mark()
        books.give(occupant.job_class, occupant.amounts)
        borrowed = books.cohorts.borrows(theirs[-1], occupant.amounts)
        books.rollback(mark)
        return not borrowed

    return spared


class ByPool:
    """Jobs of pools that borrow go, those of the biggest debtor first, then the lowest priority.

    `initial`: rule b instead of rule a where the job's own pool borrows too.
    """

    kind = EvictionKind.RECLAIM
    most_priority: float = UNLIMITED

    def __init__(
        self, job_class: JobClass, lending: Lending, config: Preemption, now: float, *, initial: bool = False
    ) -> None:
        self._class = job_class
        self._asked = asked(job_class)
        self._books = lending.books
        self._pools = lending.pools
        self._initial = initial
        self._side = lending.pools.side(job_class)
        self._config = config
        self._now = now

    def may_go(self, occupant: Occupant) -> bool:
        """Tell whether its pool borrows, and may be made to give this back to the job's."""
        return evictable(occupant, self._config, self._now) and self._owes(occupant)

    def may_shrink(self, occupant: Occupant) -> bool:
        """Tell whether its pool borrows, and may be made to give this back to the job's."""
        return occupant.releasing_at is None and self._owes(occupant)

    def rank(self, occupant: Occupant) -> tuple[int, ...]:
        """Order by what the pool owes, most first, then by priority."""
        return -self._debt(self._pools.side(occupant.job_class)), occupant.job_class.priority

    def lost(self, occupant: Occupant) -> int:
        """Return the work since its checkpoint."""
        return occupant.lost(self._now)

    def note(self, occupant: Occupant, grants: Sequence[Grant], *, goes: bool) -> None:
        """Keep the books."""
        amounts, jobs = held(grants), int(len(grants) == len(occupant.grants))
        if goes:
            self._books.give(occupant.job_class, amounts, jobs)
        else:
            self._books.take(occupant.job_class, amounts, jobs)

    def satisfied(self) -> bool:
        """Tell whether the limits let the job start."""
        return self._books.refusal(self._class, self._asked) is None

    def _owes(self, occupant: Occupant) -> bool:
        side = self._pools.side(occupant.job_class)
        met = _common(self._side, side)
        if not met or met == len(side):
            return False  # of another cohort, or of the job's own pool or one above it
        owed = self._debt(side, met)
        if not owed or not self._borrowed(occupant, side):
            return False
        ours = self._debt(self._side, met, self._asked) if met < len(self._side) else 0
        if not ours:
            return True
        return owed > ours if self._initial else self._debt(side, met, _negative(occupant.amounts)) >= ours

    def _borrowed(self, occupant: Occupant, side: Side) -> bool:
        """Tell whether its pool borrows of what the job asks for and this one holds."""
        borrowable = [amount if wanted else 0 for amount, wanted in zip(occupant.amounts, self._asked, strict=True)]
        mark = self._books.mark()
        self._books.give(occupant.job_class, occupant.amounts)
        borrowed = self._books.cohorts.borrows(side[-1], borrowable)
        self._books.rollback(mark)
        return borrowed

    def _debt(self, side: Side, met: int | None = None, more: Sequence[int] = (0, 0, 0)) -> int:
        """Return what a side owes at the level below the one where it meets the other; nothing where it has no pool."""
        if not side:
            return 0
        debt = self._books.cohorts.debt(side[-1], more)
        place = (_common(self._side, side) if met is None else met) - 1
        return debt[place] if 0 <= place < len(debt) else 0


def _negative(amounts: Amounts) -> Amounts:
    return Amounts(-amounts.cpu_milli, -amounts.memory_bytes, -amounts.gpu_milli)


def _common(one: Side, other: Side) -> int:
    """Count the pools that two ways down from the root share."""
    count = 0
    for mine, theirs in zip(one, other, strict=False):
        if mine != theirs:
            break
        count += 1
    return count


def _side(pool_id: str, above: Mapping[str, str]) -> Side:
    side: list[str] = []
    while pool_id and pool_id not in side:
        side.append(pool_id)
        pool_id = above.get(pool_id, "")
    return tuple(reversed(side))
