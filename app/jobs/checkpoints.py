"""Checkpoints as jobs see them: asked for, taken in from nodes, and given to the replicas that go on from them."""

from collections.abc import Collection, Iterable
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.core.access import Permission
from app.core.uow import UnitOfWork
from app.jobs.models import Job, Replica
from app.jobs.service import spec_of
from app.jobs.spec import CheckpointSpec
from app.storage import checkpoints, packs
from app.storage.checkpoints import Place, Source
from app.storage.models import Checkpoint
from trellis.errors import Conflict, StaleFence
from trellis.stores.manifests import Manifest
from trellis.vocabulary import ReplicaState, SaveReason
from trellis.wire import CheckpointPlan, Restored, SaveFailed


class NotCheckpointed(Conflict):
    """The job was submitted without checkpoints, or does not run."""

    code = "not_checkpointed"
    title = "The job saves no checkpoints"


def ask_checkpoint(uow: UnitOfWork, job_id: UUID) -> Job:
    """Have every running replica of a job save soon. Asking again while one is under way changes nothing."""
    job = uow.get(Job, job_id, lock=True)
    uow.require(Permission.JOB_WRITE, job.project_id)
    if "checkpoint" not in job.spec:
        raise NotCheckpointed(f"job {job.id} was submitted without checkpoint: submit it with `--checkpoint`")
    running = select(Replica).where(
        Replica.job_id == job.id, Replica.state == ReplicaState.RUNNING, Replica.stop_reason.is_(None)
    )
    replicas = uow.session.execute(running.order_by(Replica.id)).scalars().all()
    if not replicas:
        raise NotCheckpointed(f"job {job.id} is {job.state}: only what runs can save")
    for replica in replicas:
        if replica.checkpoint_asked_at is None:
            replica.checkpoint_asked_at = uow.clock.now()
            uow.emit("replica.checkpoint_asked", replica, node_id=str(replica.node_id), fence=replica.fence)
    return job


def take_in(uow: UnitOfWork, place: Place, replica_id: UUID, fence: int, block: bytes) -> Checkpoint:
    """Record what a node has stored for one of its replicas.

    Raises: StaleFence for one that is over: its attempt is not the job's any more.
    """
    uow.require(Permission.REPLICA_REPORT)
    replica = uow.get(Replica, replica_id, lock=True)
    if replica.fence != fence or replica.ended_at is not None:
        raise StaleFence(f"replica {replica_id} has ended or has another fence")
    job = uow.session.execute(select(Job).where(Job.id == replica.job_id)).scalar_one()
    wanted = spec_of(job).checkpoint or CheckpointSpec()
    manifest = Manifest.decode(block)
    source = Source(
        replica.project_id, replica.job_id, replica.id, replica.index, replica.number, replica.fence, wanted.keep
    )
    saved = checkpoints.record(uow, place, source, manifest)
    if saved.reason is not SaveReason.INTERVAL:
        replica.checkpoint_asked_at = None
    return saved


def note_failed(uow: UnitOfWork, replica_id: UUID, failed: SaveFailed) -> None:
    """A node says that it could not store a checkpoint; the one before it stays the latest. Raises StaleFence."""
    uow.require(Permission.REPLICA_REPORT)
    replica = uow.get(Replica, replica_id, lock=True)
    if replica.fence != failed.fence or replica.ended_at is not None:
        raise StaleFence(f"replica {replica_id} has ended or has another fence")
    replica.checkpoint_asked_at = None
    uow.emit("checkpoint.failed", replica, replica_index=replica.index, reason=failed.message[:500])


def note_restored(uow: UnitOfWork, replica_id: UUID, restored: Restored) -> None:
    """A node says from which checkpoint a replica goes on, and which were damaged. Raises StaleFence."""
    uow.require(Permission.REPLICA_REPORT)
    replica = uow.get(Replica, replica_id, lock=True)
    if replica.fence != restored.fence or replica.ended_at is not None:
        raise StaleFence(f"replica {replica_id} has ended or has another fence")
    for fault in restored.faults:
        key, _, why = fault.partition(" ")
        checkpoints.note_damaged(uow, [key], [why])
    found = select(Checkpoint).where(Checkpoint.key == restored.key)
    checkpoint = uow.session.execute(found).scalar_one_or_none()
    uow.emit(
        "checkpoint.restored", replica, attempt=replica.number, replica_index=replica.index,
        checkpoint_id=None if checkpoint is None else str(checkpoint.id),
        step=None if checkpoint is None else checkpoint.at_step, damaged=len(restored.faults),
    )  # fmt: skip


def plans_for(uow: UnitOfWork, place: Place, rows: Iterable[Any]) -> dict[UUID, CheckpointPlan]:
    """By replica id, for those of these rows (of `app.jobs.orders`) whose jobs save checkpoints: for the others, nothing."""
    wanting = [row for row in rows if "checkpoint" in row.spec]
    if not wanting:
        return {}
    place.ensure()
    known = checkpoints.offered(uow, {row.job_id for row in wanting})
    return {row.id: _plan(uow, place, row, known.get(row.job_id, [])) for row in wanting}


def _plan(uow: UnitOfWork, place: Place, row: Any, known: list[Checkpoint]) -> CheckpointPlan:
    wanted = CheckpointSpec.read(row.spec["checkpoint"])
    keys = checkpoints.keys_for(known, row.replica_index)
    if not keys and (origin := row.spec.get("from_checkpoint")):
        # Asked anew at every start: a grant that was taken back counts from then on.
        shared = checkpoints.shared_key(uow, UUID(origin), row.project_id)
        keys = [shared] if shared else []
    own = [key for key in keys if key.startswith(f"manifests/{row.project_id}/")]
    return CheckpointPlan(
        place.url, place.public_key, wanted.every_s, wanted.settle_s, own[0] if own else "", tuple(keys)
    )


def abandoned(uow: UnitOfWork, keys: Collection[str]) -> list[str]:
    """Those of `keys` that no row names and whose replica has ended: nothing of theirs is under way any more."""
    by_replica = {key: replica_of(key) for key in packs.unknown(uow, keys)}
    live = set(
        uow.session.execute(
            select(Replica.id).where(Replica.id.in_(set(by_replica.values())), Replica.ended_at.is_(None))
        ).scalars()
    )
    return [key for key, replica_id in by_replica.items() if replica_id is not None and replica_id not in live]


def replica_of(key: str) -> UUID | None:
    """The replica whose save a key comes from; None for a key of another form, which is not ours to delete."""
    try:
        return UUID(key.rsplit("/", 1)[-1][:36])
    except ValueError:
        return None
