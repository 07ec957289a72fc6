"""Shapes of requests and answers about hardware."""

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from marshmallow import ValidationError, fields, post_load, validate

from app.http.amounts import AmountsSchema, LimitsSchema
from app.http.constraints import CACHE_KEY, LEVEL
from app.http.paging import PageQuery
from app.http.schema import LABEL_NAME, NAME, Amount, Integer, QueryInteger, Strict, Text
from app.resources import usage
from app.resources.cluster import ClusterSpec, NodeEntry
from app.resources.drains import DrainSpec
from app.resources.maintenance import MaintenanceSpec
from app.resources.pools import PoolSpec
from app.resources.traits import RESERVED, Taint, Traits
from trellis.vocabulary import Isolation, NodeState, QuarantinedBy, ReservationState, Severity, TaintEffect

MOST_NODES = 10_000
MOST_PARTS = 1000
LONGEST_S = 366 * 86_400
NODE_NAME = validate.Regexp(r"^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$", error="must be 1 to 63 letters, digits, '-' and '.'")
RESERVED_LEVELS = RESERVED | {"node"}


class TaintSchema(Strict):
    """Keeps jobs away that do not tolerate it."""

    key = fields.String(required=True, validate=LABEL_NAME)
    value = Text(longest=200)
    effect = fields.Enum(TaintEffect, by_value=True)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Taint:
        """Hand the rules a value, not a dictionary."""
        return Taint(**data)


class TraitFields(Strict):
    """What operators say of a node."""

    labels = fields.Dict(fields.String(validate=LABEL_NAME), Text(longest=200), validate=validate.Length(max=64))
    taints = fields.List(fields.Nested(TaintSchema), validate=validate.Length(max=32))
    domains = fields.Dict(
        fields.String(validate=LEVEL), fields.String(validate=LABEL_NAME), validate=validate.Length(max=8),
        metadata={"description": "a level of the topology, and the name of what the node lies in there"},
    )  # fmt: skip
    pool = Text(longest=63, metadata={"description": "its name; empty for none"})
    spot = fields.Boolean(truthy={True}, falsy={False}, metadata={"description": "it may be taken away at any time"})
    usd_micros_hour = Amount("usd", most=10**12, data_key="usd_per_hour", metadata={"example": 12.5})
    caches = fields.List(
        fields.String(validate=CACHE_KEY), validate=validate.Length(max=1000),
        metadata={"description": "keys of data that are near at hand there"},
    )  # fmt: skip


TRAITS = frozenset(Traits.__slots__)
TRAIT_FIELDS = TraitFields().fields


def traits_in(data: dict[str, Any]) -> Traits:
    """What of a loaded body says something of a node."""
    said = {name: value for name, value in data.items() if name in TRAITS}
    return Traits(**said | {name: tuple(said[name]) for name in ("taints", "caches") if name in said})


class NodeChangeSchema(TraitFields):
    """What shall be said of a node; what is left out stays."""

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Traits:
        """Hand the rules a value, not a dictionary."""
        return traits_in(data)


class QuarantineSchema(Strict):
    """That a node or a device is kept from work. One that the platform ordered ends by itself once all is well."""

    since = fields.AwareDateTime()
    reason = fields.String()
    by = fields.Enum(QuarantinedBy, by_value=True)
    until = fields.AwareDateTime(allow_none=True, metadata={"description": "not before"})
    good = fields.Integer(metadata={"description": "health checks in a row that found nothing"})


class QuarantineBodySchema(Strict):
    """What is not to be trusted, or is again: the node, or one of its devices."""

    reason = Text(longest=500, load_default="")
    device = Integer(least=0, most=63, load_default=None, allow_none=True, metadata={"description": "its index"})


class FindingSchema(Strict):
    """What a health check found."""

    check = fields.String()
    severity = fields.String(validate=validate.OneOf([str(one) for one in Severity]))
    message = fields.String()
    device = fields.Integer(allow_none=True)
    since = fields.String(metadata={"format": "date-time"})


