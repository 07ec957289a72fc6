"""Reservations for blocked heads, and the test that keeps later jobs from delaying them.

EASY backfill (Lifka 1995; Mu'alem and Feitelson, TPDS 2001), with a node set in place of sums: what a
blocked job will need is kept free on the very nodes where it will start.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant, Room
from scheduler.snapshot import PendingJob, Request, RunningJob

Release = tuple[float, str, tuple[Grant, ...]]
"""When (`inf` where no limit says), whose, and what becomes free."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A blocked job's claim: `grants` from `starts_at` to `ends_at`, each `inf` where no limit says.

    `rooms` are the claimed nodes as they will be at `starts_at`, before the job itself; they shrink as jobs start
    that will still be there then. `counts` are its replicas by node number.
    """

    job_id: str
    request: Request
    starts_at: float
    ends_at: float
    grants: tuple[Grant, ...]
    rooms: dict[int, Room]
    counts: dict[int, int]

    def concerns(self, grant: Grant, ends_at: float) -> bool:
        """Tell whether a start now until `ends_at` would still be on a claimed node when the claim begins."""
        # An unknown start may be any moment, so no end is early enough for it.
        return grant.number in self.counts and not ends_at <= self.starts_at < inf

    def leaves_room(self, grant: Grant) -> bool:
        """Tell whether the claim still fits its node beside `grant`."""
        room = self.rooms[grant.number]
        room.take(grant)
        fits = room.replicas(self.request) >= self.counts[grant.number]
        room.give(grant)
        return fits


class Guard:
    """Lets a job that runs until `ends_at` start only where no reservation is delayed."""

    def __init__(self, reservations: Sequence[Reservation], ends_at: float) -> None:
        self._reservations = reservations
        self._ends_at = ends_at
        self.refused_for: str | None = None

    def permits(self, grant: Grant) -> bool:
        """Tell whether `grant` delays nobody; else keep the name of the job it would delay."""
        for reservation in self._reservations:
            if reservation.concerns(grant, self._ends_at) and not reservation.leaves_room(grant):
                self.refused_for = reservation.job_id
                return False
        return True

    def hold(self, grant: Grant) -> None:
        """Shrink what the reservations count on by a granted start."""
        for reservation in self._concerned(grant):
            reservation.rooms[grant.number].take(grant)

    def release(self, grant: Grant) -> None:
        """Take back a `hold`."""
        for reservation in self._concerned(grant):
            reservation.rooms[grant.number].give(grant)

    def _concerned(self, grant: Grant) -> Iterable[Reservation]:
        return (one for one in self._reservations if one.concerns(grant, self._ends_at))


def list_releases(ledger: Ledger, running: Iterable[RunningJob]) -> list[Release]:
    """Turn what runs into what becomes free, in no order; holdings on nodes the snapshot lacks help nobody."""
    number_of = ledger.number_of
    return [
        (
            inf if job.ends_by is None else job.ends_by,
            job.id,
            tuple(
                Grant(number_of[holding.node_id], holding.cpu_milli, holding.memory_bytes, holding.gpus)
                for holding in job.holdings
                if holding.node_id in number_of
            ),
        )
        for job in running
    ]


def reserve(
    job: PendingJob, ledger: Ledger, releases: Sequence[Release], earlier: Sequence[Reservation], now: float
) -> Reservation | None:
    """Find when and where a blocked job can start beside `earlier` claims; None where no release makes room.

    Of releases without a time the one with the lowest id is taken to come first: ids grow with time.
    """
    rooms = {number: room.copy() for number, room in enumerate(ledger.rooms) if ledger.nodes[number].ready}
    for claim in earlier:
        # Held from now on, not only from its start: then neither claim can come to delay the other.
        for grant in claim.grants:
            rooms[grant.number].take(grant)
    ends = [(claim.ends_at, claim.job_id, claim.grants) for claim in earlier]
    starts_at = _advance(rooms, job.request, sorted([*releases, *ends]), now)
    if starts_at is None:
        return None
    counts = _choose_nodes(rooms, job.request)
    claimed = {number: rooms[number] for number in counts}
    return Reservation(
        job_id=job.id,
        request=job.request,
        starts_at=starts_at,
        ends_at=ends_at(starts_at, job.time_limit_s),
        grants=_grants(claimed, counts, job.request),
        rooms=claimed,
        counts=counts,
    )


def ends_at(starts_at: float, time_limit_s: int | None) -> float:
    """Return when a start then ends at the latest, `inf` without a limit."""
    return inf if time_limit_s is None else starts_at + time_limit_s


def _advance(rooms: dict[int, Room], request: Request, releases: Iterable[Release], now: float) -> float | None:
    """Release into `rooms` until `request` fits; return that time, `inf` where no limit says, None if it never does."""
    fits = {number: room.replicas(request) for number, room in rooms.items()}
    total = sum(fits.values())
    reached = now
    for at, _, grants in releases:
        # What ends in the same instant is free in that instant; what has no time is not assumed to come together.
        if total >= request.replicas and not at <= reached < inf:
            break
        reached = max(reached, at)
        for grant in grants:
            if grant.number in rooms:
                room = rooms[grant.number]
                room.give(grant)
                total -= fits[grant.number]
                fits[grant.number] = room.replicas(request)
                total += fits[grant.number]
    return reached if total >= request.replicas else None


def _choose_nodes(rooms: dict[int, Room], request: Request) -> dict[int, int]:
    """Fill nodes by number: what starts beside the claim never changes which, so the next plan keeps them."""
    counts: dict[int, int] = {}
    missing = request.replicas
    for number, room in rooms.items():
        here = min(room.replicas(request), missing) if missing else 0
        if here:
            counts[number] = here
            missing -= here
    return counts


def _grants(rooms: dict[int, Room], counts: dict[int, int], request: Request) -> tuple[Grant, ...]:
    grants = []
    for number, count in counts.items():
        room = rooms[number].copy()
        for _ in range(count):
            grant = Grant(number, request.cpu_milli, request.memory_bytes, room.devices_for(request.gpu_milli))
            room.take(grant)
            grants.append(grant)
    return tuple(grants)
