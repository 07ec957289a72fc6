"""What is answered about who may hold what: pools, allocations, reservations, quotas, the order of a queue."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trellis.answers import Answer


@dataclass(frozen=True, kw_only=True)
class Have(Answer):
    """So much of each; None in a limit is none."""

    cpu_milli: int | None = None
    memory_bytes: int | None = None
    gpu_milli: int | None = None


@dataclass(frozen=True, kw_only=True)
class Figures(Answer):
    """What the nodes of a pool, and of the pools in it, have and what is held of it."""

    nodes: int = 0
    nodes_ready: int = 0
    capacity: Have = field(default_factory=Have)
    held: Have = field(default_factory=Have)
    allocations: int = 0
    running: int = 0
    pending: int = 0


@dataclass(frozen=True, kw_only=True)
class Pool(Answer):
    """Nodes under one quota."""

    id: str = ""
    name: str = ""
    parent: str = ""
    weight: int = 1
    nominal: Have = field(default_factory=Have)
    lends: Have = field(default_factory=Have)
    borrows: Have = field(default_factory=Have)
    overcommit: Mapping[str, float] = field(default_factory=dict)
    figures: Figures = field(default_factory=Figures)
    utilisation: Mapping[str, float | None] = field(default_factory=dict)
    version: int = 0


@dataclass(frozen=True, kw_only=True)
class Allocation(Answer):
    """What is held of one node: by a job, or without one until `expires_at`."""

    id: str = ""
    project_id: str = ""
    job_id: str | None = None
    name: str = ""
    owner: str = ""
    node_id: str = ""
    node: str = ""
    cpu_milli: int = 0
    memory_bytes: int = 0
    gpus: tuple[Mapping[str, int], ...] = ()
    exclusive: bool = False
    created_at: datetime | None = None
    expires_at: datetime | None = None
    released_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Reserved(Answer):
    """What of one node a reservation claims."""

    node_id: str = ""
    node: str = ""
    cpu_milli: int = 0
    memory_bytes: int = 0
    gpus: tuple[Mapping[str, int], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Reservation(Answer):
    """A claim on parts of nodes over a window; without a project it is maintenance."""

    id: str = ""
    project_id: str | None = None
    maintenance: bool = False
    name: str = ""
    state: str = ""
    owner: str = ""
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    parts: tuple[Reserved, ...] = ()
    version: int = 0


@dataclass(frozen=True, kw_only=True)
class Used(Answer):
    """What is held at once, and jobs that have not ended."""

    held: Have = field(default_factory=Have)
    jobs: int = 0


@dataclass(frozen=True, kw_only=True)
class Quota(Answer):
    """How much may be had; `most` is what may be held at once now."""

    hard: Have = field(default_factory=Have)
    hard_jobs: int | None = None
    soft: Have = field(default_factory=Have)
    soft_jobs: int | None = None
    burst: Have = field(default_factory=Have)
    burst_for_s: int = 0
    burst_every_s: int = 0
    most: Have = field(default_factory=Have)
    usage: Used = field(default_factory=Used)
    burst_until: datetime | None = None
    soft_exceeded_at: datetime | None = None
    version: int = 0


@dataclass(frozen=True, kw_only=True)
class Applied(Answer):
    """What a cluster.yaml changed, by name; `missing` are nodes that have not joined yet."""

    pools: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PolicyVersion(Answer):
    """A version of the scheduling policy."""

    version: int = 0
    actor: str = ""
    created_at: datetime | None = None
    policy: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Head(Answer):
    """`count` jobs that wait for one reason; those of other projects have no name."""

    position: int = 0
    count: int = 0
    priority: int = 0
    reason: str | None = None
    waiting_since: datetime | None = None
    job_id: str | None = None
    name: str | None = None
    project: str | None = None
    message: str | None = None
    starts_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class QueueOrder(Answer):
    """In which order the jobs of a queue wait, and why; `position` is that of the job that was asked about."""

    id: str = ""
    name: str = ""
    state: str = ""
    policy: str = ""
    second_policy: str = ""
    position: int | None = None
    heads: tuple[Head, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Stock(Answer):
    """So much there is, and so much of it is held."""

    capacity: int = 0
    held: int = 0


@dataclass(frozen=True, kw_only=True)
class IdleGpus(Answer):
    """Devices of one model: `whole` are wholly idle; of `idle_milli` jobs such as came last could not use
    `useless_milli` on the average (None: none came).
    """

    gpu_type: str = ""
    nodes: int = 0
    devices: int = 0
    idle_milli: int = 0
    whole: int = 0
    most_on_one_node: int = 0
    useless_milli: int | None = None


@dataclass(frozen=True, kw_only=True)
class Capacity(Answer):
    """The whole cluster."""

    nodes: int = 0
    nodes_ready: int = 0
    cpu_milli: Stock = field(default_factory=Stock)
    memory_bytes: Stock = field(default_factory=Stock)
    gpus: tuple[IdleGpus, ...] = ()


@dataclass(frozen=True, kw_only=True)
class UsedThen(Answer):
    """What was held from `starts_at` on; `idle_gpu_hours` are those of `gpu_hours` in which devices did nothing."""

    starts_at: datetime | None = None
    project: str | None = None
    user: str | None = None
    queue: str | None = None
    gpu_type: str | None = None
    cpu_hours: float = 0.0
    memory_gib_hours: float = 0.0
    gpu_hours: float = 0.0
    idle_gpu_hours: float = 0.0
    jobs: int = 0


@dataclass(frozen=True, kw_only=True)
class Usage(Answer):
    """What was held over a time."""

    items: tuple[UsedThen, ...] = ()
