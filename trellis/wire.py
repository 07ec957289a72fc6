"""What crosses between the control plane and a node: frozen, JSON in both directions, nothing else.

`pack` and `unpack` are exact inverses; a missing or unknown key is an error, so that two versions that do
not understand each other say so at once. Times are ISO 8601 in UTC, amounts integers in base units.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, fields, is_dataclass
from functools import cache, partial
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from trellis.vocabulary import (
    Cause,
    ExecutorKind,
    HangAction,
    Isolation,
    NetworkPolicy,
    PullPolicy,
    ReplicaState,
    Severity,
    StopReason,
)

VERSION = 1
# How long after the end of a node's lease its jobs may take to end: no job is given to another node before that.
CUT_OFF_GRACE_S = 5.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GpuGrant:
    """Part or whole of one device: `milli` of 1000."""

    index: int
    uuid: str
    milli: int


@dataclass(frozen=True, slots=True)
class SliceGrant:
    """A slice of the partitioned device `uuid`: its profile, and the memory slot that it begins at."""

    index: int
    uuid: str
    profile: str
    start: int


@dataclass(frozen=True, slots=True)
class Code:
    """A bundle that a replica runs in, which its node fetches: see `trellis.bundles.manifest`.

    `requirements` is the file of it that names the packages to run with; empty for those of the node.
    """

    digest: str
    size_bytes: int
    files: int
    requirements: str = ""


@dataclass(frozen=True, slots=True)
class StoreSource:
    """Another cluster's store, as this one's nodes reach it, and the key (hex) that signs the manifests in it."""

    url: str
    public_key: str


@dataclass(frozen=True, slots=True)
class CheckpointPlan:
    """Where a replica's checkpoints go, whose signature on them counts, and when they are made.

    `every_s` is how often one is asked for (0: never unasked); a folder that says nothing of being complete counts as
    complete when nothing in it changed for `settle_s`. `restore` are the keys of the manifests it may go on from, the
    one to try first first; `base` is the one it need not store again what that holds, "" for none. One that does not
    `saves` goes on from what another replica saves. What is `shared` the other replicas go on from too: where it can't be
    restored none of them starts. Where `source` is set these are there, and not in the store that is saved into.
    One with `must_restore` starts with what one of them holds or not at all; `fault` says why there is none.
    """

    store_url: str
    public_key: str
    every_s: int
    settle_s: int
    base: str = ""
    restore: tuple[str, ...] = ()
    saves: bool = True
    shared: bool = False
    source: StoreSource | None = None
    must_restore: bool = False
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Container:
    """The image that a replica runs in, when to fetch it, and whether what the image holds can't be written to."""

    image: str
    pull: PullPolicy = PullPolicy.MISSING
    read_only_root: bool = True


@dataclass(frozen=True, slots=True)
class ReplicaSpec:
    """All a node needs to run one replica; exactly one of `command` and `script` is set.

    `count` is how many replicas its job had when it was placed; `role` is the name of its role, "" where there is none.
    `after` are suspended replicas of the same node whose room it gets, as `<replica id>.<fence>`: they are ended first.
    `warn_signal` (such as USR1; "" for none) is sent `warn_before_s` before the time limit, and for a checkpoint.
    One that is not `leased` goes on when the node hears nothing more: its room is given to nobody until the node is back.
    `hang_action` is what becomes of one that does nothing for `hang_after_s` (0: nothing ever does).
    `debug`: the node tells more of what it does in the replica's log. `features` are the names of those that are on.
    One of a `gang` says when it is ready, and starts its program when it is told the `World`.
    """

    replica_id: str
    job_id: str
    project_id: str
    job_name: str
    attempt: int
    fence: int
    index: int
    count: int
    command: tuple[str, ...] | None
    script: str | None
    script_name: str
    arguments: tuple[str, ...]
    environment: dict[str, str]
    cpu_milli: int
    memory_bytes: int
    gpus: tuple[GpuGrant, ...]
    time_limit_s: int | None
    grace_s: int
    executor: ExecutorKind
    network: NetworkPolicy
    role: str = ""
    slices: tuple[SliceGrant, ...] = ()
    after: tuple[str, ...] = ()
    warn_signal: str = ""
    warn_before_s: int = 60
    leased: bool = True
    debug: bool = False
    hang_after_s: float = 0.0
    hang_action: HangAction = HangAction.WARN
    code: Code | None = None
    checkpoint: CheckpointPlan | None = None
    container: Container | None = None
    gang: bool = False
    features: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Restored:
    """How a replica was given what it goes on from: `key` of the manifest, "" where none was any good, and why not."""

    fence: int
    key: str
    faults: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SaveFailed:
    """That a checkpoint of a replica could not be stored, and why."""

    fence: int
    message: str


@dataclass(frozen=True, slots=True)
class Ready:
    """That a replica of a gang has all it needs, and where others reach it: `port` is kept free there, 0 for none.

    `restored` names what it goes on from; "" for nothing.
    """

    address: str
    port: int = 0
    restored: str = ""