class CutSchema(Strict):
    """A slice of a partitioned device: its profile, and the memory slot that it begins at."""

    profile = fields.String()
    start = fields.Integer()


class NodeEventQuerySchema(Strict):
    """How many, below which."""

    limit = QueryInteger(least=1, most=500, load_default=50)
    cursor = fields.String(validate=validate.Length(max=1000))


class NodeEventSchema(Strict):
    """Something that happened to a node."""

    id = fields.Integer()
    kind = fields.String()
    at = fields.AwareDateTime()
    actor = fields.Function(
        lambda event: {"kind": str(event.actor_kind), "id": event.actor_id and str(event.actor_id), "name": event.actor_name},
        metadata={"type": "object"},
    )  # fmt: skip
    reason = fields.Function(lambda event: event.data.get("reason"), metadata={"type": "string"})
    data = fields.Dict()


class GpuSchema(Strict):
    """A device and its last reading."""

    index = fields.Integer()
    uuid = fields.String()
    model = fields.String()
    memory_bytes = fields.Integer()
    milli_used = fields.Integer()
    numa = fields.Integer()
    links = fields.List(fields.Integer())
    partitioned = fields.Boolean(metadata={"description": "given in slices (MIG) alone"})
    slots_used = fields.List(fields.Integer(), metadata={"description": "memory slots that slices hold"})
    utilisation_percent = fields.Integer(allow_none=True)
    memory_used_bytes = fields.Integer(allow_none=True)
    temperature_c = fields.Integer(allow_none=True)
    power_w = fields.Integer(allow_none=True)
    healthy = fields.Boolean(allow_none=True)
    quarantine = fields.Nested(QuarantineSchema, allow_none=True)
    slices = fields.List(
        fields.Nested(CutSchema), metadata={"description": "how a partitioned one is cut; empty: as its model allows"}
    )


class HolderSchema(Strict):
    """A job that holds a part of the node."""

    job_id = fields.UUID(allow_none=True, metadata={"description": "null: it is held without a job"})
    name = fields.String()
    cpu_milli = fields.Integer()
    memory_bytes = fields.Integer()


class DrainSchema(Strict):
    """That a node is emptied, and how far that is."""

    asked_at = fields.AwareDateTime()
    until = fields.AwareDateTime(allow_none=True)
    migrates = fields.Boolean()
    reason = fields.String()
    reservation_id = fields.UUID(allow_none=True, metadata={"description": "the maintenance that it is for"})
    quiet_at = fields.AwareDateTime(allow_none=True, metadata={"description": "since when nothing is left there"})


class NodeSchema(Strict):
    """A node; `jobs` are those the caller may see."""

    id = fields.UUID()
    name = fields.String()
    hostname = fields.String()
    state = fields.Enum(NodeState, by_value=True)
    isolation = fields.Enum(Isolation, by_value=True)
    isolation_detail = fields.String()
    cpu_milli = fields.Integer()
    cpu_milli_used = fields.Integer()
    memory_bytes = fields.Integer()
    memory_bytes_used = fields.Integer()
    gpu_model = fields.String()
    real_cpu_milli = fields.Integer(metadata={"description": "before overcommitment"})
    real_memory_bytes = fields.Integer()
    profile = fields.String()
    labels = fields.Dict(fields.String(), fields.String())
    taints = fields.List(fields.Nested(TaintSchema))
    domains = fields.Dict(fields.String(), fields.String())
    pool = fields.String(allow_none=True)
    pool_id = fields.UUID(allow_none=True)
    spot = fields.Boolean()
    usd_per_hour = fields.Float()
    caches = fields.List(fields.String())
    cordoned_at = fields.AwareDateTime(allow_none=True)
    cordon_reason = fields.String()
    drain = fields.Nested(DrainSchema, allow_none=True)
    quarantine = fields.Nested(QuarantineSchema, allow_none=True)
    findings = fields.List(fields.Nested(FindingSchema))
    disk_free_bytes = fields.Integer(allow_none=True)
    memory_in_use_bytes = fields.Integer(allow_none=True, metadata={"description": "of the machine, whoever uses it"})
    jobs_left = fields.Integer(metadata={"description": "jobs that run or stand still there, and other holders"})
    last_seen_at = fields.AwareDateTime()
    load_percent = fields.Integer(allow_none=True)
    gpus = fields.List(fields.Nested(GpuSchema))
    jobs = fields.List(fields.Nested(HolderSchema))
    version = fields.Integer()


