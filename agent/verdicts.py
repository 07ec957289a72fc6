"""How a replica's end is told."""

from dataclasses import dataclass, replace

from agent.executors.base import Exit
from trellis.units import format_bytes
from trellis.vocabulary import Cause, ReplicaState, StopReason


@dataclass(frozen=True, slots=True)
class Verdict:
    """Why the platform ended a replica: decided before its process is gone. A silent one is not reported."""

    state: ReplicaState
    cause: Cause | None
    message: str = ""
    silent: bool = False


CANCELLED = Verdict(ReplicaState.CANCELLED, Cause.CANCELLED)
TIME_LIMIT = Verdict(ReplicaState.TIMED_OUT, Cause.TIME_LIMIT, "the time limit was reached")
NODE_STOPPED = Verdict(ReplicaState.LOST, Cause.NODE_STOPPED, "the node was stopped")
NODE_CUT_OFF = Verdict(ReplicaState.LOST, Cause.NODE_LOST, "the node heard nothing of the control plane for too long")
SUPERVISOR_GONE = Verdict(ReplicaState.LOST, Cause.NODE_LOST, "the supervisor ended without a report")
BY_REASON = {
    StopReason.CANCELLED: CANCELLED,
    StopReason.TIMED_OUT: Verdict(ReplicaState.TIMED_OUT, Cause.TIME_LIMIT, "the deadline was reached"),
    StopReason.PREEMPTED: Verdict(ReplicaState.PREEMPTED, Cause.PREEMPTED, "made way, as it was told"),
    StopReason.SURPLUS: Verdict(
        ReplicaState.PREEMPTED, Cause.PREEMPTED, "gave up its room; its job goes on without it"
    ),
    StopReason.RESIZED: Verdict(ReplicaState.PREEMPTED, Cause.RESIZED, "begins again with another number of replicas"),
    StopReason.UNMATCHED: Verdict(
        ReplicaState.FAILED, Cause.RENDEZVOUS_FAILED, "its replicas were given different checkpoints to go on from"
    ),
    StopReason.MIGRATED: Verdict(ReplicaState.PREEMPTED, Cause.MIGRATED, "moves to another node"),
    StopReason.DISPLACED: Verdict(
        ReplicaState.PREEMPTED, Cause.SUSPENDED, "was suspended, and its room went to others: a new attempt goes on"
    ),
    StopReason.STALE: Verdict(ReplicaState.LOST, Cause.NODE_LOST, silent=True),
}


def out_of_memory(limit_bytes: int) -> Verdict:
    """It held more than it asked for."""
    message = f"used more memory than the {format_bytes(limit_bytes)} it asked for"
    return Verdict(ReplicaState.FAILED, Cause.OUT_OF_MEMORY, message)


def start_failed(message: str) -> Verdict:
    """It never came to run; `message` says why."""
    return Verdict(ReplicaState.FAILED, Cause.START_FAILED, message)


def rendezvous_failed(message: str) -> Verdict:
    """The replicas of its gang did not find together; `message` says why."""
    return Verdict(ReplicaState.FAILED, Cause.RENDEZVOUS_FAILED, message)


def node_fault(message: str) -> Verdict:
    """The node could not be made ready for it; `message` says why."""
    return Verdict(ReplicaState.LOST, Cause.NODE_FAULT, message)


def hung(quiet_s: float) -> Verdict:
    """It did nothing for so long."""
    message = f"it printed nothing and used no CPU and no device for {quiet_s:.0f} s"
    return Verdict(ReplicaState.FAILED, Cause.HUNG, message)


def environment_failed(message: str) -> Verdict:
    """What its requirements ask for could not be built; `message` says why."""
    return Verdict(ReplicaState.FAILED, Cause.ENVIRONMENT_FAILED, message)


def restore_failed(message: str) -> Verdict:
    """What it was to go on from could not be restored; `message` says why."""
    return Verdict(ReplicaState.FAILED, Cause.RESTORE_FAILED, message)


def with_lost_lines(verdict: Verdict) -> Verdict:
    """The same of a replica whose last lines found no room."""
    lost = "the disk of its node was full when it ended: the end of its log is lost"
    return replace(verdict, message="; ".join(filter(None, (verdict.message, lost))))


def of_exit(ended: Exit) -> Verdict:
    """The verdict on a replica that ended by itself."""
    if ended.start_error:
        return start_failed(ended.start_error)
    if ended.fault:
        return Verdict(ReplicaState.LOST, Cause.NODE_LOST, ended.fault)
    if ended.signal is not None:
        message = "; ".join((f"ended by signal {ended.signal}", *ended.remarks))
        return Verdict(ReplicaState.FAILED, Cause.SIGNAL, message)
    if ended.code:
        message = "; ".join((f"ended with exit code {ended.code}", *ended.remarks))
        return Verdict(ReplicaState.FAILED, Cause.EXIT_CODE, message)
    return Verdict(ReplicaState.SUCCEEDED, None)
