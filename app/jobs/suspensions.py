"""Jobs that are to stand still, and to go on again.

One that waits is held back. One that runs is parked: its processes stand still on their nodes, and what it held is
given back. When it is to go on it waits in its queue again, owed what it had: the scheduler gives it that or other
room, and `app.jobs.parking` has it go on in place or begin anew.
"""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, bindparam, text

from app.core.access import Permission
from app.core.uow import UnitOfWork
from app.jobs.asks import Asks, roles_in
from app.jobs.models import Attempt, Job, Replica
from app.jobs.service import live_replicas
from trellis.errors import IllegalTransition
from trellis.vocabulary import ENDED_JOB_STATES, JobState, ReplicaState

_WAITING = frozenset({JobState.PENDING, JobState.QUEUED, JobState.RETRYING, JobState.PREEMPTED})
_COUNT = text(
    """
    UPDATE nodes SET parked = (
        SELECT count(*) FROM replicas
        WHERE replicas.node_id = nodes.id AND replicas.state = 'suspended' AND replicas.suspend_asked_at IS NOT NULL
    )
    WHERE nodes.id = ANY(:ids)
    """
).bindparams(bindparam("ids", type_=ARRAY(Uuid)))


def suspend_job(uow: UnitOfWork, job_id: UUID, version: int | None, *, reason: str = "") -> Job:
    """Have a job stand still: held back where it waits, parked where it runs. Asking again is harmless.

    Raises: IllegalTransition for one that has ended, or was told to.
    """
    job = uow.get(Job, job_id, lock=True)
    uow.require(Permission.JOB_WRITE, job.project_id)
    uow.expect_version(job, version)
    if job.state in ENDED_JOB_STATES or job.cancel_asked_at is not None:
        ending = "ending" if job.state not in ENDED_JOB_STATES else job.state
        raise IllegalTransition(f"job {job.id} is {ending}: there is nothing to suspend")
    if job.suspend_asked_at is None:
        hold_back(uow, job, live_replicas(uow, job), reason)
    return job


def hold_back(uow: UnitOfWork, job: Job, live: Sequence[Replica], reason: str) -> None:
    """The same for a locked job with these live replicas."""
    job.suspend_asked_at = uow.clock.now()
    job.message = reason
    if job.state in _WAITING:
        job.run_after = job.owed = None
        uow.move(job, JobState.SUSPENDED, reason=reason)
        return
    job.version += 1
    uow.emit("job.suspend_asked", job, reason=reason)
    for replica in live:
        # One that stands still is about to go on, with what it was granted: its turn comes when it has.
        if replica.state is not ReplicaState.SUSPENDED:
            ask_pause(uow, job, replica)


def resume_job(uow: UnitOfWork, job_id: UUID, version: int | None, *, reason: str = "") -> Job:
    """Have a suspended job go on: where it was if that is still free, else in a new attempt. Asking again is harmless.

    Raises: IllegalTransition for one that has ended.
    """
    job = uow.get(Job, job_id, lock=True)
    uow.require(Permission.JOB_WRITE, job.project_id)
    uow.expect_version(job, version)
    if job.state in ENDED_JOB_STATES:
        raise IllegalTransition(f"job {job.id} is {job.state}: `retry` submits it again")
    if job.suspend_asked_at is not None:
        let_go_on(uow, job, live_replicas(uow, job), reason)
    return job


def let_go_on(uow: UnitOfWork, job: Job, live: Sequence[Replica], reason: str) -> None:
    """The same for a locked job with these live replicas. One that is coming to rest goes on once it has: `rest`."""
    job.suspend_asked_at = None
    job.message = reason
    job.version += 1
    uow.emit("job.resume_asked", job, reason=reason)
    if job.state is JobState.SUSPENDED:
        queue_again(uow, job, live)


def ask_pause(uow: UnitOfWork, job: Job, replica: Replica) -> None:
    """Wish that a live replica stands still; one whose job can be taken up later has its grace to save its state.

    One that was told to end does that, within the grace that it was given for it.
    """
    if replica.stop_reason is not None:
        return
    replica.suspend_asked_at = uow.clock.now()
    replica.stop_grace_s = checkpoint_s(job)
    replica.version += 1
    uow.emit("replica.suspend_asked", replica, node_id=str(replica.node_id), fence=replica.fence)


def checkpoint_s(job: Job) -> int:
    """How long a job is given to save its state when it is asked for a checkpoint."""
    return int(job.spec["grace_s"]) if Asks.read(job.asks).checkpointable else 0


def queue_again(uow: UnitOfWork, job: Job, live: Sequence[Replica]) -> None:
    """Let a suspended job wait again, owed what it was parked on; not while what it was parked on is being cleared."""
    if job.waiting_for:
        uow.move(job, JobState.PENDING)
        return
    if any(replica.stop_reason is not None for replica in live):
        return
    job.owed = holdings_of(job, live) or None
    uow.move(job, JobState.QUEUED)


def holdings_of(job: Job, replicas: Sequence[Replica]) -> list[dict[str, Any]]:
    """What these replicas had, in the form of `Job.owed`."""
    roles = roles_in(job)
    found = []
    for replica in replicas:
        role = roles[replica.role]
        kept: dict[str, Any] = {
            "node_id": str(replica.node_id), "cpu_milli": role.cpu_milli, "memory_bytes": role.memory_bytes,
            "gpus": [[gpu["index"], gpu["milli"]] for gpu in replica.gpus], "role": replica.role,
        }  # fmt: skip
        if replica.slices:
            kept["slices"] = [[piece["index"], piece["profile"], piece["start"]] for piece in replica.slices]
        found.append(kept)
    return found


def rest(uow: UnitOfWork, job: Job, attempt: Attempt, members: Sequence[Replica]) -> None:
    """All of a running attempt stands still now."""
    uow.move(attempt, ReplicaState.SUSPENDED)
    uow.move(job, JobState.SUSPENDED, reason=job.message)
    job.parked_at = uow.clock.now()
    if job.suspend_asked_at is None and job.cancel_asked_at is None:  # it was to go on before it had come to rest
        queue_again(uow, job, [member for member in members if member.ended_at is None])


def go_on(uow: UnitOfWork, job: Job, attempt: Attempt) -> None:
    """All of an attempt that stood still runs again."""
    uow.move(attempt, ReplicaState.RUNNING)
    uow.move(job, JobState.STARTING)
    uow.move(job, JobState.RUNNING)
    job.started_at = attempt.started_at


def count_parked(uow: UnitOfWork, node_ids: Collection[UUID]) -> None:
    """Note on these (locked) nodes how many replicas are parked there."""
    uow.session.flush()
    uow.execute(_COUNT, {"ids": list(node_ids)})
