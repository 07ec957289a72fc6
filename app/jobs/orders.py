"""What nodes are told: specs of what they are to run, and the orders that answer their heartbeats."""

from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, func, select
from sqlalchemy.orm import aliased

from app.core.access import Permission
from app.core.settings import Settings
from app.core.tables import Word
from app.core.uow import UnitOfWork
from app.jobs.asks import roles_in
from app.jobs.checkpoints import plans_for
from app.jobs.code import on_wire
from app.jobs.gangs import is_gang, worlds_for
from app.jobs.losses import end_attempts_on
from app.jobs.models import Job, Replica
from app.resources.nodes import record_heartbeats
from app.storage.checkpoints import Place
from trellis.vocabulary import (
    ENDED_REPLICA_STATES,
    ExecutorKind,
    HangAction,
    NetworkPolicy,
    OnNodeLost,
    PullPolicy,
    ReplicaState,
    StopReason,
)
from trellis.wire import (
    CheckpointPlan,
    Container,
    GpuGrant,
    Heartbeat,
    Held,
    Orders,
    Pause,
    ReplicaSpec,
    Save,
    SliceGrant,
    Stop,
)

# A message about what was placed this recently is still on its way: no need to say it twice.
JUST_PLACED = timedelta(seconds=2)
# What runs for this long by our rows and is not in its node's hands was lost there.
SURELY_STARTED = timedelta(seconds=10)
VANISHED = "its node no longer knows of it: it was restarted or lost its files"
UNSTARTED = "it was stopped before it reached its node"
_NODE_IDS = bindparam("node_ids", type_=ARRAY(Uuid))
_PARKED = aliased(Replica)
# What is parked on the same node and told to go: whatever starts there waits for that.
_LEAVING = (
    select(func.array_agg(func.concat(_PARKED.id, ".", _PARKED.fence)))
    .where(
        _PARKED.node_id == Replica.node_id, _PARKED.stop_reason.is_not(None),
        _PARKED.state == bindparam("suspended", ReplicaState.SUSPENDED, Word(ReplicaState), literal_execute=True),
    )
    .scalar_subquery()
)  # fmt: skip
_TO_LAUNCH = (
    select(
        Replica.id, Replica.job_id, Replica.number, Replica.fence, Replica.index.label("replica_index"), Replica.gpus,
        Replica.slices, Replica.role, Replica.count.label("replica_count"), Replica.node_id, Job.project_id, Job.name,
        Job.replicas, Job.cpu_milli, Job.memory_bytes, Job.gpu_milli, Job.gpu_model, Job.asks, Job.time_limit_s,
        Job.spec, Job.array_id, Job.array_index, _LEAVING.label("after"),
    )
    .join(Job, Job.id == Replica.job_id)
    .where(
        Replica.id == any_(bindparam("ids", type_=ARRAY(Uuid))), Replica.node_id == any_(_NODE_IDS),
        Replica.ended_at.is_(None), Replica.stop_reason.is_(None),
    )
    .order_by(Replica.id)
)  # fmt: skip
_LIVE = (
    select(
        Replica.id, Replica.job_id, Replica.node_id, Replica.fence, Replica.state, Replica.created_at,
        Replica.started_at, Replica.stop_reason, Replica.stop_grace_s, Replica.suspend_asked_at,
        Replica.checkpoint_asked_at, Replica.attempt_id, Replica.ready.is_not(None).label("waits"),
    )
    .where(Replica.node_id == any_(_NODE_IDS), Replica.ended_at.is_(None))
    .order_by(Replica.id)
)  # fmt: skip


def specs_for(
    uow: UnitOfWork, pairs: Collection[tuple[str, int]], node_ids: Collection[UUID], place: Place
) -> tuple[list[ReplicaSpec], list[str]]:
    """The specs of what these nodes were told to launch, and those of the asked that are not to run (any more)."""
    uow.require(Permission.REPLICA_REPORT)
    wanted = {UUID(replica_id): fence for replica_id, fence in pairs}
    rows = [row for row in _rows_of(uow, wanted, node_ids) if wanted[row.id] == row.fence]
    plans = plans_for(uow, place, rows)
    specs = [_spec(row, plans.get(row.id)) for row in rows]
    known = {spec.replica_id for spec in specs}
    return specs, [replica_id for replica_id, _ in pairs if replica_id not in known]


