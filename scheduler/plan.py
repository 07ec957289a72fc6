"""What the scheduler answers: who starts where, who must go for whom, and of everybody else, why not yet."""

from dataclasses import dataclass
from enum import StrEnum

from scheduler.snapshot import Holding, JobClass, Slice


class Reason(StrEnum):
    """Why a job is not started by this plan; programs compare these, people read the message beside it."""

    QUEUE_PAUSED = "queue_paused"
    QUEUE_LIMIT = "queue_limit"
    QUOTA = "quota"
    NO_NODES = "no_nodes"
    NEVER_FITS = "never_fits"
    NO_ROOM = "no_room"
    BEHIND_HEAD = "behind_head"
    RESERVED = "reserved"
    ROOM_COMING = "room_coming"


Because = tuple[Reason, str]
"""Why, as a word for programs and as words for people."""


class EvictionKind(StrEnum):
    """Why a running job must go: for a higher priority, for the owner of what it borrowed, or to move together."""

    PREEMPT = "preempt"
    RECLAIM = "reclaim"
    CONSOLIDATE = "consolidate"


@dataclass(frozen=True, slots=True)
class ReplicaPlacement:
    """One member of a job on one node; `gpus` are pairs of device index and milli."""

    index: int
    node_id: str
    gpus: tuple[tuple[int, int], ...] = ()
    slices: tuple[Slice, ...] = ()
    role: int = 0


@dataclass(frozen=True, slots=True)
class Placement:
    """A job that starts now, whole; `reason` says in words why there."""

    job_id: str
    replicas: tuple[ReplicaPlacement, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Jobs of one class that wait, first to start first: why, in words with the nearest miss.

    `position` is the first one's place in its queue, from 1. `starts_at` is when the first may start, on the
    snapshot's clock; None where nothing allows an estimate.
    """

    job_class: JobClass
    job_ids: tuple[str, ...]
    reason: Reason
    message: str
    position: int
    starts_at: float | None = None


@dataclass(frozen=True, slots=True)
class Promise:
    """When a waiting job starts at the latest, if no limit is overrun, and on which nodes.

    `holdings`, where others make room for it (or it moves there itself), are kept for it: the next snapshot gives them
    back as the job's `owed`. A promise that a plan does not repeat is void.
    """

    job_id: str
    starts_at: float
    node_ids: tuple[str, ...]
    holdings: tuple[Holding, ...] = ()


@dataclass(frozen=True, slots=True)
class Eviction:
    """A running job that must make room for `for_job_id`; it is told, checkpoints if it can, and has `grace_s` to end."""

    job_id: str
    kind: EvictionKind
    for_job_id: str
    grace_s: float
    checkpoint: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Resize:
    """An elastic job that gets replicas more, or gives some up: `removed` are places in its holdings.

    Those removed have `grace_s` to end; `for_job_id` is who needs their room. `added` replicas come after the others.
    """

    job_id: str
    added: tuple[ReplicaPlacement, ...] = ()
    removed: tuple[int, ...] = ()
    grace_s: float = 0.0
    for_job_id: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """Every pending job of the snapshot is in exactly one of `placements` and `verdicts`."""

    placements: tuple[Placement, ...]
    verdicts: tuple[Verdict, ...]
    promises: tuple[Promise, ...] = ()
    evictions: tuple[Eviction, ...] = ()
    resizes: tuple[Resize, ...] = ()
