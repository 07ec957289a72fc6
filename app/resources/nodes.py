"""Nodes: how one joins, shows that it lives, falls silent and comes back."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, LargeBinary, Uuid, any_, bindparam, exists, func, select, text

from app.core.access import Actor, Permission
from app.core.crypto import Keyring, new_secret
from app.core.pointers import below
from app.core.uow import UnitOfWork
from app.resources.allocations import lock_nodes
from app.resources.gpus import gpu_type
from app.resources.health import is_news, take_in
from app.resources.models import AllocationSlot, Gpu, JoinToken, Node, Pool
from app.resources.overcommit import give
from app.resources.standing import standing_of
from trellis.errors import AlreadyExists, Field, Invalid, Unauthenticated
from trellis.readings import faults_in
from trellis.vocabulary import LIVING_NODE_STATES, ActorKind, NodeState
from trellis.wire import VERSION, GpuDescription, Heartbeat, NodeDescription, pack

NODE_PREFIX = "trn"
JOIN_PREFIX = "trj"
# Half of the nodes silent at once is more likely our fault than theirs: wait this much longer before believing it.
DOUBT = 6
# Of how many nodes one request may speak.
MOST_AT_ONCE = 1000
_BY_TOKENS = select(Node.id, Node.token_digest).where(
    Node.token_digest == any_(bindparam("digests", type_=ARRAY(LargeBinary)))
)
_LOCKED_STATES = (
    select(
        Node.id,
        Node.state,
        Node.findings,
        Node.quarantine,
        Node.telemetry["checkup"]["number"].label("checkup"),
        exists().where(Gpu.node_id == Node.id, Gpu.quarantine.is_not(None)).label("faulty"),
    )
    .where(Node.id == any_(bindparam("ids", type_=ARRAY(Uuid))))
    .order_by(Node.id)  # every transaction locks nodes in one order
    .with_for_update(key_share=True)
)
_SEEN = text(
    """
    UPDATE nodes SET last_seen_at = :now, telemetry = seen.telemetry
    FROM jsonb_to_recordset(CAST(:seen AS jsonb)) AS seen(id uuid, telemetry jsonb) WHERE nodes.id = seen.id
    """
)
_BY_TOKEN = select(Node.id, Node.name, func.now().label("now")).where(Node.token_digest == bindparam("digest"))


@dataclass(frozen=True, slots=True)
class Joined:
    """A node that joined, and the token it was given: shown once."""

    node: Node
    token: str


def create_join_token(uow: UnitOfWork, keyring: Keyring, name: str, expires_in_s: int) -> tuple[JoinToken, str]:
    """A token that lets machines join until it expires; shown once."""
    uow.require(Permission.NODE_WRITE)
    secret = new_secret(JOIN_PREFIX)
    expires_at = uow.clock.now() + timedelta(seconds=expires_in_s)
    token = JoinToken(name=name, digest=keyring.digest("join-token", secret), expires_at=expires_at)
    uow.session.add(token)
    uow.session.flush()
    uow.emit("join_token.created", token, name=name)
    return token, secret


def read_join_token(keyring: Keyring, uow: UnitOfWork, secret: str) -> Actor:
    """The actor a join token stands for: no node yet, but let in to become one."""
    digest = keyring.digest("join-token", secret)
    statement = select(JoinToken.id).where(JoinToken.digest == digest, JoinToken.expires_at > func.now())
    if uow.session.execute(statement).first() is None:
        raise Unauthenticated("this join token is unknown or has expired: `trellis node-token` makes another")
    return Actor(ActorKind.NODE, None, "joining node")


def read_node_token(keyring: Keyring, uow: UnitOfWork, secret: str) -> Actor:
    """The node a node token stands for."""
    digest = keyring.digest("node-token", secret)
    row = uow.execute(_BY_TOKEN, {"digest": digest}).first()
    if row is None:
        raise Unauthenticated("this node token is not known: let the node join again")
    uow.clock.set(row.now)
    return Actor(ActorKind.NODE, row.id, row.name)


def read_node_tokens(keyring: Keyring, uow: UnitOfWork, secrets: Sequence[str]) -> list[UUID]:
    """The nodes that these tokens stand for, in the same order: who holds a node's token may speak for it.

    Raises: Invalid for none or too many, Unauthenticated if one of them is not known.
    """
    if not 0 < len(secrets) <= MOST_AT_ONCE:
        raise Invalid(Field("/tokens", f"must be 1 to {MOST_AT_ONCE}"))
    digests = [keyring.digest("node-token", secret) for secret in secrets]
    known = {bytes(row.token_digest): row.id for row in uow.execute(_BY_TOKENS, {"digests": digests})}
    if any(digest not in known for digest in digests):
        raise Unauthenticated("one of these node tokens is not known: let the nodes join again")
    return [known[digest] for digest in digests]


def join(uow: UnitOfWork, keyring: Keyring, description: NodeDescription) -> Joined:
    """Let one machine in; see `join_all`."""
    return join_all(uow, keyring, [description])[0]


def join_all(uow: UnitOfWork, keyring: Keyring, descriptions: Sequence[NodeDescription]) -> list[Joined]:
    """Let machines in, all or none. One that comes back under its name keeps its id and gets a new token.

    Raises: Invalid for another protocol version, a broken description or a name that comes twice, AlreadyExists for a
    name that a living node on another host holds.
    """
    uow.require(Permission.REPLICA_REPORT)
    for description in descriptions:
        _check(description)
    names = [description.name for description in descriptions]
    if len(set(names)) < len(names) or len(names) > MOST_AT_ONCE:
        raise Invalid(Field("/nodes", f"must be at most {MOST_AT_ONCE}, of different names"))
    statement = select(Node).where(Node.name.in_(names)).order_by(Node.id).with_for_update(key_share=True)
    known = {node.name: node for node in uow.session.execute(statement).scalars()}
    joined = [_let_in(uow, keyring, known.get(one.name), one) for one in descriptions]
    uow.session.flush()
    _set_gpus(uow, {one.node.id: said.gpus for one, said in zip(joined, descriptions, strict=True)})
    for one in joined:
        _welcome_back(uow, one.node)
        uow.emit("node.joined", one.node, isolation=str(one.node.isolation), isolation_detail=one.node.isolation_detail)
    return joined


def _let_in(uow: UnitOfWork, keyring: Keyring, node: Node | None, description: NodeDescription) -> Joined:
    token = new_secret(NODE_PREFIX)
    if uow.actor.id is not None and (node is None or node.id != uow.actor.id):
        raise Invalid(Field("/name", "a node's own token lets back in that node alone: use a join token"))
    if node is None:
        node = Node(name=description.name, state=NodeState.READY, last_seen_at=uow.clock.now())
        uow.session.add(node)
    elif node.id != uow.actor.id and node.hostname != description.hostname and node.state in LIVING_NODE_STATES:
        raise AlreadyExists(
            f"a living node on host {node.hostname} is called {description.name}: choose another --name"
        )
    _describe(uow, node, description)
    node.token_digest = keyring.digest("node-token", token)
    node.last_seen_at = uow.clock.now()
    return Joined(node, token)


def record_heartbeats(uow: UnitOfWork, heartbeats: Mapping[UUID, Heartbeat]) -> None:
    """Note that these nodes live; one that was given up is ready again. They stay locked.

    Raises: Unauthenticated for an id that is no node's.
    """
    uow.require(Permission.REPLICA_REPORT)
    for place, beat in enumerate(heartbeats.values()):
        if faults := list(faults_in(beat)):
            with below(f"/heartbeats/{place}" if len(heartbeats) > 1 else ""):
                raise Invalid(*faults)
    known = {row.id: row for row in uow.execute(_LOCKED_STATES, {"ids": list(heartbeats)})}
    states = {node_id: row.state for node_id, row in known.items()}
    if len(states) < len(heartbeats):
        raise Unauthenticated("no node: join first")
    seen = [{"id": str(node_id), "telemetry": _telemetry(beat)} for node_id, beat in heartbeats.items()]
    # Past the session, in one statement: this runs for every node every few seconds.
    uow.execute(_SEEN, {"now": uow.clock.now(), "seen": json.dumps(seen)})
    if back := [node_id for node_id, state in states.items() if state not in LIVING_NODE_STATES]:
        for node in lock_nodes(uow, back).values():
            _welcome_back(uow, node)
    ailing = {node_id: beat for node_id, beat in heartbeats.items() if is_news(known[node_id], beat, uow.clock.now())}
    if ailing:
        take_in(uow, ailing)


def _telemetry(heartbeat: Heartbeat) -> dict[str, Any]:
    telemetry: dict[str, Any] = pack(replace(heartbeat, replicas=()))
    telemetry.pop("replicas")
    telemetry.pop("hooks")
    return telemetry


def mark_silent(uow: UnitOfWork, heartbeat_s: float, lost_s: float) -> list[Node]:
    """Move nodes that fell silent to unreachable, and those silent for too long to lost; returns the latter.

    When two or more, and at least half of all, would be lost at once, we wait DOUBT times longer: the fault is
    then probably ours. Their supervisors have ended their jobs by themselves meanwhile, so nothing runs twice.
    """
    now = uow.clock.now()
    alive = select(Node).where(Node.state != NodeState.LOST).order_by(Node.id).with_for_update(key_share=True)
    if uow.session.execute(_silent(now, 3 * heartbeat_s)).scalar_one() == 0:
        return []
    nodes = list(uow.session.execute(alive).scalars())
    for node in nodes:
        if node.state in LIVING_NODE_STATES and node.last_seen_at < now - timedelta(seconds=3 * heartbeat_s):
            uow.move(node, NodeState.UNREACHABLE, last_seen_at=node.last_seen_at.isoformat())
    gone = [node for node in nodes if node.last_seen_at < now - timedelta(seconds=lost_s)]
    if len(gone) >= 2 and 2 * len(gone) >= len(nodes):
        gone = [node for node in gone if node.last_seen_at < now - timedelta(seconds=DOUBT * lost_s)]
    for node in gone:
        if node.state in LIVING_NODE_STATES:  # silent for so long that both moves are due
            uow.move(node, NodeState.UNREACHABLE)
        uow.move(node, NodeState.LOST, last_seen_at=node.last_seen_at.isoformat())
    return gone


def gpus_of(uow: UnitOfWork, node_ids: Collection[UUID]) -> dict[UUID, list[Gpu]]:
    """The devices of these nodes, by node, in order."""
    found: dict[UUID, list[Gpu]] = {node_id: [] for node_id in node_ids}
    statement = uow.visible(Gpu).where(Gpu.node_id.in_(node_ids)).order_by(Gpu.node_id, Gpu.index)
    for gpu in uow.session.execute(statement).scalars():
        found[gpu.node_id].append(gpu)
    return found


def _silent(now: datetime, seconds: float) -> Any:
    edge = now - timedelta(seconds=seconds)
    return select(func.count()).select_from(Node).where(Node.state != NodeState.LOST, Node.last_seen_at < edge)


def _check(description: NodeDescription) -> None:
    if description.version != VERSION:
        raise Invalid(Field("/version", f"this server speaks version {VERSION}: install the matching trellis"))
    if not 1 <= len(description.name) <= 63 or not description.name.replace("-", "").replace(".", "").isalnum():
        raise Invalid(Field("/name", "must be 1 to 63 letters, digits, '-' and '.'"))
    if not (0 < description.cpu_milli < 10**8 and 0 < description.memory_bytes < 2**53):
        raise Invalid(Field("/cpu_milli", "CPU and memory must be positive and of this world"))
    indexes = [gpu.index for gpu in description.gpus]
    if indexes != list(range(len(indexes))) or len(indexes) > 64:
        raise Invalid(Field("/gpus", "must be numbered from 0 without gaps, at most 64"))


def _welcome_back(uow: UnitOfWork, node: Node) -> None:
    """One that was given up lives again; what operators wished of it meanwhile holds."""
    if node.state not in LIVING_NODE_STATES:
        uow.move(node, standing_of(node))


def _describe(uow: UnitOfWork, node: Node, description: NodeDescription) -> None:
    node.hostname = description.hostname[:255]
    node.boot_id = description.boot_id[:64]
    node.real_cpu_milli = description.cpu_milli
    node.real_memory_bytes = description.memory_bytes
    give(node, uow.session.get(Pool, node.pool_id) if node.pool_id else None)
    node.gpu_model = gpu_type(description.gpus[0].model) if description.gpus else ""
    node.isolation = description.isolation
    node.isolation_detail = description.isolation_detail[:2000]
    node.executors = [str(executor) for executor in description.executors]
    node.profile = description.profile[:63]
    node.own_labels = description.labels


def _set_gpus(uow: UnitOfWork, described: Mapping[UUID, Collection[GpuDescription]]) -> None:
    """Let these nodes, by id, have the devices that they describe.

    Raises: Invalid where a device of which a job holds something is gone, or cut in another way.
    """
    devices = select(Gpu).where(Gpu.node_id.in_(described))
    known = {(gpu.node_id, gpu.index): gpu for gpu in uow.session.execute(devices).scalars()}
    busy = _busy(uow, known.values())
    new: list[Gpu] = []
    for node_id, device in ((node_id, device) for node_id, all_of in described.items() for device in all_of):
        gpu = known.pop((node_id, device.index), None)
        if gpu is None:
            gpu = Gpu(node_id=node_id, index=device.index)
            new.append(gpu)
        gpu.uuid, gpu.model, gpu.memory_bytes = device.uuid[:80], device.model[:63], device.memory_bytes
        gpu.numa, gpu.links = device.numa, list(device.links)
        cuts = None if device.slices is None else [[piece.profile, piece.start] for piece in device.slices]
        if (gpu.partitioned, gpu.cuts) != (device.partitioned, cuts):
            if gpu.id in busy:
                raise Invalid(
                    Field("/gpus", f"device {device.index} is cut anew, yet a job holds it: wait for its end")
                )
            gpu.partitioned, gpu.cuts = device.partitioned, cuts
    for gpu in known.values():
        if gpu.id in busy:
            raise Invalid(Field("/gpus", f"device {gpu.index} is gone, yet a job holds it: wait until it has ended"))
        uow.session.delete(gpu)
    uow.insert(new)
    uow.session.flush()


def _busy(uow: UnitOfWork, gpus: Collection[Gpu]) -> set[UUID]:
    """Those of which something is held, be it a share or a slice."""
    cut = [gpu.id for gpu in gpus if gpu.partitioned]
    sliced = select(AllocationSlot.gpu_id).where(AllocationSlot.live, AllocationSlot.gpu_id.in_(cut))
    held = set(uow.session.execute(sliced).scalars()) if cut else set()
    return {gpu.id for gpu in gpus if gpu.milli_used} | held
