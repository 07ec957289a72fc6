"""Reservations as claims: what a project, or maintenance, has booked is kept free for it."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from scheduler.backfill import Claim, Counts, Release
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant, Room
from scheduler.snapshot import UNLIMITED, WHOLE, Amounts, Holding, JobClass, PendingJob, Request, Reservation, Role

Used = Callable[[str, int], Amounts]
"""What a project's running jobs hold on the node of a number."""

_NOTHING = Amounts(0, 0, 0)


class Bookings:
    """The reservations that are not over; those of maintenance (no project) are used by nobody.

    What is booked is counted, not pinned to devices: two GPUs of a node are any two of it.
    """

    def __init__(self, reservations: Iterable[Reservation], ledger: Ledger) -> None:
        self._ledger = ledger
        self._reservations = sorted(reservations, key=lambda one: (one.starts_at, one.id))
        self._parts = {one.id: _by_node(one.holdings, ledger.number_of) for one in self._reservations}

    def claims(self, releases: Sequence[Release], used: Used, now: float) -> list[Claim]:
        """Return what binds those who start now, soonest first."""
        lasting = [one for one in self._reservations if one.ends_at > now and self._parts[one.id]]
        if not lasting:
            return []
        begun = [one for one in lasting if one.starts_at <= now]
        claims = [self._claim(one, self._ledger.rooms, used).at_present(self._ledger.rooms) for one in begun]
        coming = lasting[len(begun) :]
        if coming:
            claims += self._coming(coming, begun, releases)
        return claims

    def _coming(
        self, coming: Iterable[Reservation], begun: Iterable[Reservation], releases: Sequence[Release]
    ) -> list[Claim]:
        """Lead the ledger from one beginning to the next; what is booked for others meanwhile is not free then."""
        claims = []
        held = list(begun)
        with self._ledger.what_if():
            for one in held:
                self._hold(one)
            place = 0
            for reservation in coming:
                at = reservation.starts_at
                while place < len(releases) and releases[place][0] <= at:
                    for grant in releases[place][2]:
                        self._ledger.give(grant)
                    place += 1
                for over in [one for one in held if one.ends_at <= at]:
                    held.remove(over)
                    for number, holdings in self._parts[over.id].items():
                        for holding in holdings:
                            self._ledger.give(_counted(number, holding))
                rooms = {number: self._ledger.rooms[number].copy() for number in self._parts[reservation.id]}
                claims.append(self._claim(reservation, rooms, _unused))
                held.append(reservation)
                self._hold(reservation)
        return claims

    def _hold(self, reservation: Reservation) -> None:
        for number, holdings in self._parts[reservation.id].items():
            for holding in holdings:
                self._ledger.retake(_counted(number, holding))

    def _claim(self, reservation: Reservation, rooms: Mapping[int, Room] | Sequence[Room], used: Used) -> Claim:
        roles: list[Role] = []
        counts: dict[int, list[int]] = {}
        for number, holdings in self._parts[reservation.id].items():
            for request in _requests(holdings, used(reservation.project_id, number)):
                counts.setdefault(number, []).append(len(roles))
                roles.append(Role(request))
        job_class = JobClass(reservation.project_id, "", tuple(roles), priority=UNLIMITED)
        return Claim(
            job=PendingJob(reservation.id, reservation.starts_at, job_class),
            starts_at=reservation.starts_at,
            ends_at=reservation.ends_at,
            grants=(),
            rooms={number: rooms[number] for number in counts},
            counts={number: _marks(places, len(roles)) for number, places in counts.items()},
            booked=True,
        )


def _unused(_project_id: str, _number: int) -> Amounts:
    return _NOTHING


def _by_node(holdings: Iterable[Holding], number_of: Mapping[str, int]) -> dict[int, list[Holding]]:
    parts: dict[int, list[Holding]] = {}
    for holding in holdings:
        if holding.node_id in number_of:
            parts.setdefault(number_of[holding.node_id], []).append(holding)
    return parts


def _requests(holdings: Iterable[Holding], used: Amounts) -> list[Request]:
    """Return what is booked on one node less what its owner has of it: whole devices together, shares one by one."""
    cpu_milli = memory_bytes = whole_milli = 0
    shares: list[Request] = []
    for holding in holdings:
        cpu_milli += holding.cpu_milli
        memory_bytes += holding.memory_bytes
        whole_milli += sum(milli for _, milli in holding.gpus if milli >= WHOLE)
        shares += [Request(0, 0, milli) for _, milli in holding.gpus if milli < WHOLE]
        shares += [Request(0, 0, mig_profile=piece.profile) for piece in holding.slices]
    shares = shares[-(-max(used.gpu_milli - whole_milli, 0) // WHOLE) :]
    whole_left = max(whole_milli - used.gpu_milli, 0) // WHOLE * WHOLE
    together = Request(max(cpu_milli - used.cpu_milli, 0), max(memory_bytes - used.memory_bytes, 0), whole_left)
    return [together, *shares]


def _counted(number: int, holding: Holding) -> Grant:
    # Without slices: what overlaps could not be put back exactly.
    return Grant(number, holding.cpu_milli, holding.memory_bytes, holding.gpus)


def _marks(places: Iterable[int], roles: int) -> Counts:
    marks = [0] * roles
    for place in places:
        marks[place] = 1
    return tuple(marks)
