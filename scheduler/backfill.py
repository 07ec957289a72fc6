"""Claims of blocked heads, and the test that keeps later jobs from delaying them.

EASY backfill (Lifka 1995; Mu'alem and Feitelson, TPDS 2001), with a node set in place of sums: what a
blocked job will need is kept free on the very nodes where it will start. `scheduler.forecast` finds when that is.
"""

from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass, replace
from math import inf

from scheduler.placement.affinity import levels_apart
from scheduler.placement.rooms import Grant, Room
from scheduler.placement.topology import Topology
from scheduler.snapshot import JobClass, PendingJob, Request, Role

Release = tuple[float, str, tuple[Grant, ...]]
"""When (`inf` where no limit says), whose, and what becomes free."""

Counts = tuple[int, ...]
"""Replicas on one node, by role."""


class Spare:
    """How many replicas more than a claim needs the nodes will have room for, whichever nodes it starts on.

    A claim that is alone, of replicas that are alike and may be anywhere, need not be on certain nodes: a job may take
    what it counted on if others have as much. `slots` are the replicas that each node has room for at its start,
    `gained` is what will have become free there by then, `present` the nodes' rooms now.
    """

    def __init__(
        self,
        request: Request,
        over: int,
        slots: dict[int, int],
        gained: dict[int, list[Grant]],
        present: Sequence[Room],
    ) -> None:
        self.slots = slots
        self._request = request
        self._over = over
        self._gained = gained
        self._present = present
        self._rooms: dict[int, Room] = {}

    def allows(self, grant: Grant) -> bool:
        """Tell whether there is still room for the claim beside `grant`."""
        room = self._room(grant.number)
        room.take(grant)
        lost = self.slots[grant.number] - self._slots(room)
        room.give(grant)
        return lost <= self._over

    def take(self, grant: Grant) -> None:
        """Count no longer on what a job takes that will still be there."""
        self._room(grant.number).take(grant)
        self._count(grant.number)

    def give(self, grant: Grant) -> None:
        """Take back a `take`."""
        self._room(grant.number).give(grant)
        self._count(grant.number)

    def borrow(self, grant: Grant) -> None:
        """Note a job that takes something now and will be gone."""
        self._gained.setdefault(grant.number, []).append(grant)

    def unborrow(self, grant: Grant) -> None:
        """Take back a `borrow`."""
        self._gained[grant.number].remove(grant)

    def _count(self, number: int) -> None:
        slots = self._slots(self._rooms[number])
        self._over += slots - self.slots[number]
        self.slots[number] = slots

    def _slots(self, room: Room) -> int:
        return 0 if room.exclusive else room.slots(self._request)

    def _room(self, number: int) -> Room:
        """Return a node as it will be; made when first asked for, which is before anything is taken of it."""
        room = self._rooms.get(number)
        if room is None:
            room = self._rooms[number] = self._present[number].copy()
            for grant in self._gained.get(number, ()):
                room.give(grant)
        return room


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """What a blocked job is owed: `grants` from `starts_at` to `ends_at`, each `inf` where no limit says.

    `rooms` are the claimed nodes as they will be at `starts_at`, before the job itself; they shrink as jobs start
    that will still be there then. `counts` are its replicas by node number. With `spare` the nodes may change.
    `after` is the job whose end, at no known time, lets it start. `topology` is where replicas may have to be apart from
    others: None where nobody can be meant.

    A reservation is a claim too, `booked` for a job that does not wait; once it has begun, `rooms` are the ledger's own.
    """

    job: PendingJob
    starts_at: float
    ends_at: float
    grants: tuple[Grant, ...]
    rooms: dict[int, Room]
    counts: dict[int, Counts]
    spare: Spare | None = None
    after: str = ""
    booked: bool = False
    begun: bool = False
    topology: Topology | None = None

    def at_present(self, rooms: Sequence[Room]) -> "Claim":
        """Return a booked claim as it binds those who start while it lasts."""
        return replace(self, rooms={number: rooms[number] for number in self.counts}, begun=True)

    def overlaps(self, starts_at: float, ends_at: float) -> bool:
        """Tell whether a job that runs over that time would be there when the claim begins."""
        # An unknown start may be any moment, so no end is early enough for it.
        return self.begun or (starts_at < self.ends_at and not ends_at <= self.starts_at < inf)

    def counts_on(self, number: int) -> bool:
        """Tell whether it counts on a node."""
        return number in (self.counts if self.spare is None else self.spare.slots)

    def leaves_room(self, grant: Grant) -> bool:
        """Tell whether the claim still fits beside `grant`, which is on a node it counts on."""
        if self.spare is not None:
            return self.spare.allows(grant)
        if _alone(self.job.job_class) or (grant.job_class is not None and _alone(grant.job_class)):
            return False
        room = self.rooms[grant.number]
        room.take(grant)
        fits = _fits(room, self.job.job_class.roles, self.counts[grant.number])
        room.give(grant)
        return fits

    def suffers(self, grant: Grant) -> bool:
        """Tell whether its job may be together with the one of `grant` where it is to be, room apart."""
        if self.topology is None or grant.job_class is None:
            return True
        domain = self.topology.domain
        return not any(
            domain(level, number) == domain(level, grant.number)
            for level in levels_apart(self.job.job_class, grant.job_class)
            for number in self.counts
        )

    def hold(self, grant: Grant) -> None:
        """Shrink what it counts on by a granted start."""
        if self.spare is not None:
            self.spare.take(grant)
        elif not self.begun:
            self.rooms[grant.number].take(grant)

    def release(self, grant: Grant) -> None:
        """Take back a `hold`."""
        if self.spare is not None:
            self.spare.give(grant)
        elif not self.begun:
            self.rooms[grant.number].give(grant)