class NodePageSchema(Strict):
    """A page of nodes."""

    items = fields.List(fields.Nested(NodeSchema))
    next_cursor = fields.String(allow_none=True)


class NodeQuerySchema(Strict):
    """Filters of a list of nodes."""

    state = fields.List(fields.Enum(NodeState, by_value=True))
    name = fields.List(Text(longest=63), validate=validate.Length(max=100))
    gpu_type = Text(longest=63)
    label = fields.List(Text(longest=270), metadata={"description": "name:value of a label, or level:name of a domain"})
    pool = Text(longest=63)
    zone = Text(longest=63, metadata={"description": "the same as label=zone:..."})
    cluster = Text(longest=63, metadata={"description": "the same as label=cluster:..."})
    healthy = fields.Boolean(metadata={"description": "false: where a check found something, or work is kept away"})
    limit = QueryInteger(least=1, most=500, load_default=50)
    cursor = fields.String(validate=validate.Length(max=1000))
    sort = fields.String()


class DeviceSchema(Strict):
    """Part or whole of one device."""

    index = fields.Integer()
    milli = fields.Integer()


class AllocationSchema(Strict):
    """What is held of one node: by a job, or without one until `expires_at`."""

    id = fields.UUID(attribute="allocation.id")
    project_id = fields.UUID(attribute="allocation.project_id")
    job_id = fields.UUID(attribute="allocation.job_id", allow_none=True)
    name = fields.String(attribute="allocation.holder_name")
    owner = fields.String(attribute="allocation.owner_name")
    node_id = fields.UUID(attribute="allocation.node_id")
    node = fields.String()
    cpu_milli = fields.Integer(attribute="allocation.cpu_milli")
    memory_bytes = fields.Integer(attribute="allocation.memory_bytes")
    gpus = fields.List(fields.Nested(DeviceSchema))
    exclusive = fields.Boolean(attribute="allocation.exclusive")
    created_at = fields.AwareDateTime(attribute="allocation.created_at")
    expires_at = fields.AwareDateTime(attribute="allocation.expires_at", allow_none=True)
    released_at = fields.AwareDateTime(attribute="allocation.released_at", allow_none=True)


class AllocationQuerySchema(PageQuery):
    """Filters of a list of allocations."""

    project_id = fields.UUID()
    node_id = fields.UUID()
    job_id = fields.UUID()


class ForceSchema(Strict):
    """Whether to take what is somebody else's."""

    force = fields.Boolean(load_default=False)


class ReservationQuerySchema(PageQuery):
    """Filters of a list of reservations."""

    project_id = fields.UUID()
    ended = fields.Boolean(metadata={"description": "those that are over too"})


class ReservedPartSchema(Strict):
    """What of one node is claimed."""

    node_id = fields.UUID()
    node = fields.String()
    cpu_milli = fields.Integer()
    memory_bytes = fields.Integer()
    gpus = fields.List(fields.Nested(DeviceSchema))


class ReservationSchema(Strict):
    """A claim on parts of nodes over [starts_at, ends_at)."""

    id = fields.UUID()
    project_id = fields.UUID(allow_none=True)
    maintenance = fields.Boolean()
    name = fields.String()
    state = fields.Enum(ReservationState, by_value=True)
    owner = fields.String(attribute="owner_name")
    starts_at = fields.AwareDateTime()
    ends_at = fields.AwareDateTime()
    ended_at = fields.AwareDateTime(allow_none=True)
    parts = fields.List(fields.Nested(ReservedPartSchema))
    version = fields.Integer()