def give_orders(
    uow: UnitOfWork, heartbeats: Mapping[UUID, Heartbeat], settings: Settings, place: Place
) -> dict[UUID, Orders]:
    """Renew the leases of these nodes; say what each should run and does not, and what it runs and should not."""
    record_heartbeats(uow, heartbeats)
    live: dict[UUID, dict[str, Any]] = {node_id: {} for node_id in heartbeats}
    for row in uow.execute(_LIVE, {"node_ids": list(heartbeats)}):
        live[row.node_id][str(row.id)] = row
    missing: list[UUID] = []
    gone: dict[str, list[Any]] = {VANISHED: [], UNSTARTED: []}
    for node_id, heartbeat in heartbeats.items():
        held = {holding.replica_id for holding in heartbeat.replicas}
        unheld = [row for replica_id, row in live[node_id].items() if replica_id not in held]
        gone[VANISHED] += _vanished(uow, unheld)
        gone[UNSTARTED] += _unstarted(uow, unheld)
        missing += [row.id for row in unheld if _is_due(uow, row)]
    if any(gone.values()):
        end_attempts_on(uow, gone)
    launch: dict[UUID, list[ReplicaSpec]] = {}
    rows = list(_rows_of(uow, missing, heartbeats)) if missing else []
    plans = plans_for(uow, place, rows)
    for row in rows:
        launch.setdefault(row.node_id, []).append(_spec(row, plans.get(row.id)))
    worlds = worlds_for(uow, heartbeats, [row for rows in live.values() for row in rows.values()])
    return {
        node_id: Orders(
            settings.lease_s, settings.heartbeat_s, tuple(launch.get(node_id, ())),
            tuple(_stops(heartbeat.replicas, live[node_id])), tuple(_saves(heartbeat.replicas, live[node_id])),
            tuple(_pauses(heartbeat.replicas, live[node_id])), tuple(worlds.get(node_id, ())),
        )
        for node_id, heartbeat in heartbeats.items()
    }  # fmt: skip


def _is_due(uow: UnitOfWork, row: Any) -> bool:
    """Whether the message about what was placed may be lost."""
    return row.started_at is None and row.stop_reason is None and bool(row.created_at < uow.clock.now() - JUST_PLACED)


def _vanished(uow: UnitOfWork, unheld: Iterable[Any]) -> Iterable[Any]:
    """What ran on a node and is not in its hands any more: it has ended with what it knew."""
    edge = uow.clock.now() - SURELY_STARTED
    return [row for row in unheld if row.started_at and row.started_at < edge]


def _unstarted(uow: UnitOfWork, unheld: Iterable[Any]) -> Iterable[Any]:
    """What was to be stopped before it ever reached its node, and had time enough to arrive."""
    edge = uow.clock.now() - JUST_PLACED
    return [row for row in unheld if row.stop_reason and row.state is ReplicaState.PLACED and row.created_at < edge]


def _stops(held: Iterable[Held], live: Mapping[str, Any]) -> Iterable[Stop]:
    for holding in held:
        replica = live.get(holding.replica_id)
        if replica is None or replica.fence != holding.fence:
            if holding.state not in ENDED_REPLICA_STATES:
                yield Stop(holding.replica_id, holding.fence, StopReason.STALE, 0)
        elif replica.stop_reason is not None:
            yield Stop(holding.replica_id, holding.fence, replica.stop_reason, replica.stop_grace_s)


def _pauses(held: Iterable[Held], live: Mapping[str, Any]) -> Iterable[Pause]:
    """What is to stand still and does not, and what is to go on: not before those are gone that it took room from."""
    waits = any(row.stop_reason is StopReason.DISPLACED for row in live.values())
    for holding in held:
        row = live.get(holding.replica_id)
        if row is None or row.fence != holding.fence or row.stop_reason is not None:
            continue
        if row.suspend_asked_at is None and holding.state is ReplicaState.SUSPENDED and not waits:
            yield Pause(holding.replica_id, holding.fence, paused=False)
        elif row.suspend_asked_at is not None and holding.state in (ReplicaState.STARTING, ReplicaState.RUNNING):
            yield Pause(holding.replica_id, holding.fence, paused=True, checkpoint_s=row.stop_grace_s)


def _saves(held: Iterable[Held], live: Mapping[str, Any]) -> Iterable[Save]:
    for holding in held:
        replica = live.get(holding.replica_id)
        if replica is not None and replica.checkpoint_asked_at is not None and replica.fence == holding.fence:
            yield Save(holding.replica_id, holding.fence)


def _rows_of(uow: UnitOfWork, replica_ids: Iterable[UUID], node_ids: Iterable[UUID]) -> Iterable[Any]:
    return uow.execute(_TO_LAUNCH, {"ids": list(replica_ids), "node_ids": list(node_ids)})


def _container(image: str, kept: dict[str, Any]) -> Container:
    return Container(image, PullPolicy(kept.get("pull", PullPolicy.MISSING)), kept.get("read_only_root", True))


def _spec(row: Any, checkpoint: CheckpointPlan | None) -> ReplicaSpec:
    """All that the node needs of a job."""
    kept, needs = row.spec, roles_in(row)[row.role]
    role: dict[str, Any] = kept["roles"][row.role] if kept.get("roles") else {"name": "", "command": None}
    command = role["command"] or kept["command"]
    image = role.get("image") or kept.get("image", "")
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
        after=tuple(row.after or ()),
        warn_signal=kept.get("warn_signal", ""),
        warn_before_s=kept.get("warn_before_s", 60),
        debug=kept.get("debug", False),
        features=tuple(kept.get("features", ())),
        hang_after_s=float(kept.get("hang_after_s") or 0),
        hang_action=HangAction(kept.get("hang_action", HangAction.WARN)),
        leased=kept.get("on_node_lost") != OnNodeLost.WAIT,
        time_limit_s=row.time_limit_s,
        grace_s=kept["grace_s"],
        executor=ExecutorKind.CONTAINER if image else ExecutorKind.PROCESS,
        container=_container(image, kept) if image else None,
        network=NetworkPolicy(kept["network"]),
        code=on_wire(kept.get("code")),
        checkpoint=checkpoint,
        gang=is_gang(kept),
    )
