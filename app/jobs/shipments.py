"""What a node sends and what it is told: specs, orders, shipments."""

from collections.abc import Collection, Iterable, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, select

from app.core.access import Permission
from app.core.settings import Settings
from app.core.uow import UnitOfWork
from app.jobs.asks import roles_in
from app.jobs.attempts import Family, apply_reports, end_attempts_on, live_replicas_on
from app.jobs.logs import append_chunks
from app.jobs.metrics import append_points
from app.jobs.models import Job, Replica
from app.resources.allocations import lock_node
from app.resources.nodes import record_heartbeat
from trellis.errors import Unauthenticated
from trellis.vocabulary import ENDED_REPLICA_STATES, ExecutorKind, NetworkPolicy, ReplicaState, StopReason
from trellis.wire import GpuGrant, Heartbeat, Orders, Receipt, ReplicaSpec, Shipment, SliceGrant, Stop

# A message about what was placed this recently is still on its way: no need to say it twice.
JUST_PLACED = timedelta(seconds=2)
# What runs for this long by our rows and is not in its node's hands was lost there.
SURELY_STARTED = timedelta(seconds=10)


_MINE = (Replica.id == any_(bindparam("ids", type_=ARRAY(Uuid))), Replica.node_id == bindparam("node_id"))
_LOCKED = select(Replica).where(*_MINE).order_by(Replica.id).with_for_update(key_share=True)
_TO_LAUNCH = (
    select(
        Replica.id, Replica.job_id, Replica.number, Replica.fence, Replica.index.label("replica_index"), Replica.gpus,
        Replica.slices, Replica.role, Replica.count.label("replica_count"), Job.project_id, Job.name, Job.replicas,
        Job.cpu_milli, Job.memory_bytes, Job.gpu_milli, Job.gpu_model, Job.asks, Job.time_limit_s, Job.spec,
        Job.array_id, Job.array_index,
    )
    .join(Job, Job.id == Replica.job_id)
    .where(*_MINE, Replica.ended_at.is_(None), Replica.stop_reason.is_(None))
    .order_by(Replica.id)
)  # fmt: skip


def specs_for(uow: UnitOfWork, pairs: Collection[tuple[str, int]]) -> tuple[list[ReplicaSpec], list[str]]:
    """The specs of what the acting node was told to launch, and those of the asked that are not to run (any more)."""
    uow.require(Permission.REPLICA_REPORT)
    wanted = {UUID(replica_id): fence for replica_id, fence in pairs}
    specs = [spec for spec in _specs(uow, wanted) if wanted[UUID(spec.replica_id)] == spec.fence]
    known = {spec.replica_id for spec in specs}
    return specs, [replica_id for replica_id, _ in pairs if replica_id not in known]


def give_orders(uow: UnitOfWork, heartbeat: Heartbeat, settings: Settings) -> Orders:
    """Renew the lease of the acting node; say what it should run and does not, and what it runs and should not."""
    node = record_heartbeat(uow, heartbeat)
    held = {held.replica_id: held for held in heartbeat.replicas}
    live = {str(replica.id): replica for replica in live_replicas_on(uow, node.id)}
    now = uow.clock.now()
    vanished = [r for i, r in live.items() if i not in held and r.started_at and r.started_at < now - SURELY_STARTED]
    if vanished:
        end_attempts_on(uow, node.id, vanished, "its node no longer knows of it: it was restarted or lost its files")
    missing = [
        replica.id
        for replica_id, replica in live.items()
        if replica_id not in held and replica.started_at is None and replica.stop_reason is None
        and replica.created_at < now - JUST_PLACED
    ]  # fmt: skip
    launch = _specs(uow, missing) if missing else []
    _end_unstarted(uow, node.id, [r for i, r in live.items() if i not in held and r.stop_reason])
    return Orders(settings.lease_s, settings.heartbeat_s, tuple(launch), tuple(_stops(held.values(), live)))


def apply_shipment(uow: UnitOfWork, shipment: Shipment) -> Receipt:
    """Take in logs and metrics, then reports, all or nothing; known parts change nothing."""
    uow.require(Permission.REPLICA_REPORT)
    sent = {UUID(replica_id) for replica_id in shipment.replica_ids}
    replicas: dict[UUID, Replica] = {}
    stale: set[str] = set()
    if shipment.reports:
        replicas, stale = _apply_all(uow, shipment, sent)
    if others := sent - replicas.keys():
        locked = uow.session.execute(_LOCKED, {"ids": list(others), "node_id": uow.actor.id}).scalars()
        known = {replica.id: replica for replica in locked}
        _take_in(uow, known, shipment)
        replicas |= known
    return _receipt(replicas.values(), stale | {str(replica_id) for replica_id in sent - replicas.keys()})