class JoinTokenRequestSchema(Strict):
    """A token to be made."""

    name = Text(longest=63, load_default="")
    expires_in_s = Integer(least=60, most=31_536_000, load_default=86_400)


class JoinTokenSchema(Strict):
    """A token, shown once."""

    id = fields.UUID()
    token = fields.String()
    expires_at = fields.AwareDateTime()


class OvercommitSchema(Strict):
    """How many times what is really there is given away; GPUs never are."""

    cpu_overcommit_milli = Amount("milli", least=1000, most=16_000, data_key="cpu", metadata={"example": 1.5})
    memory_overcommit_milli = Amount("milli", least=1000, most=4000, data_key="memory", metadata={"example": 1})


class PoolChangeSchema(Strict):
    """What shall change of a pool."""

    parent = Text(longest=63, metadata={"description": "the name of the pool it lies in; empty for none"})
    weight = Integer(least=1, most=1000)
    nominal = fields.Nested(LimitsSchema, metadata={"description": "its own; what is left out is what its nodes have"})
    lends = fields.Nested(LimitsSchema, metadata={"description": "at most so much of its own, to pools beside it"})
    borrows = fields.Nested(LimitsSchema, metadata={"description": "at most so much, from pools beside it"})
    overcommit = fields.Nested(OvercommitSchema)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Any:
        """Fields of `PoolSpec`."""
        return data | data.pop("overcommit", {})


class NamedPoolSchema(PoolChangeSchema):
    """What a cluster.yaml says of a pool."""

    name = fields.String(required=True, validate=NAME)


class NewPoolSchema(NamedPoolSchema):
    """A pool to be made."""

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> PoolSpec:
        """Hand the rules a value, not a dictionary."""
        return PoolSpec(**data | data.pop("overcommit", {}))


class KindSchema(Strict):
    """Nodes with equal hardware: what one of them has, and what is held of all."""

    gpu_model = fields.String()
    gpus = fields.Integer()
    cpu_milli = fields.Integer()
    memory_bytes = fields.Integer()
    nodes = fields.Integer()
    nodes_ready = fields.Integer()
    held = fields.Nested(AmountsSchema)


class KindsSchema(Strict):
    """The kinds of nodes, those with the most devices first."""

    items = fields.List(fields.Nested(KindSchema))


class FiguresSchema(Strict):
    """What nodes have and what is held of it, of the pool and the pools in it."""

    nodes = fields.Integer()
    nodes_ready = fields.Integer()
    capacity = fields.Nested(AmountsSchema)
    held = fields.Nested(AmountsSchema)
    allocations = fields.Integer()
    running = fields.Integer(metadata={"description": "jobs that hold something"})
    pending = fields.Integer(metadata={"description": "jobs that wait in queues of the pool"})


class PoolSchema(Strict):
    """A pool, what it has and what is held of it."""

    id = fields.UUID(attribute="pool.id")
    name = fields.String(attribute="pool.name")
    parent_id = fields.UUID(attribute="pool.parent_id", allow_none=True)
    parent = fields.String()
    weight = fields.Integer(attribute="pool.weight")
    nominal = fields.Nested(AmountsSchema, attribute="pool.nominal")
    lends = fields.Nested(AmountsSchema, attribute="pool.lends")
    borrows = fields.Nested(AmountsSchema, attribute="pool.borrows")
    overcommit = fields.Function(
        lambda report: {
            "cpu": report.pool.cpu_overcommit_milli / 1000, "memory": report.pool.memory_overcommit_milli / 1000,
        },
        metadata={"type": "object", "additionalProperties": {"type": "number"}},
    )  # fmt: skip
    figures = fields.Nested(FiguresSchema)
    utilisation = fields.Dict(fields.String(), fields.Float(allow_none=True))
    version = fields.Integer(attribute="pool.version")