@dataclass(frozen=True, slots=True)
class World:
    """The replicas of an attempt that begin together, told to each of their nodes when all of them are ready.

    `ranks`: of those on the node told, as `<replica id>.<fence>`. `hosts` are the addresses of all nodes, in the order of
    their first ranks. The others go by rank: the number of its node in `hosts`, the port kept for it, and of its role.
    """

    ranks: dict[str, int]
    hosts: tuple[str, ...]
    places: tuple[int, ...]
    ports: tuple[int, ...]
    roles: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """What became of a replica. `seq` counts a replica's reports from 1 under one fence.

    One that is starting, of a gang, says with `ready` that it waits for the others.
    """

    replica_id: str
    fence: int
    seq: int
    state: ReplicaState
    at: str
    cause: Cause | None = None
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    run_s: float = 0.0
    cpu_s: float = 0.0
    peak_memory_bytes: int = 0
    ready: Ready | None = None


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Whole lines of a replica's log from byte `offset` of its log file on the node.

    Each line of `text` is `<microseconds since the epoch> <o|e|s> <the line>` and ends in a newline:
    o, e, s for standard output, standard error, and the platform itself.
    """

    replica_id: str
    fence: int
    offset: int
    text: str


@dataclass(frozen=True, slots=True)
class MetricPoint:
    """One value that a job reported; `seq` counts a replica's points from 1."""

    replica_id: str
    fence: int
    seq: int
    name: str
    value: float
    step: int | None
    at: str


@dataclass(frozen=True, slots=True)
class Shipment:
    """What a node sends at once: applied in one transaction, logs and metrics before reports."""

    logs: tuple[LogChunk, ...] = ()
    metrics: tuple[MetricPoint, ...] = ()
    reports: tuple[Report, ...] = ()

    @property
    def replica_ids(self) -> Iterator[str]:
        """Of whom it speaks; some more than once."""
        yield from (chunk.replica_id for chunk in self.logs)
        yield from (point.replica_id for point in self.metrics)
        yield from (report.replica_id for report in self.reports)


@dataclass(frozen=True, slots=True)
class Receipt:
    """What of a shipment is safe now, so that the node may forget it.

    `logs`: replica id to the offset up to which the control plane has the log (send from there next).
    `metrics`, `reports`: replica id to the highest seq that is settled.
    `stale`: replicas whose fence is old or unknown: end them, and report of them no more.
    """

    logs: dict[str, int]
    metrics: dict[str, int]
    reports: dict[str, int]
    stale: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SliceDescription:
    """A slice that a partitioned device has been cut into: its profile, and the memory slot that it begins at."""

    profile: str
    start: int


@dataclass(frozen=True, slots=True)
class GpuDescription:
    """One device as the node sees it; `links` are the indexes it shares a fast interconnect with.

    A `partitioned` one (MIG) is given in slices: those of `slices`, or, where that is None, as its model allows.
    """

    index: int
    uuid: str
    model: str
    memory_bytes: int
    numa: int = 0
    links: tuple[int, ...] = ()
    partitioned: bool = False
    slices: tuple[SliceDescription, ...] | None = None


@dataclass(frozen=True, slots=True)
class NodeDescription:
    """What a node says of itself when it joins."""

    name: str
    hostname: str
    boot_id: str
    version: int
    cpu_milli: int
    memory_bytes: int
    gpus: tuple[GpuDescription, ...]
    isolation: Isolation
    isolation_detail: str
    executors: tuple[ExecutorKind, ...]
    profile: str = ""
    labels: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Welcome:
    """The answer to a node that joined. `token` signs its later calls; `queue` is the one it listens to."""

    node_id: str
    token: str
    queue: str
    broker_url: str
    heartbeat_s: float
    lease_s: float


@dataclass(frozen=True, slots=True)
class GpuReading:
    """A device's state at one moment."""

    index: int
    utilisation_percent: int
    memory_used_bytes: int
    temperature_c: int
    power_w: int
    healthy: bool = True


@dataclass(frozen=True, slots=True)
class Held:
    """A replica that the node has in hand and has not seen settled."""

    replica_id: str
    fence: int
    state: ReplicaState


@dataclass(frozen=True, slots=True)
class Finding:
    """What a health check found: `check` names it, `device` is the index of the one it is about, None for the node."""

    check: str
    severity: Severity
    message: str
    device: int | None = None


@dataclass(frozen=True, slots=True)
class Checkup:
    """The last time that a node looked at its health, and what it found; `number` counts them."""

    number: int
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class HookRun:
    """That a program of the operator's ran: which, whether it did as it should, and the beginning of what it said."""

    hook: str
    ok: bool
    output: str
    replica_id: str = ""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Sent every `heartbeat_s`, and at once when a message hints that something changed. `at` is the node's wall clock."""

    replicas: tuple[Held, ...]
    load_percent: int
    memory_used_bytes: int
    disk_free_bytes: int
    gpus: tuple[GpuReading, ...] = ()
    at: str = ""
    checkup: Checkup | None = None
    hooks: tuple[HookRun, ...] = ()


