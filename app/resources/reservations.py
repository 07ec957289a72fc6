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
from app.resources.models import Node, Reservation, ReservationPart
from app.resources.windows import OPEN, Window
from trellis.errors import Field, Invalid
from trellis.vocabulary import ReservationState

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


def keep_reservation(
    uow: UnitOfWork, project_id: UUID | None, name: str, window: Window, claimed: Sequence[Claimed]
) -> Reservation:
    """Write down a claim on parts of (locked) nodes that are free over the window."""
    reservation = Reservation(
        project_id=project_id, name=name, state=ReservationState.PLANNED, owner_id=uow.actor.id,
        owner_name=uow.actor.name, starts_at=window.starts_at, ends_at=window.ends_at,
    )  # fmt: skip
    uow.session.add(reservation)
    uow.session.flush()
    for index, part in enumerate(claimed):
        row = ReservationPart(
            reservation_id=reservation.id, index=index, node_id=part.node.id,
            cpu_milli=part.cpu_milli, memory_bytes=part.memory_bytes, gpus=[list(pair) for pair in part.gpus],
        )  # fmt: skip
        uow.session.add(row)
    told = {"starts_at": window.starts_at.isoformat(), "ends_at": window.ends_at.isoformat()}
    uow.emit("reservation.created", reservation, name=name, nodes=sorted({p.node.name for p in claimed}), **told)
    if window.starts_at <= uow.clock.now():
        uow.move(reservation, ReservationState.ACTIVE)
    return reservation


def cancel_reservation(uow: UnitOfWork, reservation_id: UUID, version: int | None) -> Reservation:
    """Give a claim up. Raises IllegalTransition for one that has ended, StaleVersion."""
    reservation = uow.get(Reservation, reservation_id, lock=True)
    maintenance = reservation.project_id is None
    uow.require(Permission.NODE_WRITE if maintenance else Permission.RESERVATION_WRITE, reservation.project_id)
    uow.expect_version(reservation, version)
    uow.move(reservation, ReservationState.CANCELLED)
    return reservation


def follow_windows(uow: UnitOfWork) -> None:
    """Let claims begin and end as their windows do."""
    now = uow.clock.now()
    planned, active = ReservationState.PLANNED, ReservationState.ACTIVE
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
        uow.move(reservation, ReservationState.ENDED if reservation.ends_at <= now else active)


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
