"""What the scheduler is told: the cluster and its queues at one moment, in plain immutable values.

Times are seconds on any one clock (the caller's), amounts integers in base units; 1000 milli are one whole.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

WHOLE = 1000
"""Milli in one whole device or CPU."""


@dataclass(frozen=True, slots=True)
class Node:
    """A machine. `gpu_milli_free[i]` is what is left of device i; `gpu_model` is "" where there is none."""

    id: str
    name: str
    ready: bool
    cpu_milli: int
    memory_bytes: int
    cpu_milli_free: int
    memory_bytes_free: int
    gpu_model: str = ""
    gpu_milli_free: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """What each of `replicas` members needs; they start together or not at all.

    `gpu_milli` is a multiple of 1000 (whole devices) or less than 1000 (a share of one).
    """

    cpu_milli: int
    memory_bytes: int
    gpu_milli: int = 0
    gpu_model: str = ""
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class PendingJob:
    """A job that may start now as far as its own conditions go (dependencies met, not held)."""

    id: str
    project_id: str
    queue_id: str
    priority: int
    submitted_at: float
    request: Request
    time_limit_s: int | None = None


@dataclass(frozen=True, slots=True)
class Holding:
    """What one replica holds on one node; `gpus` are pairs of device index and milli."""

    node_id: str
    cpu_milli: int
    memory_bytes: int
    gpus: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that holds something; `ends_by` is when its time limit runs out, None without one.

    What a queue's jobs hold counts against its weight; "" where the queue is gone.
    """

    id: str
    project_id: str
    holdings: tuple[Holding, ...]
    ends_by: float | None = None
    queue_id: str = ""


@dataclass(frozen=True, slots=True)
class Queue:
    """Where jobs wait; a paused queue starts none. `policy` is a name in `scheduler.policies.POLICIES`."""

    id: str
    name: str
    paused: bool = False
    weight: int = 1
    policy: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one plan is made from. `usage` is a project's decayed use as a fraction of the cluster."""

    now: float
    nodes: tuple[Node, ...]
    queues: tuple[Queue, ...]
    pending: tuple[PendingJob, ...]
    running: tuple[RunningJob, ...] = ()
    usage: Mapping[str, float] = field(default_factory=dict)
