"""What follows an attempt that ended."""

from dataclasses import dataclass

from app.jobs.spec import PLATFORM_CAUSES, Retries, RetryRule
from trellis.vocabulary import Cause, JobState, OnNodeLost, ReplicaState

# A job whose nodes keep dying under it is more likely the killer than the victim.
PLATFORM_LIMIT = 20
_AT_ONCE = RetryRule(PLATFORM_LIMIT, backoff_s=0)
# Where one of several replicas can't be started, the fault is its node's as likely as the job's.
_ELSEWHERE = RetryRule(3, backoff_s=5)
# One that hangs again and again does not hang by chance.
_AFTER_HANG = RetryRule(3, backoff_s=0)
_ENDS = {
    ReplicaState.SUCCEEDED: JobState.SUCCEEDED,
    ReplicaState.FAILED: JobState.FAILED,
    ReplicaState.CANCELLED: JobState.CANCELLED,
    ReplicaState.TIMED_OUT: JobState.TIMED_OUT,
    ReplicaState.PREEMPTED: JobState.FAILED,
    ReplicaState.LOST: JobState.LOST,
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How an attempt ended, and what its owner wishes should follow.

    `tried` counts the tries before it: those after the same cause where that has a rule of its own, else all of them.
    `chance` is from 0 to 1: where in its jitter the pause lies. One of a `gang` is one of several replicas.
    """

    outcome: ReplicaState
    cause: Cause | None
    exit_code: int | None
    tried: int
    chance: float = 0.5
    cancel_asked: bool = False
    gang: bool = False
    restarts_hung: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """The job's next state, and after how many seconds it may run again where that is one that waits.

    `spent`: a next try counts as one.
    """

    state: JobState
    delay_s: int = 0
    spent: bool = True


def decide(ended: Ended, retries: Retries, on_node_lost: OnNodeLost = OnNodeLost.REQUEUE) -> Decision:
    """What becomes of a job whose attempt ended.

    A fault of the platform's own is tried again unasked and at once; a fault of the program's as its owner said; who
    made way for others as often as it must, unless its owner said otherwise.
    """
    outcome = ended.outcome
    if outcome is ReplicaState.SUCCEEDED:
        return Decision(JobState.SUCCEEDED)
    if ended.cancel_asked or outcome is ReplicaState.CANCELLED:
        return Decision(JobState.CANCELLED)
    rule = _rule_for(ended, retries, on_node_lost)
    again = JobState.PREEMPTED if outcome is ReplicaState.PREEMPTED else JobState.RETRYING
    if rule is None and again is JobState.PREEMPTED:
        return Decision(again)
    if rule is None or ended.tried >= rule.limit:
        return Decision(_ENDS[outcome])
    return Decision(again, rule.delay_s(ended.tried, ended.chance))


def _rule_for(ended: Ended, retries: Retries, on_node_lost: OnNodeLost) -> RetryRule | None:
    cause = ended.cause
    if cause is Cause.NODE_LOST and on_node_lost is OnNodeLost.FAIL:
        return RetryRule(0)
    if cause is Cause.EXIT_CODE and retries.exit_codes and ended.exit_code not in retries.exit_codes:
        return None
    own = retries.own_rule(cause)
    if own is not None:
        return own
    if cause is Cause.HUNG:
        return _AFTER_HANG if ended.restarts_hung else RetryRule(0)
    if cause in PLATFORM_CAUSES:
        return _AT_ONCE
    if cause is Cause.START_FAILED and ended.gang and retries.limit < _ELSEWHERE.limit:
        return _ELSEWHERE
    return retries if cause in retries.on and ended.outcome is not ReplicaState.PREEMPTED else None
