"""Replicas more than a job needs, in room that nobody waits for: whoever gains most by one more, and had least, first.

They are on loan: the next job that lacks room takes them back before anybody must end (see `preemption`).
"""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from heapq import heapify, heappop, heappush

from scheduler.backfill import Claim, Guard, binding
from scheduler.clearing import Site
from scheduler.config import Config
from scheduler.gang import place_gang
from scheduler.occupants import Occupant
from scheduler.placement.rooms import Grant, sum_up
from scheduler.snapshot import WHOLE, Amounts

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

    def open_roles(self) -> list[int]:
        """Return the roles that may have more replicas, the one with fewest beyond its least first."""
        roles = self.occupant.job_class.roles
        counts = [0] * len(roles)
        for grant in (*self.occupant.grants, *self.grants):
            counts[grant.role] += 1
        below = [number for number, role in enumerate(roles) if counts[number] < role.most]
        return sorted(below, key=lambda number: counts[number] - roles[number].least)

    def ratio(self) -> int:
        """Return how many replicas it has for each that it needs, in thousandths: the more, the less it gains by one."""
        least = sum(role.least for role in self.occupant.job_class.roles)
        return (len(self.occupant.grants) + len(self.grants)) * WHOLE // least


def grow(site: Site, claims: Sequence[Claim], config: Config, now: float) -> list[Growth]:
    """Take room for replicas beyond the least, where no claim is in the way and no limit; in the order of age.

    A job that runs already restarts for it, which must be worth it: what the new replicas do until it ends is more than
    what all of it does not do in `restart_s`. One that starts now restarts for nothing.
    """
    if not config.elastic:
        return []
    useless: set[str] = set()
    while True:
        mark, books = site.ledger.mark(), site.lending.books.mark()
        grown = _fill(site, claims, useless, now)
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


def _fill(site: Site, claims: Sequence[Claim], useless: set[str], now: float) -> list[Growth]:
    heap: list[tuple[Turn, Growth]] = []
    for job_id, occupant in site.occupants.elastic.items():
        if occupant.releasing_at is None and not occupant.leaving and job_id not in useless:
            claimed = binding(claims, occupant.job_class)
            one = Growth(occupant, Guard(claimed, occupant.ends_by, _within(site, occupant)))
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
    """Take room for one more replica; tell whether there is any."""
    job_class, books = one.occupant.job_class, site.lending.books
    for number in one.open_roles():
        request = job_class.roles[number].request
        amounts = Amounts(request.cpu_milli, request.memory_bytes, request.gpu_milli)
        if books.refusal(job_class, amounts, 0) is None and (grant := _place(site, one, number)) is not None:
            books.take(job_class, amounts, 0)
            one.grants.append(grant)
            return True
    return False


def _place(site: Site, one: Growth, number: int) -> Grant | None:
    """Place a replica of a role."""
    job_class = one.occupant.job_class
    alone = replace(job_class, roles=(replace(job_class.roles[number], least=1, most=1),))
    return next((grant._replace(role=number) for grant in place_gang(site.ledger, alone, one.guard)), None)


def _within(site: Site, occupant: Occupant) -> Container[int] | None:
    """The nodes where a job may have more: in its reach, and in the domain of its others if it must lie in one."""
    job_class, within = occupant.job_class, site.within(occupant.job_class)
    if not occupant.grants or not (home := site.domain(job_class, occupant.grants[0].number)):
        return within
    there = (number for number in range(len(site.ledger.nodes)) if site.domain(job_class, number) == home)
    return frozenset(number for number in there if within is None or number in within)


def _pays(one: Growth, config: Config, now: float) -> bool:
    occupant = one.occupant
    if occupant.started_at == now:
        return True
    added = sum_up(one.grants)
    more = added.gpu_milli * WHOLE + added.cpu_milli
    return more * max(0.0, occupant.expected_by - now) > config.restart_s * occupant.worth
