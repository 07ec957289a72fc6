"""Jobs on nodes that are drained, or quarantined for their health: who moves at once, who may stay, and until when."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import func, select

from app.core.uow import UnitOfWork
from app.jobs.asks import Asks
from app.jobs.attempts import Family
from app.jobs.models import Attempt, Job, Replica
from app.jobs.parking import displace
from app.jobs.service import ask_stop
from app.resources.allocations import lock_nodes
from app.resources.drains import expire_held
from app.resources.models import Allocation, Gpu, Node
from app.resources.standing import Drain, Quarantine, note_quiet
from trellis.vocabulary import ENDED_REPLICA_STATES, NodeState, QuarantinedBy, StopReason

_LEFT_BY = frozenset({NodeState.DRAINING, NodeState.QUARANTINED})


class Going(StrEnum):
    """What becomes of a job where its node is to be left: it stays, goes on elsewhere, or begins again elsewhere."""

    STAYS = "stays"
    MOVES = "moves"
    STARTS_OVER = "starts_over"


@dataclass(frozen=True, slots=True)
class Push:
    """Why the jobs of one node are to leave it; `due`: even those that would have to begin again.

    `devices` are those that it is about; empty for the whole node.
    """

    reason: str
    migrates: bool
    due: bool = False
    devices: frozenset[int] = frozenset()


def decide_going(push: Push, *, can_go_on: bool) -> Going:
    """What a push does to a job; one that `can_go_on` elsewhere loses nothing but the time that this takes."""
    if can_go_on:
        return Going.MOVES if push.migrates or push.due else Going.STAYS
    return Going.STARTS_OVER if push.due else Going.STAYS


def empty_nodes(uow: UnitOfWork) -> None:
    """Tell jobs to leave nodes that are drained, or found unhealthy; note which are quiet by now. Safe to repeat."""
    faulty = select(Gpu.node_id).where(Gpu.quarantine.is_not(None))
    concerned = select(Node.id).where(Node.state.in_(_LEFT_BY) | Node.id.in_(faulty)).order_by(Node.id)
    ids = uow.session.execute(concerned).scalars().all()
    if not ids:
        return
    nodes = lock_nodes(uow, ids)
    pushes = _pushes(uow, nodes)
    if due := [node_id for node_id, push in pushes.items() if push.due]:
        expire_held(uow, due)
    live = _live_on(uow, pushes)
    _push_all(uow, pushes, live)
    _note_quiet(uow, nodes, {one.node_id for one in live})


def _pushes(uow: UnitOfWork, nodes: Mapping[UUID, Node]) -> dict[UUID, Push]:
    now, found = uow.clock.now(), dict[UUID, Push]()
    faulty = select(Gpu.node_id, Gpu.index, Gpu.quarantine).where(Gpu.node_id.in_(nodes), Gpu.quarantine.is_not(None))
    for node_id, index, kept in uow.session.execute(faulty):
        quarantine = Quarantine.read(kept)
        if quarantine and _is_for_health(quarantine):
            devices = found[node_id].devices | {index} if node_id in found else frozenset({index})
            reason = f"device {index} of node {nodes[node_id].name} is faulty: {quarantine.reason}"
            found[node_id] = Push(reason, migrates=True, devices=devices)
    for node in nodes.values():
        if push := _push_of(node, now):
            found[node.id] = push
    return found


def _push_of(node: Node, now: datetime) -> Push | None:
    """Why all jobs are to leave a node; None where they need not."""
    drain, quarantine = Drain.of(node), Quarantine.read(node.quarantine)
    if node.state is NodeState.DRAINING and drain is not None:
        why = f": {drain.reason}" if drain.reason else ""
        return Push(f"node {node.name} is drained{why}", drain.migrates, drain.is_due(now))
    if node.state is NodeState.QUARANTINED and quarantine is not None and _is_for_health(quarantine):
        return Push(f"node {node.name} is not healthy: {quarantine.reason}", migrates=True)
    return None


def _is_for_health(quarantine: Quarantine) -> bool:
    """Whether what runs there is in danger: where starting is all that fails, what has started is not."""
    return quarantine.by is QuarantinedBy.HEALTH


def _live_on(uow: UnitOfWork, node_ids: Mapping[UUID, Push]) -> Sequence[Replica]:
    statement = select(Replica).where(Replica.node_id.in_(node_ids), Replica.ended_at.is_(None)).order_by(Replica.id)
    return uow.session.execute(statement).scalars().all()


@dataclass(slots=True)
class _Pushed:
    """All that pushes one job: what any of its nodes demands, the whole of it does."""

    pushes: list[Push] = field(default_factory=list)

    def going(self, *, can_go_on: bool) -> tuple[Going, str]:
        found = {decide_going(push, can_go_on=can_go_on): push.reason for push in reversed(self.pushes)}
        for going in (Going.STARTS_OVER, Going.MOVES):
            if going in found:
                return going, found[going]
        return Going.STAYS, ""


def _push_all(uow: UnitOfWork, pushes: Mapping[UUID, Push], live: Sequence[Replica]) -> None:
    pushed: dict[UUID, _Pushed] = {}
    for replica in live:
        push = pushes[replica.node_id]
        if replica.stop_reason is None and _concerns(push, replica):
            pushed.setdefault(replica.job_id, _Pushed()).pushes.append(push)
    if not pushed:
        return
    family = Family.of_jobs(uow, pushed)
    for attempt in family.attempts.values():
        _push(uow, family, attempt, pushed[attempt.job_id])


def _concerns(push: Push, replica: Replica) -> bool:
    held = {one["index"] for one in (*replica.gpus, *(replica.slices or ()))}
    return not push.devices or bool(push.devices & held)


def _push(uow: UnitOfWork, family: Family, attempt: Attempt, pushed: _Pushed) -> None:
    """Have one (locked) job leave, if it is to; one that is ending, or coming to rest, is left alone for now."""
    job = family.jobs[attempt.job_id]
    live = [one for one in family.members[attempt.id] if one.state not in ENDED_REPLICA_STATES]
    going, reason = pushed.going(can_go_on=Asks.read(job.asks).checkpointable)
    told = any(one.stop_reason not in (None, StopReason.SURPLUS) for one in live)
    if going is Going.STAYS or job.cancel_asked_at is not None or told or not live:
        return
    if job.parked_at is not None:
        displace(uow, job, live, [])
    elif job.suspend_asked_at is None:
        _send_away(uow, job, live, going, reason)


def _send_away(uow: UnitOfWork, job: Job, live: Sequence[Replica], going: Going, reason: str) -> None:
    moves = going is Going.MOVES
    grace_s = int(job.spec["grace_s"])
    for replica in live:
        if replica.stop_reason is None:
            ask_stop(uow, replica, StopReason.MIGRATED if moves else StopReason.PREEMPTED, grace_s)
    job.message = reason
    job.version += 1
    if moves:
        nodes = sorted({replica.node_name for replica in live})
        uow.emit("job.migration_asked", job, reason=reason, nodes=nodes, to="")
    else:
        uow.emit("job.eviction_asked", job, reason=reason, eviction="drain", for_job="")


def _note_quiet(uow: UnitOfWork, nodes: Mapping[UUID, Node], busy: set[UUID]) -> None:
    draining = [node for node in nodes.values() if node.state is NodeState.DRAINING and node.id not in busy]
    if not draining:
        return
    held = Counter[UUID]()
    live = (Allocation.node_id.in_([node.id for node in draining]), Allocation.released_at.is_(None))
    counts = select(Allocation.node_id, func.count()).where(*live).group_by(Allocation.node_id)
    for node_id, count in uow.session.execute(counts):
        held[node_id] = count
    for node in draining:
        if not held[node.id]:
            note_quiet(uow, node)
