"""What the scheduler is told: the cluster and its queues at one moment, in plain immutable values.

Times are seconds on any one clock (the caller's), amounts integers in base units; 1000 milli are one whole.
Values that many rows share (a `JobClass`, `Constraints`) are meant to be one object: the rules compare by identity
first.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

WHOLE = 1000
"""Milli in one whole device or CPU."""

UNLIMITED = 2**62
"""An amount nothing reaches."""

Labels = tuple[tuple[str, str], ...]
"""Pairs of key and value, sorted by key."""


class Amounts(NamedTuple):
    """What is held, asked for, or allowed at most."""

    cpu_milli: int = UNLIMITED
    memory_bytes: int = UNLIMITED
    gpu_milli: int = UNLIMITED


NO_LIMIT = Amounts()


class Operator(StrEnum):
    """How a term compares a node's label; `above` and `below` compare as numbers and hold for no text."""

    IN = "in"
    NOT_IN = "not_in"
    EXISTS = "exists"
    ABSENT = "absent"
    ABOVE = "above"
    BELOW = "below"


class Effect(StrEnum):
    """What a taint does to jobs that do not tolerate it."""

    REFUSE = "refuse"
    AVOID = "avoid"


class Strategy(StrEnum):
    """Which of the places that are allowed is the best one."""

    FIT = "fit"
    PACK = "pack"
    SPREAD = "spread"
    CHEAP = "cheap"


@dataclass(frozen=True, slots=True)
class Taint:
    """Keeps jobs away from a node unless they tolerate it."""

    key: str
    value: str = ""
    effect: Effect = Effect.REFUSE


@dataclass(frozen=True, slots=True)
class Toleration:
    """Which taints a job puts up with: `key` "" is every one, `value` None any value."""

    key: str = ""
    value: str | None = None


@dataclass(frozen=True, slots=True)
class Term:
    """A condition on one label of a node; `name`, `pool`, `gpu_model` and the topology's levels are labels too."""

    key: str
    operator: Operator
    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preference:
    """A term that is worth `weight` (1 to 100) where it holds."""

    weight: int
    term: Term


@dataclass(frozen=True, slots=True)
class Affinity:
    """Near or apart from replicas of the same project's jobs that carry all `labels`.

    `level` is "node" or one of the topology's levels; a job that matches itself spreads (or gathers) its own replicas.
    """

    labels: Labels
    level: str = "node"
    apart: bool = False
    required: bool = True


@dataclass(frozen=True, slots=True)
class Constraints:
    """Where the replicas of a job may run, and where they had better.

    `within` names a topology level that shall hold all of them: one domain if `within_required`, else as few as
    there can be; none named: anywhere. `data` are keys of what it reads: a node that `caches` more of them is better.
    A `container` runs on nodes with `containers` alone.
    """

    pool_id: str = ""
    selector: tuple[Term, ...] = ()
    tolerations: tuple[Toleration, ...] = ()
    prefers: tuple[Preference, ...] = ()
    affinities: tuple[Affinity, ...] = ()
    exclusive: bool = False
    within: str = ""
    within_required: bool = False
    strategy: Strategy = Strategy.FIT
    spot: bool = True
    min_isolation: int = 0
    data: tuple[str, ...] = ()
    container: bool = False


ANYWHERE = Constraints()


@dataclass(frozen=True, slots=True)
class Request:
    """What one replica needs.

    `gpu_milli` is a multiple of 1000 (whole devices) or less than 1000 (a share of one); `gpu_models` are those that
    will do, none named: any. `mig_profile` asks for one slice of a partitioned device instead, such as "2g.20gb".
    """

    cpu_milli: int
    memory_bytes: int
    gpu_milli: int = 0
    gpu_models: tuple[str, ...] = ()
    mig_profile: str = ""


@dataclass(frozen=True, slots=True)
class Role:
    """Replicas of a job that are alike: it starts with at least `least` of each of its roles, and may use `most`."""

    request: Request
    least: int = 1
    most: int = 1


