"""Replicas that begin together: each says when it is ready, and all are told of each other when the last one is."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Any, Protocol, TypeVar
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, select

from app.core.uow import UnitOfWork
from app.jobs.models import Replica
from app.jobs.service import ask_stop
from app.resources.models import Node
from trellis.vocabulary import ENDED_REPLICA_STATES, NetworkPolicy, ReplicaState, StopReason
from trellis.wire import Ready, World, pack

_MEMBERS = (
    select(
        Replica.id, Replica.attempt_id, Replica.fence, Replica.role, Replica.node_id, Replica.ready, Replica.stop_reason
    )
    .where(Replica.attempt_id == any_(bindparam("attempt_ids", type_=ARRAY(Uuid))), Replica.ended_at.is_(None))
    .order_by(Replica.index)
)
_ADDRESS_LENGTH, _NAMED_LENGTH = 255, 80


class Seated(Protocol):
    """Where a replica goes."""

    @property
    def index(self) -> int:
        """Its place among the others."""
        ...

    @property
    def role(self) -> int:
        """The number of its role."""
        ...

    @property
    def node(self) -> Node:
        """Its node."""
        ...


S = TypeVar("S", bound=Seated)


def is_gang(spec: dict[str, Any]) -> bool:
    """Whether a job, as it was stored, has replicas that begin together; an elastic one also while it is but one."""
    roles = spec.get("roles") or [spec]
    return sum(int(role.get("max_replicas") or role["replicas"]) for role in roles) > 1


def notes_on(spec: dict[str, Any]) -> list[str]:
    """What whoever submits this may not have thought of."""
    if not is_gang(spec) or spec["network"] != NetworkPolicy.NONE:
        return []
    return [
        "its replicas can't reach each other, for its network is none: submit it with `network: host` where they should"
    ]


def numbered(seats: Sequence[S]) -> Sequence[S]:
    """The same seats, counted node by node within each role: neighbours in rank are neighbours in space."""
    if len(seats) == 1:
        return seats
    nodes: dict[UUID, int] = {}
    for seat in seats:
        nodes.setdefault(seat.node.id, len(nodes))
    order = sorted(range(len(seats)), key=lambda at: (seats[at].role, nodes[seats[at].node.id], at))
    index = {at: rank for rank, at in enumerate(order)}
    return [replace(seat, index=index[at]) for at, seat in enumerate(seats)]  # type: ignore[type-var]  # dataclasses


def note_ready(uow: UnitOfWork, replica: Replica, ready: Ready, members: Collection[Replica]) -> None:
    """A replica waits for the others. The last one to do so lets all of them begin: their nodes are told to ask."""
    port = ready.port if 0 <= ready.port < 1 << 16 else 0
    replica.ready = pack(Ready(_plain(ready.address, _ADDRESS_LENGTH), port, _plain(ready.restored, _NAMED_LENGTH)))
    if any(one.ready is None and _counts(one) for one in members):  # most often the first that is looked at
        return
    fresh = [one for one in members if one.state is ReplicaState.STARTING and one.stop_reason is None]
    if len({one.ready["restored"] for one in fresh if one.ready}) > 1:
        for one in fresh:
            ask_stop(uow, one, StopReason.UNMATCHED, 0)
        return
    told: set[UUID] = set()
    for one in fresh:
        if one.node_id not in told:
            told.add(one.node_id)
            uow.emit("replica.gang_ready", one, node_id=str(one.node_id), fence=one.fence, replicas=len(fresh))


def _counts(replica: Replica) -> bool:
    return replica.state not in ENDED_REPLICA_STATES and replica.stop_reason is not StopReason.SURPLUS


def _plain(text: str, length: int) -> str:
    """What a node says, as a database takes it."""
    return text[:length].encode("utf-8", "replace").decode().replace("\0", "?")


def worlds_for(uow: UnitOfWork, node_ids: Collection[UUID], live: Iterable[Any]) -> dict[UUID, list[World]]:
    """By node, the gangs of which it has replicas that wait, and which are all ready. Asks nobody where none waits."""
    waits = (ReplicaState.STARTING, True, None)
    attempts = {row.attempt_id for row in live if (row.state, row.waits, row.stop_reason) == waits}
    if not attempts:
        return {}
    members: dict[UUID, list[Any]] = {}
    for row in uow.execute(_MEMBERS, {"attempt_ids": list(attempts)}):
        if row.stop_reason is not StopReason.SURPLUS:
            members.setdefault(row.attempt_id, []).append(row)
    found: dict[UUID, list[World]] = {}
    for rows in members.values():
        if all(row.ready is not None and row.stop_reason is None for row in rows):
            for node_id, world in _worlds(rows, node_ids):
                found.setdefault(node_id, []).append(world)
    return found


def _worlds(rows: Sequence[Any], node_ids: Collection[UUID]) -> Iterable[tuple[UUID, World]]:
    hosts: dict[UUID, str] = {}
    for row in rows:
        hosts.setdefault(row.node_id, row.ready["address"])
    number = {node_id: place for place, node_id in enumerate(hosts)}
    whole = World(
        {}, tuple(hosts.values()), tuple(number[row.node_id] for row in rows),
        tuple(row.ready["port"] for row in rows), tuple(row.role for row in rows),
    )  # fmt: skip
    for node_id in number.keys() & set(node_ids):
        ranks = {f"{row.id}.{row.fence}": rank for rank, row in enumerate(rows) if row.node_id == node_id}
        yield node_id, replace(whole, ranks=ranks)
