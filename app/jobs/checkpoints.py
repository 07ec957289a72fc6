"""Checkpoints as jobs see them: asked for, taken in from nodes, and given to the replicas that go on from them."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.core.access import Permission
from app.core.uow import UnitOfWork
from app.jobs.gangs import is_gang
from app.jobs.models import Job, Replica
from app.jobs.service import spec_of
from app.jobs.spec import CheckpointSpec
from app.storage import checkpoints, packs
from app.storage.checkpoints import Place, Source
from app.storage.models import Checkpoint
from app.storage.starts import Start, start_from
from trellis.errors import Conflict, Field, Invalid, StaleFence
from trellis.vocabulary import CheckpointBy, ReplicaState, SaveReason
from trellis.wire import CheckpointPlan, Restored, SaveFailed

# Of what nodes say in words: so much is read, and so much of it kept.
_FAULT_LENGTH, _SAID_LENGTH = 1024, 800


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
    replicas = [
        one for one in uow.session.execute(running.order_by(Replica.id)).scalars() if _saves(job.spec, one.index)
    ]
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
    manifest = checkpoints.read_sent(
        block
    )  # before the lock: a large one takes a while, and the replica's reports need it
    replica = uow.get(Replica, replica_id, lock=True)
    if replica.fence != fence or replica.ended_at is not None:
        raise StaleFence(f"replica {replica_id} has ended or has another fence")
    job = uow.session.execute(select(Job).where(Job.id == replica.job_id)).scalar_one()
    wanted = spec_of(job).checkpoint or CheckpointSpec()
    if not _saves(job.spec, replica.index):
        raise Invalid(Field("/manifest", f"is of replica {replica.index}: of this job those of replica 0 are stored"))
    parts = replica.count if is_gang(job.spec) and wanted.by is CheckpointBy.ALL else 1
    source = Source(
        replica.project_id, replica.job_id, replica.id, replica.index, replica.number, replica.fence, wanted.keep, parts
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
    uow.emit("checkpoint.failed", replica, replica_index=replica.index, reason=_plain(failed.message))


def note_restored(uow: UnitOfWork, replica_id: UUID, restored: Restored) -> None:
    """A node says from which checkpoint a replica goes on, and which were damaged.

    It is believed of what the replica could have been given: its job's own, and of the same project the one that the
    job names. Raises: StaleFence; Invalid for more than it was offered.
    """
    uow.require(Permission.REPLICA_REPORT)
    replica = uow.get(Replica, replica_id, lock=True)
    if replica.fence != restored.fence or replica.ended_at is not None:
        raise StaleFence(f"replica {replica_id} has ended or has another fence")
    if len(restored.faults) > checkpoints.OFFERED or any(len(fault) > _FAULT_LENGTH for fault in restored.faults):
        message = f"up to {checkpoints.OFFERED} texts of up to {_FAULT_LENGTH} characters"
        raise Invalid(Field("/faults", f"must be {message}"))
    faults = dict(_plain(fault).partition(" ")[::2] for fault in restored.faults)
    job = uow.session.execute(select(Job).where(Job.id == replica.job_id)).scalar_one()
    named = job.spec.get("from_checkpoint")
    found = checkpoints.find_keys(uow, {_plain(restored.key), *faults}, named and UUID(named))
    for key, why in faults.items():
        if key in found and _is_given(job, found[key], shared=False):
            checkpoints.note_damaged(uow, found[key], why)
    checkpoint = found.get(restored.key)
    if checkpoint is not None and not _is_given(job, checkpoint, shared=True):
        checkpoint = None
    uow.emit(
        "checkpoint.restored", replica, attempt=replica.number, replica_index=replica.index,
        checkpoint_id=None if checkpoint is None else str(checkpoint.id),
        step=None if checkpoint is None else checkpoint.at_step, damaged=len(restored.faults),
    )  # fmt: skip


def _is_given(job: Job, checkpoint: Checkpoint, *, shared: bool) -> bool:
    """Whether the job's replicas may have been given it; `shared` ones of other projects too."""
    named = job.spec.get("from_checkpoint") == str(checkpoint.id)
    return checkpoint.job_id == job.id or (named and (shared or checkpoint.project_id == job.project_id))


def _plain(text: str) -> str:
    """What a node says, as a database takes it."""
    return text[:_SAID_LENGTH].encode("utf-8", "replace").decode().replace("\0", "?")


def plans_for(uow: UnitOfWork, place: Place, rows: Iterable[Any]) -> dict[UUID, CheckpointPlan]:
    """By replica id, for those of these rows (of `app.jobs.orders`) whose jobs save checkpoints: for the others, nothing."""
    wanting = [row for row in rows if "checkpoint" in row.spec]
    if not wanting:
        return {}
    place.ensure()
    known = checkpoints.offered(uow, {(row.job_id, index) for row in wanting for index in (0, row.replica_index)})
    in_parts = {row.job_id for row in wanting if _by(row.spec) is CheckpointBy.ALL}
    whole = checkpoints.whole_of(uow, in_parts) if in_parts else {}
    return {row.id: _plan(uow, place, row, _keys_for(row, known, whole)) for row in wanting}


def _by(spec: dict[str, Any]) -> CheckpointBy:
    """Whose checkpoints count; a job of one replica has but its own."""
    return CheckpointSpec.read(spec["checkpoint"]).by if is_gang(spec) else CheckpointBy.EACH


def _saves(spec: dict[str, Any], index: int) -> bool:
    return index == 0 or _by(spec) is not CheckpointBy.RANK0


def _keys_for(
    row: Any, known: Mapping[tuple[UUID, int], list[str]], whole: Mapping[UUID, Mapping[int, str]]
) -> list[str]:
    """What a replica may go on from. Where all go on from the same step there is no second choice for one of them."""
    by = _by(row.spec)
    if by is CheckpointBy.EACH:
        return known[row.job_id, row.replica_index]
    if by is CheckpointBy.RANK0:
        return known[row.job_id, 0][:1]
    part = whole.get(row.job_id, {}).get(row.replica_index)
    return [] if part is None else [part]


def _plan(uow: UnitOfWork, place: Place, row: Any, keys: list[str]) -> CheckpointPlan:
    wanted = CheckpointSpec.read(row.spec["checkpoint"])
    named = row.spec.get("from_checkpoint")
    start = Start(tuple(keys))
    if named and not keys:  # asked anew at every start: a grant that was taken back counts from then on
        start = start_from(uow, place, UUID(named), row.project_id)
    # Another project's content, or another cluster's, is never referred to: it goes when its owner says so.
    own = [key for key in start.keys if not start.source and key.startswith(f"manifests/{row.project_id}/")]
    saves, shared = _saves(row.spec, row.replica_index), _by(row.spec) is not CheckpointBy.EACH
    return CheckpointPlan(
        place.url, place.public_key, wanted.every_s, wanted.settle_s, own[0] if own and saves else "", start.keys,
        saves, shared, start.source, fault=start.fault,
        # What a gang has saved itself is tried again: where it is damaged, what was before it is next.
        must_restore=bool(named) and not wanted.fresh_start and not (keys and shared),
    )  # fmt: skip


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