def distinct_levels(levels: list[str]) -> None:
    """No level twice, and none that is called as what the scheduler knows a node by."""
    if len(set(levels)) < len(levels) or RESERVED_LEVELS & set(levels):
        raise ValidationError(f"must be distinct, and none of {', '.join(sorted(RESERVED_LEVELS))}")


def levels_field(**options: Any) -> fields.Field[Any]:
    """Levels of the topology, widest first."""
    checks: list[Callable[[Any], Any]] = [validate.Length(max=8), distinct_levels]
    return fields.List(
        fields.String(validate=LEVEL), validate=checks, metadata={"example": ["zone", "rack"]}, **options
    )


class TopologySchema(Strict):
    """The levels of the topology, widest first."""

    levels = levels_field(required=True)


class HardwareFields(Strict):
    """What a cluster.yaml tells `trellis up` of a machine; of one that has joined, the machine itself says it."""

    name = fields.String(required=True, validate=NODE_NAME)
    count = Integer(least=1, most=MOST_NODES, load_default=1)
    gpus = Integer(least=0, most=64)
    gpu_type = Text(longest=63)
    gpu_memory_gb = Integer(least=0, most=4096)
    partitioned = Integer(least=0, most=64, metadata={"description": "so many of its gpus are given in slices (MIG)"})
    cpu_cores = Integer(least=0, most=4096)
    memory_gb = Integer(least=0, most=1 << 20)
    numa_nodes = Integer(least=0, most=64)
    gpus_a_link = Integer(least=0, most=64)
    rack_of = Integer(least=0, most=MOST_NODES, load_default=0, metadata={"description": "so many lie in one rack"})


class ClusterNodeSchema(HardwareFields, TraitFields):
    """One node of a cluster.yaml, or `count` of them, numbered."""


class ClusterPartSchema(Strict):
    """One cluster of a cluster.yaml; its labels, domains and pool are those of all its nodes that do not say otherwise."""

    name = Text(longest=63)
    labels = TRAIT_FIELDS["labels"]
    domains = TRAIT_FIELDS["domains"]
    pool = TRAIT_FIELDS["pool"]
    nodes = fields.List(fields.Nested(ClusterNodeSchema), required=True, validate=validate.Length(max=MOST_NODES))


class MaintenanceSchema(Strict):
    """Whole nodes, to be free for work on them."""

    nodes = fields.List(
        Text(longest=63), required=True, validate=validate.Length(1, MOST_PARTS), metadata={"description": "names"}
    )
    name = Text(longest=200)
    starts_at = fields.AwareDateTime(allow_none=True, metadata={"description": "now, if left out"})
    ends_at = fields.AwareDateTime(required=True)
    drain_within_s = Amount(
        "seconds", most=LONGEST_S, allow_none=True, data_key="drain_within",
        metadata={"description": "for jobs that can't go on elsewhere, once it has begun; null: as long as they take"},
    )  # fmt: skip

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> MaintenanceSpec:
        """Hand the rules a value, not a dictionary."""
        return MaintenanceSpec(**data | {"nodes": tuple(dict.fromkeys(data["nodes"]))})


class DrainBodySchema(Strict):
    """How a node is to be emptied."""

    reason = Text(longest=500)
    deadline_s = Amount(
        "seconds", most=LONGEST_S, allow_none=True, data_key="deadline", metadata={
            "description": "for jobs that can't go on elsewhere; null: as long as they take", "example": "30m",
        },
    )  # fmt: skip
    migrate = fields.Boolean(
        truthy={True}, falsy={False},
        metadata={"description": "false: jobs that can go on elsewhere are moved at the deadline, not at once"},
    )  # fmt: skip

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> DrainSpec:
        """Hand the rules a value, not a dictionary."""
        return DrainSpec(**data)


