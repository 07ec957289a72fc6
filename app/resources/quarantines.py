"""Quarantine by hand: a node, or one of its devices, that an operator does not trust with work."""

from uuid import UUID

from sqlalchemy import select

from app.core.uow import UnitOfWork
from app.resources.cordons import lock_for_change
from app.resources.models import Gpu, Node
from app.resources.standing import Quarantine, settle, stored
from trellis.errors import Field, Invalid
from trellis.vocabulary import QuarantinedBy


def quarantine_node(uow: UnitOfWork, node_id: UUID, device: int | None, reason: str, version: int | None) -> Node:
    """Place nothing more on a node, or on its device of that index, until it is released. What runs there goes on.

    One that the platform keeps from work already stays so until an operator ends it. Raises: Invalid for no such device.
    """
    node = lock_for_change(uow, node_id, version)
    kept = stored(Quarantine(uow.clock.now(), reason, QuarantinedBy.OPERATOR))
    if device is None:
        node.quarantine = kept
        settle(uow, node, {"by": str(QuarantinedBy.OPERATOR)}, reason)
    else:
        _device(uow, node, device).quarantine = kept
        _tell(uow, node, device, reason, quarantined=True)
    return node


def release_node(uow: UnitOfWork, node_id: UUID, device: int | None, reason: str, version: int | None) -> Node:
    """Trust a node, or its device of that index, again, whoever did not. What its health checks still find counts anew."""
    node = lock_for_change(uow, node_id, version)
    if device is not None:
        gpu = _device(uow, node, device)
        if gpu.quarantine is not None:
            gpu.quarantine = None
            _tell(uow, node, device, reason, quarantined=False)
    elif node.quarantine is not None:
        node.quarantine, node.quarantines = None, 0
        settle(uow, node, {"quarantined": False}, reason)
    return node


def _device(uow: UnitOfWork, node: Node, index: int) -> Gpu:
    gpu = uow.session.execute(select(Gpu).where(Gpu.node_id == node.id, Gpu.index == index)).scalar_one_or_none()
    if gpu is None:
        raise Invalid(Field("/device", f"node {node.name} has no device {index}"))
    return gpu


def _tell(uow: UnitOfWork, node: Node, device: int, reason: str, *, quarantined: bool) -> None:
    node.version += 1
    uow.emit("node.changed", node, reason=reason, device=device, quarantined=quarantined)
