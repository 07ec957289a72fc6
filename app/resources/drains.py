"""Drains: a node that is to be emptied. What becomes of the jobs there is `app.jobs.leaving`'s to say."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select, update

from app.core.uow import UnitOfWork
from app.resources.allocations import lock_nodes
from app.resources.cordons import lock_for_change
from app.resources.models import Allocation, Node, Reservation, ReservationPart
from app.resources.standing import Drain, settle, stored
from trellis.vocabulary import ReservationState


@dataclass(frozen=True, slots=True)
class DrainSpec:
    """How a node is to be emptied.

    deadline_s: how long jobs that can't go on elsewhere may take to end; None: as long as they do.
    migrate: whether jobs that can go on elsewhere are moved at once, or only at the deadline.
    """

    reason: str = ""
    deadline_s: int | None = None
    migrate: bool = True


def drain_node(uow: UnitOfWork, node_id: UUID, spec: DrainSpec, version: int | None) -> Node:
    """Empty a node and keep it so until it is undrained; of one that is being drained the terms are changed.

    A silent one is drained when it comes back.
    """
    node = lock_for_change(uow, node_id, version)
    now, known = uow.clock.now(), Drain.of(node)
    until = None if spec.deadline_s is None else now + timedelta(seconds=spec.deadline_s)
    wished = Drain(known.asked_at if known else now, until, spec.migrate, spec.reason)
    _wish(uow, node, replace(wished, quiet_at=known.quiet_at) if known else wished)
    return node


def undrain_node(uow: UnitOfWork, node_id: UUID, reason: str, version: int | None) -> Node:
    """Let a node take work again, unless it is cordoned or quarantined as well. What has left does not come back."""
    node = lock_for_change(uow, node_id, version)
    if node.drain is not None:
        _forget(uow, node, reason)
    return node


def begin_maintenance(uow: UnitOfWork, reservation: Reservation) -> None:
    """Drain the nodes of a maintenance window that begins; those that are drained already are left to who did it."""
    now, within = uow.clock.now(), reservation.drain_within_s
    until = None if within is None else now + timedelta(seconds=within)
    reason = f"maintenance: {reservation.name}" if reservation.name else "maintenance"
    for node in lock_nodes(uow, _nodes_of(uow, reservation)).values():
        if node.drain is None:
            _wish(uow, node, Drain(now, until, migrates=True, reason=reason, reservation_id=reservation.id))


def end_maintenance(uow: UnitOfWork, reservation: Reservation) -> None:
    """Let the nodes that a window drained come back; those of which another has begun meanwhile when that ends."""
    for node in lock_nodes(uow, _nodes_of(uow, reservation)).values():
        drain = Drain.of(node)
        if drain is None or drain.reservation_id != reservation.id:
            continue
        if (other := _other_window(uow, node, reservation)) is None:
            _forget(uow, node, "the maintenance is over")
        else:
            node.drain = stored(replace(drain, reservation_id=other))


def expire_held(uow: UnitOfWork, node_ids: Collection[UUID]) -> None:
    """What somebody holds there without a job has had its time: `release_expired` comes to it."""
    live = (Allocation.node_id.in_(node_ids), Allocation.job_id.is_(None), Allocation.released_at.is_(None))
    uow.session.execute(
        update(Allocation).where(*live, Allocation.expires_at > uow.clock.now()).values(expires_at=uow.clock.now())
    )


def _wish(uow: UnitOfWork, node: Node, drain: Drain) -> None:
    node.drain = stored(drain)
    settle(uow, node, {"until": node.drain["until"], "migrates": drain.migrates}, drain.reason)


def _forget(uow: UnitOfWork, node: Node, reason: str) -> None:
    node.drain = None
    settle(uow, node, {"drained": False}, reason)


def _nodes_of(uow: UnitOfWork, reservation: Reservation) -> list[UUID]:
    parts = select(ReservationPart.node_id).where(ReservationPart.reservation_id == reservation.id)
    return list(uow.session.execute(parts).scalars())


def _other_window(uow: UnitOfWork, node: Node, reservation: Reservation) -> UUID | None:
    statement = (
        select(Reservation.id)
        .join(ReservationPart, ReservationPart.reservation_id == Reservation.id)
        .where(
            ReservationPart.node_id == node.id, Reservation.id != reservation.id, Reservation.project_id.is_(None),
            Reservation.state == ReservationState.ACTIVE, Reservation.ends_at > uow.clock.now(),
        )
        .order_by(Reservation.ends_at.desc())
    )  # fmt: skip
    return uow.session.execute(statement).scalars().first()
