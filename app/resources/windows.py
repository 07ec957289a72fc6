"""What of nodes is free over a window: beside what runs, and beside what is reserved."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import column, func, or_, select, table

from app.core.uow import UnitOfWork
from app.resources.models import Allocation, AllocationGpu, Gpu, Node, Reservation, ReservationPart
from trellis.vocabulary import ReservationState

WHOLE = 1000
OPEN = (ReservationState.PLANNED, ReservationState.ACTIVE)
# Jobs stand above, so their model is not to be had here; three columns of their table are.
_JOBS = table("jobs", column("id"), column("started_at"), column("paused_ms"), column("time_limit_s"))


@dataclass(frozen=True, slots=True)
class Window:
    """From `starts_at` to just before `ends_at`."""

    starts_at: datetime
    ends_at: datetime


@dataclass(slots=True)
class Free:
    """What is left of one node; `gpus[i]` of device i, in milli: nothing of one that is partitioned, or quarantined."""

    cpu_milli: int
    memory_bytes: int
    gpus: list[int]

    def take(self, cpu_milli: int, memory_bytes: int, gpus: Iterable[Sequence[int]]) -> None:
        """Take away; what is taken beyond what there is (of a device that is gone) is left out."""
        self.cpu_milli -= cpu_milli
        self.memory_bytes -= memory_bytes
        for index, milli in gpus:
            if index < len(self.gpus):
                self.gpus[index] -= milli

    def clear(self) -> None:
        """Whoever holds a part suffers nobody beside it."""
        self.cpu_milli, self.memory_bytes, self.gpus = 0, 0, [0] * len(self.gpus)


def free_over(uow: UnitOfWork, nodes: Sequence[Node], window: Window, but_for: UUID | None = None) -> dict[UUID, Free]:
    """What is free of each node during the whole window.

    Taken is what runs and is not sure to have ended when it begins, and what is reserved at any moment of it, but for
    what is reserved for the project `but_for`.
    """
    ids = [node.id for node in nodes]
    devices: dict[UUID, list[int]] = defaultdict(list)
    listed = (
        select(Gpu.node_id, Gpu.partitioned, Gpu.quarantine)
        .where(Gpu.node_id.in_(ids))
        .order_by(Gpu.node_id, Gpu.index)
    )
    for node_id, partitioned, quarantine in uow.session.execute(listed):
        devices[node_id].append(0 if partitioned or quarantine else WHOLE)
    free = {node.id: Free(node.cpu_milli, node.memory_bytes, devices[node.id]) for node in nodes}
    for allocation, gpus in _running(uow, ids, window):
        free[allocation.node_id].take(allocation.cpu_milli, allocation.memory_bytes, gpus)
        if allocation.exclusive:
            free[allocation.node_id].clear()
    for node_id, taken in _peaks(reserved_on(uow, ids, window), window, but_for).items():
        free[node_id].take(taken.cpu_milli, taken.memory_bytes, enumerate(taken.gpus))
    return free


def reserved_on(uow: UnitOfWork, node_ids: Sequence[UUID], window: Window) -> list[tuple[Reservation, ReservationPart]]:
    """What is reserved of these nodes at any moment of the window."""
    statement = (
        select(Reservation, ReservationPart)
        .join(ReservationPart, ReservationPart.reservation_id == Reservation.id)
        .where(
            Reservation.state.in_(OPEN), Reservation.starts_at < window.ends_at,
            Reservation.ends_at > window.starts_at, ReservationPart.node_id.in_(node_ids),
        )
        .order_by(Reservation.id, ReservationPart.index)
    )  # fmt: skip
    fresh = uow.session.execute(statement.execution_options(populate_existing=True))
    return [(reservation, part) for reservation, part in fresh]


def _running(uow: UnitOfWork, ids: Sequence[UUID], window: Window) -> Iterable[tuple[Any, list[tuple[int, int]]]]:
    """Live allocations that may still be there when the window begins; without a limit they may be for ever."""
    now = uow.clock.now()
    stood_still_s = func.coalesce(_JOBS.c.paused_ms, 0) / 1000.0
    began = func.coalesce(_JOBS.c.started_at, now) + func.make_interval(0, 0, 0, 0, 0, 0, stood_still_s)
    ends_at = func.coalesce(Allocation.expires_at, began + func.make_interval(0, 0, 0, 0, 0, 0, _JOBS.c.time_limit_s))
    statement = (
        select(
            Allocation.id,
            Allocation.node_id,
            Allocation.cpu_milli,
            Allocation.memory_bytes,
            Allocation.exclusive,
        )
        .outerjoin(_JOBS, _JOBS.c.id == Allocation.job_id)
        .where(Allocation.released_at.is_(None), Allocation.node_id.in_(ids))
    )
    if window.starts_at > now:  # what is over its time by now is not gone by now
        statement = statement.where(or_(ends_at.is_(None), ends_at > window.starts_at))
    found = uow.session.execute(statement).all()
    held: Mapping[UUID, list[tuple[int, int]]] = defaultdict(list)
    devices = (
        select(AllocationGpu.allocation_id, Gpu.index, AllocationGpu.milli)
        .join(Gpu, Gpu.id == AllocationGpu.gpu_id)
        .where(AllocationGpu.live, Gpu.node_id.in_(ids))
    )
    for allocation_id, index, milli in uow.session.execute(devices):
        held[allocation_id].append((index, milli))
    return [(row, held[row.id]) for row in found]


def _peaks(
    reserved: Sequence[tuple[Reservation, ReservationPart]], window: Window, but_for: UUID | None
) -> dict[UUID, Free]:
    """The most that is reserved of each node at any one moment: it only grows where a reservation begins."""
    counted = [(r, part) for r, part in reserved if but_for is None or r.project_id != but_for]
    moments = {max(r.starts_at, window.starts_at) for r, _ in counted}
    peaks: dict[UUID, Free] = {}
    for moment in moments:
        at_once: dict[UUID, Free] = {}
        for reservation, part in counted:
            if reservation.starts_at <= moment < reservation.ends_at:
                _add(at_once.setdefault(part.node_id, Free(0, 0, [])), part.cpu_milli, part.memory_bytes, part.gpus)
        for node_id, taken in at_once.items():
            _raise(peaks.setdefault(node_id, Free(0, 0, [])), taken)
    return peaks


def _add(total: Free, cpu_milli: int, memory_bytes: int, gpus: Iterable[Sequence[int]]) -> None:
    total.cpu_milli += cpu_milli
    total.memory_bytes += memory_bytes
    for index, milli in gpus:
        total.gpus.extend([0] * (index + 1 - len(total.gpus)))
        total.gpus[index] += milli


def _raise(peak: Free, taken: Free) -> None:
    peak.cpu_milli = max(peak.cpu_milli, taken.cpu_milli)
    peak.memory_bytes = max(peak.memory_bytes, taken.memory_bytes)
    peak.gpus.extend([0] * (len(taken.gpus) - len(peak.gpus)))
    for index, milli in enumerate(taken.gpus):
        peak.gpus[index] = max(peak.gpus[index], milli)
