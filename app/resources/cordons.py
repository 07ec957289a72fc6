"""Cordons: a node that is to take nothing new; what runs on it goes on."""

from uuid import UUID

from app.core.access import Permission
from app.core.uow import UnitOfWork
from app.resources.models import Node
from trellis.vocabulary import NodeState


def cordon_node(uow: UnitOfWork, node_id: UUID, reason: str, version: int | None) -> Node:
    """Place nothing more on a node until it is uncordoned. One that is silent is cordoned when it comes back."""
    node = _lock(uow, node_id, version)
    if node.cordoned_at is None:
        node.cordoned_at, node.cordon_reason = uow.clock.now(), reason
        _follow(uow, node, NodeState.READY, NodeState.CORDONED, reason)
    return node


def uncordon_node(uow: UnitOfWork, node_id: UUID, reason: str, version: int | None) -> Node:
    """Let a node take work again."""
    node = _lock(uow, node_id, version)
    if node.cordoned_at is not None:
        node.cordoned_at, node.cordon_reason = None, ""
        _follow(uow, node, NodeState.CORDONED, NodeState.READY, reason)
    return node


def _lock(uow: UnitOfWork, node_id: UUID, version: int | None) -> Node:
    uow.require(Permission.NODE_WRITE)
    node = uow.get(Node, node_id, lock=True)
    uow.expect_version(node, version)
    return node


def _follow(uow: UnitOfWork, node: Node, before: NodeState, after: NodeState, reason: str) -> None:
    if node.state is before:
        uow.move(node, after, reason=reason)
    else:
        node.version += 1
        wished = node.cordoned_at is not None
        uow.emit("node.changed", node, before={"cordoned": not wished}, after={"cordoned": wished}, reason=reason)
