"""Cordons: a node that is to take nothing new; what runs on it goes on."""

from uuid import UUID

from app.core.access import Permission
from app.core.uow import UnitOfWork
from app.resources.models import Node
from app.resources.standing import settle


def cordon_node(uow: UnitOfWork, node_id: UUID, reason: str, version: int | None) -> Node:
    """Place nothing more on a node until it is uncordoned. One that is silent is cordoned when it comes back."""
    node = lock_for_change(uow, node_id, version)
    if node.cordoned_at is None:
        node.cordoned_at, node.cordon_reason = uow.clock.now(), reason
        settle(uow, node, {"cordoned": True}, reason)
    return node


def uncordon_node(uow: UnitOfWork, node_id: UUID, reason: str, version: int | None) -> Node:
    """Let a node take work again."""
    node = lock_for_change(uow, node_id, version)
    if node.cordoned_at is not None:
        node.cordoned_at, node.cordon_reason = None, ""
        settle(uow, node, {"cordoned": False}, reason)
    return node


def lock_for_change(uow: UnitOfWork, node_id: UUID, version: int | None) -> Node:
    """The node that an operator is about to say something of, locked. Raises NotFound, Forbidden, StaleVersion."""
    uow.require(Permission.NODE_WRITE)
    node = uow.get(Node, node_id, lock=True)
    uow.expect_version(node, version)
    return node
