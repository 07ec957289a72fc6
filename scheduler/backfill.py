"""Claims for blocked heads, and the test that keeps later jobs from delaying them.

EASY backfill (Lifka 1995; Mu'alem and Feitelson, TPDS 2001), with a node set in place of sums: what a
blocked job will need is kept free on the very nodes where it will start.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from heapq import merge
from math import inf

from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant, Room
from scheduler.snapshot import JobClass, PendingJob, Role

Release = tuple[float, str, tuple[Grant, ...]]
"""When (`inf` where no limit says), whose, and what becomes free."""

Counts = tuple[int, ...]
"""Replicas on one node, by role."""


@dataclass(frozen=True, slots=True)
class Claim:
    """What a blocked job is owed: `grants` from `starts_at` to `ends_at`, each `inf` where no limit says.

    `rooms` are the claimed nodes as they will be at `starts_at`, before the job itself; they shrink as jobs start
    that will still be there then. `counts` are its replicas by node number.
    """

    job: PendingJob
    starts_at: float
    ends_at: float
    grants: tuple[Grant, ...]
    rooms: dict[int, Room]
    counts: dict[int, Counts]

    def concerns(self, grant: Grant, ends_at: float) -> bool:
        """Tell whether a start now until `ends_at` would still be on a claimed node when the claim begins."""
        # An unknown start may be any moment, so no end is early enough for it.
        return grant.number in self.counts and not ends_at <= self.starts_at < inf

    def leaves_room(self, grant: Grant) -> bool:
        """Tell whether the claim still fits its node beside `grant`."""
        room = self.rooms[grant.number]
        room.take(grant)
        fits = _fits(room, self.job.job_class.roles, self.counts[grant.number])
        room.give(grant)
        return fits


class Guard:
    """Lets a job that runs until `ends_at` start only where no claim is delayed, and on nodes `within` its reach."""

    def __init__(self, claims: Sequence[Claim], ends_at: float, within: Container[int] | None = None) -> None:
        self._claims = claims
        self._ends_at = ends_at
        self._within = within
        self.refused_for: PendingJob | None = None

    def permits(self, grant: Grant) -> bool:
        """Tell whether `grant` delays nobody; else remember the job it would delay."""
        if self._within is not None and grant.number not in self._within:
            return False
        for claim in self._claims:
            if claim.concerns(grant, self._ends_at) and not claim.leaves_room(grant):
                self.refused_for = claim.job
                return False
        return True

    def hold(self, grant: Grant) -> None:
        """Shrink what the claims count on by a granted start."""
        for claim in self._concerned(grant):
            claim.rooms[grant.number].take(grant)

    def release(self, grant: Grant) -> None:
        """Take back a `hold`."""
        for claim in self._concerned(grant):
            claim.rooms[grant.number].give(grant)

    def _concerned(self, grant: Grant) -> Iterable[Claim]:
        return (one for one in self._claims if one.concerns(grant, self._ends_at))


def claim(
    job: PendingJob,
    ledger: Ledger,
    releases: Sequence[Release],
    earlier: Sequence[Claim],
    now: float,
    within: Container[int] | None = None,
) -> Claim | None:
    """Find when and where a blocked job can start beside `earlier` claims; None where no release makes room.

    Only nodes `within` its reach will do, None: all of them. `releases` are sorted. Of those without a time the one with the lowest id is taken to come first: ids grow with
    time.
    """
    rooms = {
        number: room.copy()
        for number, room in enumerate(ledger.rooms)
        if ledger.nodes[number].ready and (within is None or number in within)
    }
    for other in earlier:
        # Held from now on, not only from its start: then neither claim can come to delay the other.
        for grant in other.grants:
            if grant.number in rooms:
                rooms[grant.number].take(grant)
    ends = sorted((other.ends_at, other.job.id, other.grants) for other in earlier)
    roles = job.job_class.roles
    starts_at = _advance(rooms, roles, merge(releases, ends), now)
    if starts_at is None:
        return None
    counts = _choose_nodes(rooms, roles)
    claimed = {number: rooms[number] for number in counts}
    return Claim(
        job=job,
        starts_at=starts_at,
        ends_at=ends_at(starts_at, job.job_class),
        grants=_grants(claimed, counts, roles),
        rooms=claimed,
        counts=counts,
    )


def ends_at(starts_at: float, job_class: JobClass) -> float:
    """Return when a start then ends at the latest, `inf` without a limit."""
    return inf if job_class.time_limit_s is None else starts_at + job_class.time_limit_s


def _advance(rooms: dict[int, Room], roles: Sequence[Role], releases: Iterable[Release], now: float) -> float | None:
    """Release into `rooms` until the roles fit; return that time, `inf` where no limit says, None if it never does."""
    slots = [{number: room.slots(role.request, role.least) for number, room in rooms.items()} for role in roles]
    totals = [sum(each.values()) for each in slots]
    reached = now
    for at, _, grants in releases:
        # What ends in the same instant is free in that instant; what has no time is not assumed to come together.
        if not at <= reached < inf and _enough(rooms, roles, totals):
            return reached
        reached = max(reached, at)
        for grant in grants:
            if grant.number in rooms:
                room = rooms[grant.number]
                room.give(grant)
                for index, role in enumerate(roles):
                    fresh = room.slots(role.request, role.least)
                    totals[index] += fresh - slots[index][grant.number]
                    slots[index][grant.number] = fresh
    return reached if _enough(rooms, roles, totals) else None


def _enough(rooms: dict[int, Room], roles: Sequence[Role], totals: Sequence[int]) -> bool:
    if any(total < role.least for total, role in zip(totals, roles, strict=True)):
        return False
    return len(roles) == 1 or bool(_choose_nodes(rooms, roles))


def _choose_nodes(rooms: dict[int, Room], roles: Sequence[Role]) -> dict[int, Counts]:
    """Fill nodes by number: what starts beside the claim never changes which, so the next plan keeps them.

    Empty where the roles do not fit beside each other.
    """
    counts: dict[int, list[int]] = {}
    left: dict[int, Room] = {}
    for index, role in enumerate(roles):
        missing = role.least
        for number, room in rooms.items():
            here = left.get(number, room).slots(role.request, missing) if missing else 0
            if here:
                counts.setdefault(number, [0] * len(roles))[index] = here
                missing -= here
                if len(roles) > 1:
                    left.setdefault(number, room.copy())
                    _take(left[number], number, role, index, here)
        if missing:
            return {}
    return {number: tuple(each) for number, each in counts.items()}


def _fits(room: Room, roles: Sequence[Role], counts: Counts) -> bool:
    if len(roles) == 1:
        return room.slots(roles[0].request, counts[0]) >= counts[0]
    copy = room.copy()
    for index, (role, count) in enumerate(zip(roles, counts, strict=True)):
        if copy.slots(role.request, count) < count:
            return False
        _take(copy, 0, role, index, count)
    return True


def _grants(rooms: dict[int, Room], counts: dict[int, Counts], roles: Sequence[Role]) -> tuple[Grant, ...]:
    left = {number: rooms[number].copy() for number in counts}
    return tuple(
        grant
        for index, role in enumerate(roles)
        for number, each in counts.items()
        for grant in _take(left[number], number, role, index, each[index])
    )


def _take(room: Room, number: int, role: Role, index: int, count: int) -> list[Grant]:
    grants = []
    for _ in range(count):
        request = role.request
        devices = room.devices_for(request.gpu_milli)
        grant = Grant(number, request.cpu_milli, request.memory_bytes, devices, role=index)
        room.take(grant)
        grants.append(grant)
    return grants
