"""Maintenance: whole nodes, free for work on them over a window that the scheduler plans around."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import select

from app.core.access import Permission
from app.core.locks import wait_lock
from app.core.uow import UnitOfWork
from app.resources.allocations import lock_nodes
from app.resources.models import Node, Reservation
from app.resources.reservations import TURN, Booking, Claimed, check_window, keep_reservation, parts_of
from app.resources.windows import OPEN, WHOLE, Window, free_over, reserved_on
from trellis.errors import CapacityTaken, Field, Invalid

# For jobs that can't go on elsewhere, from the beginning of a window.
USUAL_DRAIN_S = 600


@dataclass(frozen=True, slots=True)
class MaintenanceSpec:
    """Whole nodes, by name, that shall be free over [starts_at, ends_at).

    drain_within_s: how long jobs that can't go on elsewhere may still take when it has begun; None: as long as they do.
    """

    nodes: tuple[str, ...]
    ends_at: datetime
    starts_at: datetime | None = None
    name: str = ""
    drain_within_s: int | None = USUAL_DRAIN_S


def plan_maintenance(uow: UnitOfWork, spec: MaintenanceSpec) -> Reservation:
    """Claim whole nodes for work on them. What runs there is no obstacle: it is drained; a project's claim is.

    Raises: Invalid for unknown nodes or a window that is none, CapacityTaken that names the claim.
    """
    uow.require(Permission.NODE_WRITE)
    window = Window(spec.starts_at or uow.clock.now(), spec.ends_at)
    check_window(uow, window)
    wait_lock(uow, TURN)
    known = _named(uow, spec.nodes)
    faults = [
        Field(f"/nodes/{i}", f"there is no node {name!r}: `trellis nodes` lists them")
        for i, name in enumerate(spec.nodes)
        if name not in known
    ]
    if faults:
        raise Invalid(*faults)
    nodes = lock_nodes(uow, known.values())
    for reservation, part in reserved_on(uow, list(nodes), window):
        if reservation.project_id is not None:
            taken = f"{reservation.starts_at:%Y-%m-%d %H:%M} to {reservation.ends_at:%Y-%m-%d %H:%M} UTC"
            raise CapacityTaken(f"node {nodes[part.node_id].name} is reserved ({reservation.id}) from {taken}")
    devices = free_over(uow, list(nodes.values()), window)
    claimed = [whole(node, len(devices[node.id].gpus)) for node in nodes.values()]
    return keep_reservation(uow, Booking(None, spec.name, spec.drain_within_s), window, claimed)


def whole(node: Node, devices: int) -> Claimed:
    """All there is of a node with so many devices."""
    return Claimed(node, node.cpu_milli, node.memory_bytes, tuple((index, WHOLE) for index in range(devices)))


def apply_windows(uow: UnitOfWork, wanted: Sequence[MaintenanceSpec]) -> set[str]:
    """Plan the windows that a file says, but for those that are over or planned already; nodes that are not there.

    A window of which a node has not joined yet is left for later. Raises as `plan_maintenance` does.
    """
    missing: set[str] = set()
    planned = _planned(uow)
    for spec in wanted:
        key = (spec.name, spec.ends_at, frozenset(spec.nodes))
        if spec.ends_at <= uow.clock.now() or key in planned:
            continue
        absent = set(spec.nodes) - _named(uow, spec.nodes).keys()
        missing |= absent
        if not absent:
            begun = spec.starts_at is not None and spec.starts_at <= uow.clock.now()
            starts_at = None if begun else spec.starts_at
            plan_maintenance(uow, MaintenanceSpec(spec.nodes, spec.ends_at, starts_at, spec.name, spec.drain_within_s))
    return missing


def _named(uow: UnitOfWork, names: Collection[str]) -> dict[str, UUID]:
    rows = uow.session.execute(select(Node.name, Node.id).where(Node.name.in_(names)))
    return {row.name: row.id for row in rows}


def _planned(uow: UnitOfWork) -> set[tuple[str, datetime, frozenset[str]]]:
    rows = select(Reservation).where(Reservation.state.in_(OPEN), Reservation.project_id.is_(None))
    found = uow.session.execute(rows).scalars().all()
    parts = parts_of(uow, found)
    ids = {part.node_id for of_one in parts.values() for part in of_one}
    named = uow.session.execute(select(Node.id, Node.name).where(Node.id.in_(ids)))
    names = {row.id: row.name for row in named}
    return {(one.name, one.ends_at, frozenset(names[p.node_id] for p in parts[one.id])) for one in found}
