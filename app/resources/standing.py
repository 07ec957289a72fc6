"""What is wished of a node, and the state that follows from it: one that lives is in no other."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from app.core.uow import UnitOfWork
from app.resources.models import Node
from trellis.vocabulary import LIVING_NODE_STATES, NodeState, QuarantinedBy


@dataclass(frozen=True, slots=True)
class Drain:
    """The wish that a node be emptied: what can go on elsewhere at once (if it `migrates`), the rest by `until`.

    `reservation_id` is the maintenance that it is for, and ends with; `quiet_at` is when nothing was left.
    """

    asked_at: datetime
    until: datetime | None = None
    migrates: bool = True
    reason: str = ""
    reservation_id: UUID | None = None
    quiet_at: datetime | None = None

    @classmethod
    def of(cls, node: Node) -> "Drain | None":
        """The one wished of a node."""
        if node.drain is None:
            return None
        kept = node.drain
        return cls(
            datetime.fromisoformat(kept["asked_at"]), _time(kept["until"]), kept["migrates"], kept["reason"],
            UUID(kept["reservation_id"]) if kept["reservation_id"] else None, _time(kept["quiet_at"]),
        )  # fmt: skip

    def is_due(self, now: datetime) -> bool:
        """Whether what could not be moved has had its time."""
        return self.until is not None and self.until <= now


@dataclass(frozen=True, slots=True)
class Quarantine:
    """That a node, or a device, is not to be trusted with work: since when, why, and by whom.

    One that the platform ordered ends by itself after `good` health checks in a row found nothing, not before `until`.
    """

    since: datetime
    reason: str
    by: QuarantinedBy
    until: datetime | None = None
    good: int = 0

    @classmethod
    def read(cls, kept: Mapping[str, Any] | None) -> "Quarantine | None":
        """From what a row keeps."""
        if kept is None:
            return None
        since = datetime.fromisoformat(kept["since"])
        return cls(since, kept["reason"], QuarantinedBy(kept["by"]), _time(kept["until"]), kept["good"])


def stored(wish: Drain | Quarantine) -> dict[str, Any]:
    """A wish as rows keep it."""
    return {name: _plain(value) for name, value in asdict(wish).items()}


def standing_of(node: Node) -> NodeState:
    """The state of a node that lives."""
    if drain := Drain.of(node):
        return NodeState.DRAINED if drain.quiet_at else NodeState.DRAINING
    if node.quarantine:
        return NodeState.QUARANTINED
    return NodeState.READY if node.cordoned_at is None else NodeState.CORDONED


def settle(uow: UnitOfWork, node: Node, change: Mapping[str, Any], reason: str) -> None:
    """Let the state of a (locked) node follow from what is wished of it; `change` is told where no state changes."""
    wanted = standing_of(node)
    if node.state in LIVING_NODE_STATES and node.state is not wanted:
        uow.move(node, wanted, reason=reason, **change)
    else:
        node.version += 1
        uow.emit("node.changed", node, reason=reason, **change)


def note_quiet(uow: UnitOfWork, node: Node) -> None:
    """Nothing is left on a (locked) node that is drained."""
    drain = Drain.of(node)
    if drain is not None and drain.quiet_at is None:
        node.drain = stored(replace(drain, quiet_at=uow.clock.now()))
        settle(uow, node, {}, drain.reason)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value) if isinstance(value, UUID | QuarantinedBy) else value
