"""The state machines, as data. `docs/states.md` is drawn from them, and `UnitOfWork.move` obeys them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from trellis.vocabulary import (
    BackfillState,
    JobState,
    NodeState,
    PipelineRunState,
    QueueState,
    ReplicaState,
    ReservationState,
    StageState,
)


@dataclass(frozen=True, slots=True)
class Machine:
    """A noun's states, its first one, its legal moves, and which column each state stamps with the time.

    Who comes from one of `pauses` goes on with what it had begun: that stamps nothing anew.
    """

    noun: str
    initial: StrEnum
    moves: Mapping[StrEnum, frozenset[StrEnum]]
    stamps: Mapping[StrEnum, str] = field(default_factory=dict)
    pauses: frozenset[StrEnum] = frozenset()

    def stamp(self, before: StrEnum, after: StrEnum) -> str | None:
        """The column that this move stamps with the time."""
        return None if before in self.pauses and after not in self.ends else self.stamps.get(after)

    def allows(self, before: StrEnum, after: StrEnum) -> bool:
        """Whether the table has that move."""
        return after in self.moves[before]

    @property
    def ends(self) -> frozenset[StrEnum]:
        """States that nothing leaves."""
        return frozenset(state for state, after in self.moves.items() if not after)


def table(kind: type[StrEnum], text: str) -> dict[StrEnum, frozenset[StrEnum]]:
    """Read `from ...: to ...` lines; every state must have its line."""
    moves: dict[StrEnum, frozenset[StrEnum]] = {}
    for line in filter(None, (line.strip() for line in text.splitlines())):
        before, _, after = line.partition(":")
        for state in before.split():
            moves[kind(state)] = frozenset(kind(word) for word in after.split())
    if missing := set(kind) - moves.keys():
        raise ValueError(f"no line for {sorted(missing)}")
    return moves


def _ends(moves: Mapping[StrEnum, frozenset[StrEnum]]) -> dict[StrEnum, str]:
    return {state: "ended_at" for state, after in moves.items() if not after}


_JOB = table(
    JobState,
    """
    pending:       queued suspended cancelled failed timed_out
    queued:        scheduled suspended cancelled timed_out
    scheduled:     starting queued preempted cancelled timed_out lost
    starting:      running retrying preempted failed cancelled timed_out lost
    running:       checkpointing suspended preempted retrying succeeded failed cancelled timed_out lost
    checkpointing: running suspended preempted retrying succeeded failed cancelled timed_out lost
    suspended:     pending queued running retrying succeeded failed cancelled timed_out lost
    preempted retrying: queued suspended cancelled timed_out
    succeeded failed cancelled timed_out lost:
    """,
)
# One that was suspended may begin another attempt: what began when, its attempt says.
JOB = Machine(
    "job", JobState.PENDING, _JOB, {JobState.QUEUED: "queued_at", JobState.RUNNING: "started_at", **_ends(_JOB)},
    frozenset({JobState.CHECKPOINTING}),
)  # fmt: skip

_REPLICA = table(
    ReplicaState,
    """
    placed:    starting failed cancelled timed_out preempted lost
    starting:  running failed cancelled timed_out preempted lost
    running:   suspended succeeded failed cancelled timed_out preempted lost
    suspended: running succeeded failed cancelled timed_out preempted lost
    succeeded failed cancelled timed_out preempted lost:
    """,
)
_REPLICA_STAMPS = {ReplicaState.RUNNING: "started_at", **_ends(_REPLICA)}
_REPLICA_PAUSES = frozenset({ReplicaState.SUSPENDED})
REPLICA = Machine("replica", ReplicaState.PLACED, _REPLICA, _REPLICA_STAMPS, _REPLICA_PAUSES)
# An attempt is as far as its replicas are.
ATTEMPT = Machine("attempt", ReplicaState.PLACED, _REPLICA, _REPLICA_STAMPS, _REPLICA_PAUSES)

NODE = Machine(
    "node",
    NodeState.READY,
    table(
        NodeState,
        """
        ready:       cordoned draining drained quarantined unreachable
        cordoned:    ready draining drained quarantined unreachable
        draining:    ready cordoned drained quarantined unreachable
        drained:     ready cordoned draining quarantined unreachable
        quarantined: ready cordoned draining drained unreachable
        unreachable: ready cordoned draining drained quarantined lost
        lost:        ready cordoned draining drained quarantined
        """,
    ),
)
QUEUE = Machine("queue", QueueState.OPEN, table(QueueState, "open: paused\n paused: open"))

_RESERVATION = table(
    ReservationState,
    """
    planned: active ended cancelled
    active:  ended cancelled
    ended cancelled:
    """,
)
RESERVATION = Machine("reservation", ReservationState.PLANNED, _RESERVATION, _ends(_RESERVATION))

_RUN = table(
    PipelineRunState,
    """
    queued:  running cancelled
    running: succeeded failed cancelled
    succeeded failed cancelled:
    """,
)
PIPELINE_RUN = Machine(
    "pipeline_run", PipelineRunState.QUEUED, _RUN, {PipelineRunState.RUNNING: "started_at", **_ends(_RUN)}
)
_STAGE = table(
    StageState,
    """
    waiting: running reused left_out failed blocked skipped cancelled
    running: succeeded failed cancelled
    succeeded reused left_out failed blocked skipped cancelled:
    """,
)
STAGE_RUN = Machine("stage_run", StageState.WAITING, _STAGE, {StageState.RUNNING: "started_at", **_ends(_STAGE)})
BACKFILL = Machine(
    "backfill", BackfillState.RUNNING, table(BackfillState, "running: done cancelled\n done cancelled:"),
    {BackfillState.DONE: "ended_at", BackfillState.CANCELLED: "ended_at"},
)  # fmt: skip

MACHINES = {
    machine.noun: machine
    for machine in (JOB, ATTEMPT, REPLICA, NODE, QUEUE, RESERVATION, PIPELINE_RUN, STAGE_RUN, BACKFILL)
}