@dataclass(frozen=True, slots=True)
class Stop:
    """End this replica: TERM, after `grace_s` KILL."""

    replica_id: str
    fence: int
    reason: StopReason
    grace_s: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Have all processes of this replica stand still, or go on. One that can't be held still is to be ended instead.

    It has `checkpoint_s` to save its state before that.
    """

    replica_id: str
    fence: int
    paused: bool
    checkpoint_s: int = 0


@dataclass(frozen=True, slots=True)
class Save:
    """Have this replica save a checkpoint soon."""

    replica_id: str
    fence: int


@dataclass(frozen=True, slots=True)
class Orders:
    """The answer to a heartbeat: renews the lease for `lease_s`, says what should run, rest, not be, and who saves.

    `begin` are gangs whose replicas are all ready.
    """

    lease_s: float
    heartbeat_s: float
    launch: tuple[ReplicaSpec, ...]
    stop: tuple[Stop, ...]
    save: tuple[Save, ...] = ()
    pause: tuple[Pause, ...] = ()
    begin: tuple[World, ...] = ()


@dataclass(frozen=True, slots=True)
class HostRegistration:
    """Machines that one host speaks for, and that join together: signed with a join token."""

    nodes: tuple[NodeDescription, ...]


@dataclass(frozen=True, slots=True)
class HostWelcome:
    """The answer: one welcome each, in the same order."""

    nodes: tuple[Welcome, ...]


@dataclass(frozen=True, slots=True)
class HostHeartbeat:
    """Heartbeats of several nodes, and the token of each, in the same order."""

    tokens: tuple[str, ...]
    heartbeats: tuple[Heartbeat, ...]


@dataclass(frozen=True, slots=True)
class HostOrders:
    """The answer: orders for each, in the same order."""

    orders: tuple[Orders, ...]


@dataclass(frozen=True, slots=True)
class HostShipment:
    """What several nodes send at once; `tokens` are those of all of them."""

    tokens: tuple[str, ...]
    shipment: Shipment


def pack(value: Any) -> Any:
    """A wire value as plain JSON data."""
    if (names := _names(value.__class__)) is not None:
        return {name: pack(getattr(value, name)) for name in names}
    if isinstance(value, tuple | list):
        return [pack(item) for item in value]
    return value


def unpack(kind: type[T], data: Any) -> T:
    """The wire value that `data` stands for. Raises ValueError that names the first fault by its path."""
    wanted: Any = kind
    return _reader(wanted)(data, "")  # type: ignore[no-any-return]  # the kind decides the type at run time


@cache
def _names(kind: type) -> tuple[str, ...] | None:
    """The fields of a wire value; None for anything else."""
    return tuple(f.name for f in fields(kind)) if is_dataclass(kind) else None


@cache
def _reader(kind: Any) -> Callable[[Any, str], Any]:
    """What unpacks one kind: found out once, used for every value."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        known = _reader(next(k for k in inner if k is not type(None)))
        return lambda data, path: None if data is None else known(data, path)
    if origin is tuple:
        return partial(_unpack_list, _reader(inner[0]))
    if origin is dict:
        return partial(_unpack_object, _reader(inner[1]))
    if is_dataclass(kind):
        return partial(_unpack_dataclass, kind, {name: _reader(hint) for name, hint in get_type_hints(kind).items()})
    return partial(_unpack_scalar, kind)


def _unpack_list(reader: Callable[[Any, str], Any], data: Any, path: str) -> tuple[Any, ...]:
    if not isinstance(data, list | tuple):
        raise ValueError(f"{path or '/'} must be a list")
    return tuple(reader(item, f"{path}/{i}") for i, item in enumerate(data))


def _unpack_object(reader: Callable[[Any, str], Any], data: Any, path: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{path or '/'} must be an object")
    return {str(key): reader(item, f"{path}/{key}") for key, item in data.items()}


def _unpack_dataclass(kind: Any, readers: dict[str, Callable[[Any, str], Any]], data: Any, path: str) -> Any:
    if not isinstance(data, dict):
        raise ValueError(f"{path or '/'} must be an object")
    if unknown := data.keys() - readers.keys():
        raise ValueError(f"{path}/{min(unknown)} is not known here")
    try:
        return kind(**{key: readers[key](item, f"{path}/{key}") for key, item in data.items()})
    except TypeError as error:
        raise ValueError(f"{path or '/'} lacks a field: {error}") from error


def _unpack_scalar(kind: Any, data: Any, path: str) -> Any:
    if kind is float and type(data) is int:
        return float(data)
    if kind in (int, float, str, bool):
        if type(data) is not kind:
            raise ValueError(f"{path or '/'} must be of type {kind.__name__}")
        return data
    try:
        return kind(data)
    except ValueError as error:
        raise ValueError(f"{path or '/'} {error}") from error