class Guard:
    """Lets a job that runs until `ends_at` start only where no claim is delayed, and on nodes `within` its reach.

    It starts now, where `starts_at` does not say otherwise.
    """

    def __init__(
        self,
        claims: Sequence[Claim],
        ends_at: float,
        within: Container[int] | None = None,
        *,
        starts_at: float = -inf,
    ) -> None:
        self.within = within
        self._claims = [claim for claim in claims if claim.overlaps(starts_at, ends_at)]
        self._lent = [claim.spare for claim in claims if claim.spare and not claim.overlaps(starts_at, ends_at)]
        self.refused_for: PendingJob | None = None

    def permits(self, grant: Grant) -> bool:
        """Tell whether `grant` delays nobody; else remember the job it would delay."""
        if self.within is not None and grant.number not in self.within:
            return False
        for claim in self._claims:
            if not claim.suffers(grant) or (claim.counts_on(grant.number) and not claim.leaves_room(grant)):
                self.refused_for = claim.job
                return False
        return True

    def hold(self, grant: Grant) -> None:
        """Shrink what the claims count on by a granted start."""
        for claim in self._concerned(grant):
            claim.hold(grant)
        for spare in self._lent:
            spare.borrow(grant)

    def release(self, grant: Grant) -> None:
        """Take back a `hold`."""
        for claim in self._concerned(grant):
            claim.release(grant)
        for spare in self._lent:
            spare.unborrow(grant)

    def _concerned(self, grant: Grant) -> Iterable[Claim]:
        return (one for one in self._claims if one.counts_on(grant.number))


def binding(claims: Sequence[Claim], job_class: JobClass) -> Sequence[Claim]:
    """Leave out what a class's own project has booked."""
    project_id = job_class.project_id
    if project_id and any(one.booked and one.job.job_class.project_id == project_id for one in claims):
        return [one for one in claims if not (one.booked and one.job.job_class.project_id == project_id)]
    return claims


def ends_at(starts_at: float, job_class: JobClass) -> float:
    """Return when a start then ends at the latest, `inf` without a limit."""
    return inf if job_class.time_limit_s is None else starts_at + job_class.time_limit_s


def where_apart(job_class: JobClass, topology: Topology) -> Topology | None:
    """Return where a claim's job may have to be apart from others: None for one that has no labels and no such wish."""
    return topology if job_class.labels or job_class.constraints.affinities else None


def _alone(job_class: JobClass) -> bool:
    return job_class.constraints.exclusive


def _fits(room: Room, roles: Sequence[Role], counts: Counts) -> bool:
    if len(roles) == 1:
        return room.slots(roles[0].request, counts[0]) >= counts[0]
    copy = room.copy()
    for role, count in zip(roles, counts, strict=True):
        for _ in range(count):
            if not copy.slots(role.request, 1):
                return False
            copy.take(copy.grant(0, role.request))
    return True
