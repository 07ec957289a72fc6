"""The levels of the topology: what lies in what, from the widest to the narrowest."""

from collections.abc import Sequence

from sqlalchemy import select

from app.core.access import Permission
from app.core.locks import wait_lock
from app.core.uow import UnitOfWork
from app.resources.models import Topology

USUAL_LEVELS = ("zone", "rack")


def list_levels(uow: UnitOfWork) -> tuple[str, ...]:
    """The levels, widest first; those of `Node.domains` that are not among them mean nothing."""
    row = uow.session.execute(select(Topology.levels)).scalar_one_or_none()
    return USUAL_LEVELS if row is None else tuple(row)


def set_levels(uow: UnitOfWork, levels: Sequence[str], version: int | None) -> Topology:
    """Name the levels anew, widest first; nodes keep what was said of them. Raises StaleVersion."""
    uow.require(Permission.NODE_WRITE)
    wait_lock(uow, "topology")
    row = get_topology(uow)
    uow.expect_version(row, version)
    before, after = list(row.levels), list(levels)
    if before != after:
        row.levels = after
        row.version += 1
        uow.session.add(row)
        uow.session.flush()
        uow.emit("topology.changed", row, before=before, after=after)
    return row


def get_topology(uow: UnitOfWork) -> Topology:
    """The one row; where nobody has said anything yet, an unstored one of version 0 with the usual levels."""
    row = uow.session.execute(uow.visible(Topology)).scalar_one_or_none()
    return row or Topology(levels=list(USUAL_LEVELS), version=0)
