"""Replicas more than a job needs, in room that nobody waits for: whoever gains most by one more, and had least, first.

They are on loan: the next job that lacks room takes them back before anybody must end (see `preemption`).
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from scheduler.amounts import held
from scheduler.backfill import Claim, Guard, binding
from scheduler.clearing import Site
from scheduler.config import Config
from scheduler.gang import extend_gang, undo
from scheduler.occupants import Occupant
from scheduler.placement.rooms import Grant
from scheduler.snapshot import WHOLE

MOST_REPLICAS = 512
"""How many replicas one plan adds."""

Turn = tuple[tuple[int, ...], int, float, str]
"""What decides whose turn it is: the share of its accounts, replicas for each one needed, its age, its id."""


@dataclass(slots=True)
class Growth:
    """What one job gets beside what it holds."""

    occupant: Occupant
    guard: Guard
    grants: list[Grant] = field(default_factory=list)

    def ratio(self) -> int:
        """Return how many replicas it has for each that it needs, in thousandths: the more, the less it gains by one."""
        least = sum(role.least for role in self.occupant.job_class.roles)
        return (len(self.occupant.grants) + len(self.grants)) * WHOLE // least


def grow(site: Site, claims: Sequence[Claim], config: Config, now: float, but: Collection[str] = ()) -> list[Growth]:
    """Take room for replicas beyond the least, where no claim is in the way and no limit; in the order of age, `but` these.

    A job that runs already restarts for it, which must be worth it: what the new replicas do until it ends is more than
    what all of it does not do in `restart_s`. One that starts now restarts for nothing;
    one that started less than `restart_s` ago is left in peace.
    """
    if not config.elastic:
        return []
    useless = set(but)
    while True:
        mark, books = site.ledger.mark(), site.lending.books.mark()
        grown = _fill(site, claims, useless, now, config.restart_s)
        vain = [one for one in grown if not _pays(one, config, now)]
        if not vain:
            return sorted(grown, key=lambda one: (one.occupant.started_at, one.occupant.id))
        # What they would have taken may be of use to others: once more without them.
        useless |= {one.occupant.id for one in vain}
        for one in grown:
            for grant in one.grants:
                one.guard.release(grant)
        site.ledger.rollback(mark)
        site.lending.books.rollback(books)


def _fill(site: Site, claims: Sequence[Claim], useless: set[str], now: float, rest_s: float) -> list[Growth]:
    heap: list[tuple[Turn, Growth]] = []
    for job_id, occupant in site.occupants.elastic.items():
        resting = 0 < now - occupant.started_at < rest_s  # its size changed a moment ago: not to and fro
        if occupant.releasing_at is None and not occupant.leaving and not resting and job_id not in useless:
            claimed = binding(claims, occupant.job_class)
            one = Growth(occupant, Guard(claimed, occupant.ends_by, site.within(occupant.job_class)))
            heap.append((_turn(site, one), one))
    heapify(heap)
    grown: dict[str, Growth] = {}
    left = MOST_REPLICAS
    while heap and left:
        turn, one = heappop(heap)
        if (present := _turn(site, one)) != turn:  # others of its accounts have got something since
            heappush(heap, (present, one))
        elif _add(site, one):
            left -= 1
            grown[one.occupant.id] = one
            heappush(heap, (_turn(site, one), one))
    return list(grown.values())


def _turn(site: Site, one: Growth) -> Turn:
    occupant = one.occupant
    return site.lending.books.usage.path(occupant.job_class), one.ratio(), occupant.started_at, occupant.id


def _add(site: Site, one: Growth) -> bool:
    """Take room for one more replica; tell whether there is any, and the limits allow it."""
    job_class, books = one.occupant.job_class, site.lending.books
    mark = site.ledger.mark()
    present = (*one.occupant.grants, *one.grants)
    for grant in extend_gang(site.ledger, job_class, present, one.guard, 1):
        amounts = held([grant])
        if books.refusal(job_class, amounts, 0) is None:
            books.take(job_class, amounts, 0)
            one.grants.append(grant)
            return True
        undo(site.ledger, mark, [grant], one.guard)
    return False


def _pays(one: Growth, config: Config, now: float) -> bool:
    occupant = one.occupant
    if occupant.started_at == now:
        return True
    added = held(one.grants)
    more = added.gpu_milli * WHOLE + added.cpu_milli
    return more * max(0.0, occupant.expected_by - now) > config.restart_s * occupant.worth
