"""What follows an attempt that ended."""

from dataclasses import dataclass

from app.jobs.spec import PLATFORM_CAUSES, Retries
from trellis.vocabulary import Cause, JobState, ReplicaState

# A job whose nodes keep dying under it is more likely the killer than the victim.
PLATFORM_LIMIT = 20
_ENDS = {
    ReplicaState.SUCCEEDED: JobState.SUCCEEDED,
    ReplicaState.FAILED: JobState.FAILED,
    ReplicaState.CANCELLED: JobState.CANCELLED,
    ReplicaState.TIMED_OUT: JobState.TIMED_OUT,
    ReplicaState.LOST: JobState.LOST,
}


@dataclass(frozen=True, slots=True)
class Decision:
    """The job's next state, and after how many seconds it may run again where that is one that waits."""

    state: JobState
    delay_s: int = 0


def decide(outcome: ReplicaState, cause: Cause | None, retries: Retries, tried: int, *, cancel_asked: bool) -> Decision:
    """What becomes of a job whose attempt ended with `outcome`; `tried` counts the tries before this one.

    A fault of the platform's own is tried again unasked and at once; a fault of the program's as its owner said.
    """
    if outcome is ReplicaState.SUCCEEDED:
        return Decision(JobState.SUCCEEDED)
    if cancel_asked or outcome is ReplicaState.CANCELLED:
        return Decision(JobState.CANCELLED)
    if outcome is ReplicaState.PREEMPTED:
        return Decision(JobState.PREEMPTED)
    if cause in PLATFORM_CAUSES:
        return Decision(JobState.RETRYING) if tried < PLATFORM_LIMIT else Decision(JobState.LOST)
    if cause in retries.on and tried < retries.limit:
        return Decision(JobState.RETRYING, min(retries.backoff_s * 2**tried, retries.max_backoff_s))
    return Decision(_ENDS[outcome])