@dataclass(frozen=True, slots=True)
class JobClass:
    """Everything that rules tell jobs apart by, but age and deadline: where one does not fit, none does.

    A `preemptible` job may be evicted for a higher priority; a `checkpointable` one goes on where it was.
    """

    project_id: str
    queue_id: str
    roles: tuple[Role, ...]
    priority: int = 0
    time_limit_s: int | None = None
    user_id: str = ""
    constraints: Constraints = ANYWHERE
    labels: Labels = ()
    preemptible: bool = True
    checkpointable: bool = False
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # Found in tables again and again, and all of it counts: worked out once.
        parts = (
            self.project_id,
            self.queue_id,
            self.roles,
            self.priority,
            self.time_limit_s,
            self.user_id,
            self.labels,
        )
        object.__setattr__(self, "_hash", hash((*parts, self.constraints, self.preemptible, self.checkpointable)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of a partitioned device: the profile's name and its first memory slot."""

    device: int
    profile: str
    start: int


@dataclass(frozen=True, slots=True)
class Holding:
    """What one replica of role number `role` holds on one node; `gpus` are pairs of device index and milli.

    `releasing_at`: the replica has been told to end while its job goes on, and has by then.
    """

    node_id: str
    cpu_milli: int
    memory_bytes: int
    gpus: tuple[tuple[int, int], ...] = ()
    slices: tuple[Slice, ...] = ()
    role: int = 0
    releasing_at: float | None = None


@dataclass(frozen=True, slots=True)
class PendingJob:
    """A job that may start now as far as its own conditions go (dependencies met, not held).

    `expected_s` is how long it is thought to run, from what is known of its owner's earlier jobs; None: as long as it
    may. `promised_at` is the start it was promised by an earlier plan, `owed` the holdings that plan promised, if it
    had others make room for them.
    """

    id: str
    submitted_at: float
    job_class: JobClass
    deadline: float | None = None
    expected_s: float | None = None
    promised_at: float | None = None
    owed: tuple[Holding, ...] = ()


@dataclass(frozen=True, slots=True)
class BlockedJob:
    """A job that waits for others (`needs`, ids) and lends them its rank; `expected_s` is its own run time."""

    id: str
    project_id: str
    priority: int
    needs: tuple[str, ...]
    deadline: float | None = None
    expected_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A job that holds something; `ends_by` is when its time limit runs out, None without one.

    `expected_by` is when it is thought to end. `checkpointed_at` is what it would go on from, None: from its start.
    `releasing_at`: it has been told to end, and has by then; `owed` are the holdings it was promised if it is to go on
    elsewhere. `preemptions` counts those behind it.
    """

    id: str
    job_class: JobClass
    holdings: tuple[Holding, ...]
    started_at: float = 0.0
    ends_by: float | None = None
    expected_by: float | None = None
    checkpointed_at: float | None = None
    releasing_at: float | None = None
    preemptions: int = 0
    owed: tuple[Holding, ...] = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A machine; amounts are what may be given away, overcommitment included.

    `gpu_milli_free[i]` is what is left of device i; `gpu_model` is "" where there is none. `gpu_links[i]` and
    `gpu_numa[i]` number the NVLink clique and the NUMA node of device i; empty where unknown. `partitioned` are the
    devices given in MIG slices (their `gpu_milli_free` is 0); into which, is known by model and `gpu_memory_bytes` (of one
    device, 0 where unknown), and if they have been cut already, by `cuts`: pairs of profile and first slot. `domains` are the names of what the node lies in, one for
    each of the snapshot's `levels`, "" where unknown. `away` is what to say of one that is not `ready`, such as "drained".
    """

    id: str
    name: str
    ready: bool
    cpu_milli: int
    memory_bytes: int
    cpu_milli_free: int
    memory_bytes_free: int
    gpu_model: str = ""
    gpu_milli_free: tuple[int, ...] = ()
    gpu_links: tuple[int, ...] = ()
    gpu_numa: tuple[int, ...] = ()
    partitioned: tuple[int, ...] = ()
    domains: tuple[str, ...] = ()
    labels: Labels = ()
    taints: tuple[Taint, ...] = ()
    pool_id: str = ""
    isolation: int = 0
    spot: bool = False
    usd_micros_hour: int = 0
    caches: frozenset[str] = frozenset()
    gpu_memory_bytes: int = 0
    cuts: tuple[tuple[str, int], ...] = ()
    containers: bool = False
    away: str = ""


@dataclass(frozen=True, slots=True)
class Queue:
    """Where jobs wait; a paused queue starts none. Policies are names in `scheduler.policies.POLICIES`.

    What its jobs hold is charged to `pool_id`, counts against `weight`, and stays within `most`.
    """

    id: str
    name: str
    paused: bool = False
    weight: int = 1
    policy: str = ""
    second_policy: str = ""
    pool_id: str = ""
    most: Amounts = NO_LIMIT
    most_running: int = UNLIMITED


@dataclass(frozen=True, slots=True)
class Pool:
    """Nodes under one quota; pools below one parent form a cohort and lend to each other.

    `nominal` is its own, None: what its nodes have. It lends at most `lends` of that and borrows at most `borrows`.
    """

    id: str
    name: str
    parent_id: str = ""
    weight: int = 1
    nominal: Amounts | None = None
    lends: Amounts = NO_LIMIT
    borrows: Amounts = NO_LIMIT


@dataclass(frozen=True, slots=True)
class Account:
    """An organisation, a project, or (id "<project>/<user>") a user in a project, in the tree of who shares with whom.

    `used` is past use, decayed, as a fraction of the cluster over the window, without that of the accounts below it,
    which counts for it as well. `most` is its quota; `name` is what messages call it.
    """

    id: str
    parent_id: str = ""
    weight: int = 1
    used: float = 0.0
    most: Amounts = NO_LIMIT
    name: str = ""


@dataclass(frozen=True, slots=True)
class Reservation:
    """A claim of one project on parts of nodes over [starts_at, ends_at); `project_id` "" is maintenance."""

    id: str
    project_id: str
    starts_at: float
    ends_at: float
    holdings: tuple[Holding, ...]


@dataclass(frozen=True, slots=True)
class Shape:
    """A popular request and how often it comes, as a weight: what free room ought to be good for."""

    request: Request
    weight: float


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything one plan is made from. `levels` names the topology's levels, widest first."""

    now: float
    nodes: tuple[Node, ...]
    queues: tuple[Queue, ...]
    pending: tuple[PendingJob, ...]
    running: tuple[RunningJob, ...] = ()
    pools: tuple[Pool, ...] = ()
    accounts: tuple[Account, ...] = ()
    reservations: tuple[Reservation, ...] = ()
    blocked: tuple[BlockedJob, ...] = ()
    shapes: tuple[Shape, ...] = ()
    levels: tuple[str, ...] = ()
