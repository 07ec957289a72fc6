"""Claims on capacity over future windows, and maintenance; each holds parts of nodes that are named from the start."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.core.access import Permission
from app.core.paging import Page, PageRequest, page
from app.core.uow import UnitOfWork
from app.resources.drains import begin_maintenance, end_maintenance
from app.resources.models import Node, Reservation, ReservationPart
from app.resources.windows import OPEN, Window
from trellis.errors import Field, Invalid
from trellis.vocabulary import ReservationState

# Whoever asks outside the queues waits for those that asked before, and then sees what they got.
TURN = "claims"
FURTHEST = timedelta(days=731)
LONGEST = timedelta(days=366)


@dataclass(frozen=True, slots=True)
class Claimed:
    """What of one node is claimed; `gpus` are pairs of a device's index and milli."""

    node: Node
    cpu_milli: int
    memory_bytes: int
    gpus: tuple[tuple[int, int], ...]


def check_window(uow: UnitOfWork, window: Window) -> None:
    """Raises Invalid for a window that lies in the past, ends before it begins, or is endless."""
    if window.starts_at < uow.clock.now():
        raise Invalid(Field("/starts_at", "lies in the past"))
    if window.starts_at > uow.clock.now() + FURTHEST:
        raise Invalid(Field("/starts_at", f"lies more than {FURTHEST.days} days ahead"))
    if not window.starts_at < window.ends_at <= window.starts_at + LONGEST:
        raise Invalid(Field("/ends_at", f"must be after starts_at, by at most {LONGEST.days} days"))


@dataclass(frozen=True, slots=True)
class Booking:
    """Whose claim it is (without a project: maintenance), what it is called, and the reservation's `drain_within_s`."""

    project_id: UUID | None
    name: str
    drain_within_s: int | None = None


def keep_reservation(uow: UnitOfWork, booking: Booking, window: Window, claimed: Sequence[Claimed]) -> Reservation:
    """Write down a claim on parts of (locked) nodes that are free over the window."""
    reservation = Reservation(
        project_id=booking.project_id, name=booking.name, state=ReservationState.PLANNED, owner_id=uow.actor.id,
        owner_name=uow.actor.name, starts_at=window.starts_at, ends_at=window.ends_at,
        drain_within_s=booking.drain_within_s,
    )  # fmt: skip
    uow.session.add(reservation)
    uow.session.flush()
    for index, part in enumerate(claimed):
        row = ReservationPart(
            reservation_id=reservation.id, index=index, node_id=part.node.id,
            cpu_milli=part.cpu_milli, memory_bytes=part.memory_bytes, gpus=[list(pair) for pair in part.gpus],
        )  # fmt: skip
        uow.session.add(row)
    uow.session.flush()  # its parts are read again where it begins at once
    told = {"starts_at": window.starts_at.isoformat(), "ends_at": window.ends_at.isoformat()}
    uow.emit(
        "reservation.created", reservation, name=booking.name, nodes=sorted({p.node.name for p in claimed}), **told
    )
    if window.starts_at <= uow.clock.now():
        _begin(uow, reservation)
    return reservation


def _begin(uow: UnitOfWork, reservation: Reservation) -> None:
    uow.move(reservation, ReservationState.ACTIVE)
    if reservation.project_id is None:
        begin_maintenance(uow, reservation)


def _end(uow: UnitOfWork, reservation: Reservation, state: ReservationState) -> None:
    uow.move(reservation, state)
    if reservation.project_id is None:
        end_maintenance(uow, reservation)


def cancel_reservation(uow: UnitOfWork, reservation_id: UUID, version: int | None) -> Reservation:
    """Give a claim up. Raises IllegalTransition for one that has ended, StaleVersion."""
    reservation = uow.get(Reservation, reservation_id, lock=True)
    maintenance = reservation.project_id is None
    uow.require(Permission.NODE_WRITE if maintenance else Permission.RESERVATION_WRITE, reservation.project_id)
    uow.expect_version(reservation, version)
    _end(uow, reservation, ReservationState.CANCELLED)
    return reservation


def follow_windows(uow: UnitOfWork) -> None:
    """Let claims begin and end as their windows do."""
    now = uow.clock.now()
    planned = ReservationState.PLANNED
    due = (
        select(Reservation)
        .where(
            Reservation.ended_at.is_(None),
            ((Reservation.state == planned) & (Reservation.starts_at <= now)) | (Reservation.ends_at <= now),
        )
        .order_by(Reservation.id)
        .limit(500)
    )
    for reservation in uow.session.execute(due.with_for_update(key_share=True, skip_locked=True)).scalars():
        if reservation.ends_at <= now:
            _end(uow, reservation, ReservationState.ENDED)
        else:
            _begin(uow, reservation)


def list_reservations(uow: UnitOfWork) -> list[tuple[Reservation, list[ReservationPart]]]:
    """Every claim that has not ended, with its parts: what a plan must honour."""
    rows = uow.session.execute(
        select(Reservation).where(Reservation.state.in_(OPEN)).order_by(Reservation.id)
    ).scalars()
    reservations = list(rows)
    parts = parts_of(uow, reservations)
    return [(reservation, parts[reservation.id]) for reservation in reservations]


def page_of_reservations(
    uow: UnitOfWork, request: PageRequest, project_id: UUID | None, *, ended: bool
) -> Page[Reservation]:
    """One page of those that the actor may see; those that have `ended` only if asked for."""
    statement = uow.visible(Reservation)
    if project_id is not None:
        statement = statement.where(Reservation.project_id == project_id)
    if not ended:
        statement = statement.where(Reservation.ended_at.is_(None))
    return page(uow, statement, Reservation, request)


def present(uow: UnitOfWork, reservations: Sequence[Reservation]) -> list[dict[str, Any]]:
    """Reservations as they are answered, with the names of their nodes."""
    parts = parts_of(uow, reservations)
    ids = {part.node_id for of_one in parts.values() for part in of_one}
    names = {row.id: row.name for row in uow.session.execute(select(Node.id, Node.name).where(Node.id.in_(ids)))}
    columns = ("id", "project_id", "name", "state", "owner_name", "starts_at", "ends_at", "ended_at", "version")
    return [
        {column: getattr(reservation, column) for column in columns}
        | {"maintenance": reservation.project_id is None, "parts": [_part(p, names) for p in parts[reservation.id]]}
        for reservation in reservations
    ]


def _part(part: ReservationPart, names: Mapping[UUID, str]) -> dict[str, Any]:
    return {
        "node_id": part.node_id,
        "node": names[part.node_id],
        "cpu_milli": part.cpu_milli,
        "memory_bytes": part.memory_bytes,
        "gpus": [{"index": index, "milli": milli} for index, milli in part.gpus],
    }


def parts_of(uow: UnitOfWork, reservations: Sequence[Reservation]) -> dict[UUID, list[ReservationPart]]:
    """Their parts, in order."""
    found: dict[UUID, list[ReservationPart]] = {reservation.id: [] for reservation in reservations}
    statement = select(ReservationPart).where(ReservationPart.reservation_id.in_(found))
    for part in uow.session.execute(statement.order_by(ReservationPart.index)).scalars():
        found[part.reservation_id].append(part)
    return found