class ClusterSchema(Strict):
    """A cluster.yaml as JSON; of pools and nodes only what it says is changed."""

    levels = levels_field()
    pools = fields.List(fields.Nested(NamedPoolSchema), validate=validate.Length(max=1000))
    clusters = fields.List(fields.Nested(ClusterPartSchema), validate=validate.Length(max=1000))
    maintenance = fields.List(fields.Nested(MaintenanceSchema), validate=validate.Length(max=1000))

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> ClusterSpec:
        """One entry a node, its cluster's words merged in. Raises for a name that comes twice."""
        parts = enumerate(data.get("clusters", ()))
        nodes = [entry for number, part in parts for entry in _entries(part, f"/clusters/{number}")]
        names = [entry.name for entry in nodes] + [pool["name"] for pool in data.get("pools", ())]
        if len(nodes) > MOST_NODES:
            raise ValidationError(f"holds more than {MOST_NODES} nodes", "clusters")
        for kind, named in (("clusters", names[: len(nodes)]), ("pools", names[len(nodes) :])):
            if twice := [name for name, times in Counter(named).items() if times > 1]:
                raise ValidationError(f"names {min(twice)} twice", kind)
        levels = tuple(data["levels"]) if "levels" in data else None
        pools = [(pool.pop("name"), pool) for pool in data.get("pools", ())]
        return ClusterSpec(levels, pools, nodes, data.get("maintenance", ()))


def _entries(part: dict[str, Any], pointer: str) -> Iterator[NodeEntry]:
    for number, node in enumerate(part["nodes"]):
        said = {"pool": part["pool"]} if "pool" in part else {}
        said |= {name: value for name, value in node.items() if name in TRAITS}
        for name in ("labels", "domains"):
            if name in part or name in node:
                said[name] = {**part.get(name, {}), **node.get(name, {})}
        names = [node["name"]] if node["count"] == 1 else [f"{node['name']}-{i}" for i in range(1, node["count"] + 1)]
        for place, name in enumerate(names):
            if node["rack_of"]:
                rack = f"{node['name']}-rack-{place // node['rack_of'] + 1}"
                said["domains"] = {**said.get("domains", {}), "rack": rack}
            yield NodeEntry(name, f"{pointer}/nodes/{number}", traits_in(said))


class AppliedSchema(Strict):
    """What a cluster.yaml changed, by name."""

    pools = fields.List(fields.String())
    nodes = fields.List(fields.String())
    missing = fields.List(fields.String(), metadata={"description": "nodes that have not joined yet"})


class UsageQuerySchema(Strict):
    """Over which time, in which pieces, and apart by what."""

    since = fields.AwareDateTime(data_key="from")
    last_s = Amount(
        "seconds", least=1, most=LONGEST_S, data_key="last", load_default=7 * 86_400,
        metadata={"description": "in place of `from`: so long before `to`", "example": "7d"},
    )  # fmt: skip
    until = fields.AwareDateTime(data_key="to", metadata={"description": "now, if left out"})
    bucket_s = Amount("seconds", least=60, most=LONGEST_S, data_key="bucket", metadata={"example": "1d"})
    by = fields.List(
        fields.String(validate=validate.OneOf(usage.KEYS)), load_default=[],
        metadata={"description": "may be given again"},
    )  # fmt: skip
    project_id = fields.UUID()

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> usage.UsageQuery:
        """Hand the rules a value, not a dictionary."""
        return usage.UsageQuery(**data | {"by": tuple(data["by"])})


class UsedSchema(Strict):
    """What was held from `starts_at` on, for the length of a bucket; keys that were not asked for are null."""

    starts_at = fields.AwareDateTime()
    project = fields.String(allow_none=True)
    user = fields.String(allow_none=True)
    queue = fields.String(allow_none=True)
    gpu_type = fields.String(allow_none=True)
    cpu_hours = fields.Float()
    memory_gib_hours = fields.Float()
    gpu_hours = fields.Float()
    idle_gpu_hours = fields.Float(metadata={"description": "of those in which the device did nothing"})
    jobs = fields.Integer()


class UsageReportSchema(Strict):
    """Who held what, over which time."""

    since = fields.AwareDateTime(data_key="from")
    until = fields.AwareDateTime(data_key="to")
    items = fields.List(fields.Nested(UsedSchema))
