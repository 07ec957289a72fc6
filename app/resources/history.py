"""What happened to a node, for its operators: what it found out about itself, what hooks said, who did what."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import select

from app.core.access import Permission
from app.core.events import Event
from app.core.uow import UnitOfWork
from app.resources.models import Node


def list_node_events(uow: UnitOfWork, node_id: UUID, before: int | None, limit: int) -> Sequence[Event]:
    """The events of a node, the newest first, below event `before`. Raises Forbidden, NotFound."""
    uow.require(Permission.NODE_WRITE)
    node = uow.get(Node, node_id)
    statement = select(Event).where(Event.subject_type == "node", Event.subject_id == node.id)
    if before is not None:
        statement = statement.where(Event.id < before)
    return uow.session.execute(statement.order_by(Event.id.desc()).limit(limit)).scalars().all()
