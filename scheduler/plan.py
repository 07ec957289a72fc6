"""What the scheduler answers: who starts where, and of everybody else, why not yet."""

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Why a job is not started by this plan; programs compare these, people read the message beside it."""

    QUEUE_PAUSED = "queue_paused"
    NO_NODES = "no_nodes"
    NEVER_FITS = "never_fits"
    NO_ROOM = "no_room"
    BEHIND_HEAD = "behind_head"


@dataclass(frozen=True, slots=True)
class ReplicaPlacement:
    """One member of a job on one node; `gpus` are pairs of device index and milli."""

    index: int
    node_id: str
    gpus: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Placement:
    """A job that starts now, whole; `reason` says in words why there."""

    job_id: str
    replicas: tuple[ReplicaPlacement, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """A job that waits: why, in words with the nearest miss; its place in its queue, from 1; and when it may start.

    `starts_at` is on the snapshot's clock, None where nothing allows an estimate.
    """

    job_id: str
    reason: Reason
    message: str
    position: int
    starts_at: float | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Every pending job of the snapshot is in exactly one of the two."""

    placements: tuple[Placement, ...]
    verdicts: tuple[Verdict, ...]
