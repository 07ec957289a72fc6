"""How an attempt that is over becomes its job's state: an end, or the wait for the next try."""

import hashlib
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import func, select

from app.core.states import JOB
from app.core.uow import UnitOfWork
from app.jobs import retries
from app.jobs.models import Attempt, Job, Replica
from app.jobs.service import spec_of
from app.jobs.shrinking import shrink
from app.jobs.spec import PLATFORM_CAUSES, Retries
from app.jobs.suspensions import holdings_of, queue_again
from trellis.vocabulary import Cause, HangAction, JobState, OnReplicaFailure, ReplicaState, StopReason

# By which a job is preempted as its owner wished, and not for others.
_WISHED = frozenset({Cause.MIGRATED, Cause.SUSPENDED, Cause.RESIZED})


def advance(uow: UnitOfWork, subject: Replica | Attempt, state: ReplicaState) -> None:
    """Move to `state`, through the ones on the way that went by too fast to be reported apart."""
    if subject.state is state:
        return
    way = {
        ReplicaState.RUNNING: [ReplicaState.STARTING],
        ReplicaState.SUSPENDED: [ReplicaState.STARTING, ReplicaState.RUNNING],
        ReplicaState.SUCCEEDED: [ReplicaState.STARTING, ReplicaState.RUNNING],
    }
    order = list(ReplicaState)
    for step in way.get(state, []):
        if order.index(subject.state) < order.index(step):
            uow.move(subject, step)
    uow.move(subject, state)


def conclude(uow: UnitOfWork, job: Job, attempt: Attempt, every: Sequence[Replica], *, awaited: bool) -> None:
    """The attempt is over: it ended as the first of its replicas that did not succeed. `awaited`: others wait for it."""
    members = [m for m in every if m.stop_reason is not StopReason.SURPLUS] or every
    bad = [m for m in members if m.state is not ReplicaState.SUCCEEDED]
    reason = _first_to_fail(bad, cancelled=job.cancel_asked_at is not None) if bad else members[0]
    message = _said_of(reason) if len(members) > 1 else reason.message
    advance(uow, attempt, reason.state)
    attempt.exit_code = job.exit_code = reason.exit_code
    attempt.cause = job.cause = reason.cause
    attempt.message = message
    if job.parked_at is not None:
        job.paused_ms += (uow.clock.now() - job.parked_at) // timedelta(milliseconds=1)
        job.parked_at = None
    spec = spec_of(job)
    ended = retries.Ended(
        reason.state, reason.cause, reason.exit_code, _tried(uow, job, reason.cause, spec.retries),
        _chance(job), job.cancel_asked_at is not None, len(members) > 1, spec.hang_action is HangAction.RESTART,
    )  # fmt: skip
    decision = retries.decide(ended, spec.retries, spec.on_node_lost)
    if spec.on_replica_failure is OnReplicaFailure.SHRINK and shrink(uow, job, reason, members):
        decision = retries.Decision(JobState.RETRYING, spent=False)
    if reason.cause is Cause.RESIZED:
        job.owed = holdings_of(job, members) or None
    # Of who was told to end it is known here why, and not where it ran.
    if message and not (job.message and (job.cancel_asked_at or reason.cause is Cause.PREEMPTED)):
        job.message = message
    # Told so that nobody is sent to look for dependents that there are not.
    unawaited = {} if awaited else {"awaited": False}
    why = {"reason": reason.message} if reason.message else {}
    cause = reason.cause and str(reason.cause)
    _decided(uow, job, decision, cause=cause, exit_code=reason.exit_code, **why, **unawaited)


def _first_to_fail(bad: Sequence[Replica], *, cancelled: bool) -> Replica:
    """Those that were stopped because another failed are not the reason; nor is who failed for want of a lost one."""
    own = [m for m in bad if m.stop_reason is None]
    if not own:
        return bad[0]
    lost = [m for m in bad if m.cause in PLATFORM_CAUSES and m.stop_reason in (None, StopReason.CANCELLED)]
    among = own if cancelled else lost or own
    return min(among, key=lambda m: (m.ended_at is None, m.ended_at, m.index))


def _said_of(replica: Replica) -> str:
    said = replica.message or ("" if replica.state is ReplicaState.SUCCEEDED else str(replica.state))
    return said and f"replica {replica.index} on {replica.node_name}: {said}"


def _tried(uow: UnitOfWork, job: Job, cause: Cause | None, rules: Retries) -> int:
    """How many tries count against the rule for that cause."""
    if rules.own_rule(cause) is None:
        return job.retries
    before = select(func.count()).where(Attempt.job_id == job.id, Attempt.cause == cause, Attempt.fence < job.fence)
    return int(uow.execute(before).scalar_one())


def _chance(job: Job) -> float:
    """From 0 to 1: the same for one attempt, whoever asks, and without pattern from job to job."""
    drawn = hashlib.blake2b(f"{job.id} {job.fence}".encode(), digest_size=4).digest()
    return int.from_bytes(drawn, "big") / (2**32 - 1)


def _decided(uow: UnitOfWork, job: Job, decision: retries.Decision, **data: object) -> None:
    again = decision.state in (JobState.RETRYING, JobState.PREEMPTED)
    if again and job.state in (JobState.SUSPENDED, JobState.QUEUED):  # what ended stood still: no try was spent
        job.owed = None
        if job.state is JobState.QUEUED:  # queued anew, so that it is told of: another place will do for it now
            uow.move(job, JobState.SUSPENDED, reason="what stood still is gone")
        if job.suspend_asked_at is None:
            queue_again(uow, job, ())
        return
    if again:
        job.retries += decision.spent and decision.state is JobState.RETRYING
        job.preemptions += decision.state is JobState.PREEMPTED and job.cause not in _WISHED
        job.run_after = uow.clock.now() + timedelta(seconds=decision.delay_s)
    if again and decision.delay_s == 0 and job.state is JobState.SCHEDULED:  # it never began
        uow.move(job, JobState.QUEUED, **data)
        if job.suspend_asked_at is not None:
            uow.move(job, JobState.SUSPENDED)
        return
    # What went by too fast to be reported apart.
    for step in (JobState.SCHEDULED, JobState.STARTING, JobState.RUNNING):
        if not JOB.allows(job.state, decision.state) and JOB.allows(job.state, step):
            uow.move(job, step)
    uow.move(job, decision.state, **data)
    if again and job.suspend_asked_at is not None:
        job.run_after = None
        uow.move(job, JobState.SUSPENDED)
    elif again and decision.delay_s == 0:
        uow.move(job, JobState.QUEUED)