def _apply_all(uow: UnitOfWork, shipment: Shipment, sent: set[UUID]) -> tuple[dict[UUID, Replica], set[str]]:
    # Lock order: node, job, attempt. The node only if something may be released.
    node_id = uow.actor.id
    if node_id is None:
        raise Unauthenticated("join first")
    if any(report.state in ENDED_REPLICA_STATES for report in shipment.reports):
        lock_node(uow, node_id)
    family = Family.of_replicas(uow, sent, node_id)
    mine = {r.id: r for r in family.replicas.values() if r.node_id == node_id and r.id in sent}
    _take_in(uow, mine, shipment)
    return mine, apply_reports(uow, family, shipment.reports, node_id)


def _take_in(uow: UnitOfWork, replicas: dict[UUID, Replica], shipment: Shipment) -> None:
    append_chunks(uow, replicas, [chunk for chunk in shipment.logs if UUID(chunk.replica_id) in replicas])
    append_points(uow, replicas, [point for point in shipment.metrics if UUID(point.replica_id) in replicas])


def _receipt(replicas: Iterable[Replica], stale: set[str]) -> Receipt:
    settled = list(replicas)
    return Receipt(
        logs={str(r.id): r.log_bytes for r in settled},
        metrics={str(r.id): r.metric_seq for r in settled},
        reports={str(r.id): r.report_seq for r in settled},
        stale=tuple(sorted(stale)),
    )


def _specs(uow: UnitOfWork, replica_ids: Iterable[UUID]) -> list[ReplicaSpec]:
    named = {"ids": list(replica_ids), "node_id": uow.actor.id}
    return [_spec(row) for row in uow.execute(_TO_LAUNCH, named)]


def _spec(row: Any) -> ReplicaSpec:
    """All that the node needs of a job."""
    kept, needs = row.spec, roles_in(row)[row.role]
    role: dict[str, Any] = kept["roles"][row.role] if kept.get("roles") else {"name": "", "command": None}
    command = role["command"] or kept["command"]
    environment = dict(kept["environment"])
    if row.array_index is not None:
        environment |= {"TRELLIS_ARRAY_ID": str(row.array_id), "TRELLIS_ARRAY_INDEX": str(row.array_index)}
        environment |= {"SLURM_ARRAY_JOB_ID": str(row.array_id), "SLURM_ARRAY_TASK_ID": str(row.array_index)}
    return ReplicaSpec(
        replica_id=str(row.id),
        job_id=str(row.job_id),
        project_id=str(row.project_id),
        job_name=row.name,
        attempt=row.number,
        fence=row.fence,
        index=row.replica_index,
        count=row.replica_count,
        role=role["name"],
        command=None if command is None else tuple(command),
        script=None if role["command"] else kept["script"],
        script_name=kept["script_name"],
        arguments=tuple(kept["arguments"]),
        environment=environment,
        cpu_milli=needs.cpu_milli,
        memory_bytes=needs.memory_bytes,
        gpus=tuple(GpuGrant(gpu["index"], gpu["uuid"], gpu["milli"]) for gpu in row.gpus),
        slices=tuple(SliceGrant(**piece) for piece in row.slices or ()),
        time_limit_s=row.time_limit_s,
        grace_s=kept["grace_s"],
        executor=ExecutorKind(kept["executor"]),
        network=NetworkPolicy(kept["network"]),
    )


def _stops(held: Iterable[Any], live: dict[str, Replica]) -> Iterable[Stop]:
    for holding in held:
        replica = live.get(holding.replica_id)
        if replica is None or replica.fence != holding.fence:
            if holding.state not in ENDED_REPLICA_STATES:
                yield Stop(holding.replica_id, holding.fence, StopReason.STALE, 0)
        elif replica.stop_reason is not None:
            yield Stop(holding.replica_id, holding.fence, replica.stop_reason, replica.stop_grace_s)


def _end_unstarted(uow: UnitOfWork, node_id: UUID, unwanted: Sequence[Replica]) -> None:
    """What was to be stopped before it ever reached the node ends here, if it had time enough to arrive."""
    edge = uow.clock.now() - JUST_PLACED
    due = [r for r in unwanted if r.state is ReplicaState.PLACED and r.created_at < edge]
    if not due:
        return
    lock_node(uow, node_id)
    end_attempts_on(uow, node_id, due, "it was stopped before it reached its node")
