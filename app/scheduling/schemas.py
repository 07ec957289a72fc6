"""Shapes of requests about capacity outside the queues."""

from typing import Any

from marshmallow import ValidationError, fields, post_load, pre_load, validate, validates_schema

from app.core.amounts import Amounts
from app.http.constraints import Flag, WhereFields
from app.http.schema import Amount, Integer, QueryInteger, Strict, Text
from app.jobs.schemas import JobSubmitSchema, WorkflowSubmitSchema
from app.jobs.workflows import Step
from app.resources.candidates import Part
from app.resources.gpus import gpu_type
from app.scheduling.claims import AllocationSpec, ReservationSpec
from app.scheduling.dry_runs import DryRun
from app.scheduling.policy import Backfill, FairShare, Preemption, SchedulingPolicy
from app.scheduling.whatif import MoreNodes, WishSpec
from scheduler.foresight import Certainty
from trellis.vocabulary import QueueState

MOST_PARTS = 1000
AMOUNTS = frozenset(Amounts.__slots__)
PART = frozenset(Part.__slots__) - {"amounts"}


class PartFields(WhereFields):
    """What is asked for of one node, and which nodes would do."""

    cpu_milli = Amount("milli", least=1, most=4096_000, data_key="cpus", load_default=1000, metadata={"example": 4})
    memory_bytes = Amount(
        "bytes", least=1 << 20, most=1 << 50, data_key="memory", load_default=1 << 30, metadata={"example": "16GiB"}
    )
    gpu_milli = Amount("milli", least=0, most=64_000, data_key="gpus", load_default=0, metadata={"example": 1})
    gpu_type = Text(longest=63)

    @validates_schema(skip_on_field_errors=True)
    def whole_or_share(self, data: dict[str, Any], **_: Any) -> None:
        """A share is of one device; above that only whole devices."""
        milli = data["gpu_milli"]
        if milli > 1000 and milli % 1000:
            raise ValidationError("must be whole above 1: a share is of one device", "gpus")
        if data.get("gpu_type") and not milli:
            raise ValidationError("asks for a GPU model, yet gpus is 0", "gpu_type")

    @staticmethod
    def split(data: dict[str, Any]) -> dict[str, Any]:
        """The loaded body with the fields of a part made one."""
        said = {name: data[name] for name in PART if name in data}
        if "gpu_type" in said:
            said["gpu_type"] = gpu_type(said["gpu_type"])
        if "tolerates" in said:
            said["tolerates"] = tuple(said["tolerates"])
        part = Part(Amounts(**{name: data[name] for name in AMOUNTS}), **said)
        return {name: value for name, value in data.items() if name not in AMOUNTS | PART} | {"part": part}


class AllocateSchema(PartFields):
    """A part of one node, to be held now."""

    project = Text(longest=63, metadata={"description": "its name or id; your only one if left out"})
    name = Text(longest=200)
    ttl_s = Amount("seconds", least=1, most=7 * 86_400, data_key="ttl", metadata={"example": "2h"})

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> AllocationSpec:
        """Hand the rules a value, not a dictionary."""
        return AllocationSpec(**self.split(data))


class ReserveSchema(PartFields):
    """Parts of nodes, to be claimed over a window."""

    project = Text(longest=63, metadata={"description": "its name or id; your only one if left out"})
    name = Text(longest=200)
    count = Integer(least=1, most=MOST_PARTS)
    starts_at = fields.AwareDateTime(allow_none=True, metadata={"description": "now, if left out"})
    ends_at = fields.AwareDateTime(required=True)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> ReservationSpec:
        """Hand the rules a value, not a dictionary."""
        return ReservationSpec(**self.split(data))


DAY_S = 86_400


class Fraction(Amount):
    """Thousandths, said and answered as a number."""

    def __init__(self, **options: Any) -> None:
        super().__init__("milli", **options)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> float:
        return float(value) / 1000


class Seconds(Amount):
    """Whole seconds, answered as such."""

    def __init__(self, **options: Any) -> None:
        super().__init__("seconds", **options)

    def _serialize(self, value: Any, attr: str | None, obj: Any, **kwargs: Any) -> int:
        return int(value)


class FairShareSchema(Strict):
    """How past use counts."""

    window_hours = Integer(least=1, most=8760)
    decay_factor_milli = Fraction(
        least=0, most=1000, data_key="decay_factor",
        metadata={"description": "of use that lies one window back, so much counts; from 0 to 1"},
    )  # fmt: skip

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> FairShare:
        """Hand the rules a value, not a dictionary."""
        return FairShare(**data)


class PreemptionSchema(Strict):
    """When a running job may be evicted for a waiting one."""

    grace_period_s = Seconds(most=3600, data_key="grace_period")
    priority_threshold = Integer(least=1, most=2000)
    max_preemptions = Integer(least=0, most=1000)
    min_run_time_s = Seconds(most=30 * DAY_S, data_key="min_run_time")

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Preemption:
        """Hand the rules a value, not a dictionary."""
        return Preemption(**data)


class BackfillSchema(Strict):
    """Which jobs may pass a blocked one."""

    order = fields.String(validate=validate.OneOf(["queue", "shortest"]))
    reserved_heads = Integer(
        least=1, most=1000, allow_none=True, metadata={"description": "null: no job is delayed by a later one"}
    )
    use_predictions = Flag()

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Backfill:
        """Hand the rules a value, not a dictionary."""
        return Backfill(**data)


class PolicySchema(Strict):
    """How the platform schedules; what is left out is as it is by default."""

    primary_policy = Text(longest=40, metadata={"example": "priority"})
    secondary_policy = Text(longest=40, metadata={"example": "fifo"})
    enable_preemption = Flag()
    enable_backfill = Flag()
    enable_gang_scheduling = Flag()
    enable_reclaim = Flag()
    enable_consolidation = Flag()
    enable_elastic = Flag()
    scheduling_interval_ms = Fraction(
        most=600_000, data_key="scheduling_interval", metadata={"description": "seconds, at least, between two cycles"}
    )
    ageing_per_hour_milli = Fraction(
        most=1_000_000, data_key="ageing_per_hour", metadata={"description": "priority gained each hour of waiting"}
    )
    restart_cost_s = Seconds(most=DAY_S, data_key="restart_cost")
    patience_s = Seconds(
        least=1, most=366 * DAY_S, data_key="patience",
        metadata={"description": "deadline policy: when a job without a deadline is to start after it came"},
    )  # fmt: skip
    size_lead_s = Seconds(
        most=366 * DAY_S, data_key="size_lead",
        metadata={"description": "gang policy: a job of twice the size ranks as if it had come so much earlier"},
    )  # fmt: skip
    stand_back_s = Seconds(
        most=366 * DAY_S, data_key="stand_back",
        metadata={"description": "slowdown policy: a job that runs twice as long ranks as if it had come so much later"},
    )  # fmt: skip
    max_placements = Integer(least=1, most=100_000, data_key="max_placements_per_cycle")
    fair_share = fields.Nested(FairShareSchema)
    preemption = fields.Nested(PreemptionSchema)
    backfill = fields.Nested(BackfillSchema)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> SchedulingPolicy:
        """Hand the rules a value, not a dictionary."""
        return SchedulingPolicy(**data)


class PolicyQuerySchema(Strict):
    """Which version."""

    version = QueryInteger(least=0, most=2**53, metadata={"description": "the one in force, if left out"})


class PolicyVersionSchema(Strict):
    """A version of the policy, by whom and since when."""

    version = fields.Integer(attribute="number")
    actor = fields.String(attribute="actor_name")
    created_at = fields.AwareDateTime()
    policy = fields.Nested(PolicySchema, attribute="body")


class ExplainQuerySchema(Strict):
    """Before which job."""

    job = fields.UUID(metadata={"description": "only what waits before this one, and its own position"})


class HeadSchema(Strict):
    """Jobs that wait for one reason; those of projects that are not one's own without a name."""

    position = fields.Integer(metadata={"description": "of the first of them, as the scheduler ranks them, from 1"})
    count = fields.Integer()
    priority = fields.Integer()
    reason = fields.String(allow_none=True, metadata={"description": "null: the scheduler has not looked yet"})
    waiting_since = fields.AwareDateTime()
    job_id = fields.UUID(allow_none=True)
    name = fields.String(allow_none=True)
    project = fields.String(allow_none=True)
    message = fields.String(allow_none=True)
    starts_at = fields.AwareDateTime(allow_none=True)
    decided_at = fields.AwareDateTime(allow_none=True)


class QueueExplainedSchema(Strict):
    """Why the jobs of a queue wait."""

    id = fields.UUID(attribute="queue.id")
    name = fields.String(attribute="queue.name")
    state = fields.Enum(QueueState, by_value=True, attribute="queue.state")
    policy = fields.String()
    second_policy = fields.String()
    position = fields.Integer(allow_none=True, metadata={"description": "of the job that was asked about"})
    heads = fields.List(fields.Nested(HeadSchema))


class WishedJobSchema(JobSubmitSchema):
    """A job as it would be submitted; what it runs may be left out."""

    @pre_load
    def any_program(self, data: Any, **_: Any) -> Any:
        """Where it would run does not depend on what it runs."""
        said = isinstance(data, dict) and not {"command", "script", "arguments"} & data.keys()
        return data | {"command": ["true"]} if said else data


class MoreNodesSchema(Strict):
    """Nodes that are supposed to be there beside those that are."""

    like = Text(
        longest=63, shortest=1, required=True,
        metadata={"description": "a node, or a profile that some node has", "example": "gpu-1"},
    )  # fmt: skip
    count = Integer(least=1, most=MOST_PARTS)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> MoreNodes:
        """Hand the rules a value, not a dictionary."""
        return MoreNodes(**data)


class WhatIfSchema(Strict):
    """A job that somebody thinks of submitting, and what is to be supposed of the cluster."""

    job = fields.Nested(WishedJobSchema, required=True)
    copies = Integer(least=1, most=100, metadata={"description": "how many such jobs"})
    more = fields.List(fields.Nested(MoreNodesSchema), validate=validate.Length(max=20))
    without = fields.List(
        Text(longest=63), validate=validate.Length(max=MOST_PARTS),
        metadata={"description": "names of nodes, taken away with what runs there"},
    )  # fmt: skip

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> WishSpec:
        """Hand the rules a value, not a dictionary."""
        return WishSpec(**data | {name: tuple(data[name]) for name in ("more", "without") if name in data})


class PartOfGpuSchema(Strict):
    """A device, or a share of one."""

    index = fields.Integer()
    milli = fields.Integer(metadata={"description": "thousandths of it"})


class SliceSchema(Strict):
    """A slice of a partitioned device."""

    index = fields.Integer()
    profile = fields.String()


class SeatSchema(Strict):
    """Where one replica would be."""

    index = fields.Integer()
    role = fields.Integer()
    node = fields.String()
    gpus = fields.List(fields.Nested(PartOfGpuSchema))
    slices = fields.List(fields.Nested(SliceSchema))


class CopySchema(Strict):
    """What would become of one copy of the job."""

    certainty = fields.Enum(
        Certainty, by_value=True,
        metadata={"description": "now; promised: no later, if limits hold and nobody of a higher rank comes; expected: if "
                  "all take what their limits allow and nobody comes; later than was looked at; unknown; never"},
    )  # fmt: skip
    starts_at = fields.AwareDateTime(allow_none=True)
    not_before = fields.AwareDateTime(allow_none=True)
    position = fields.Integer(allow_none=True, metadata={"description": "in its queue, from 1; null: it starts now"})
    nodes = fields.List(fields.String())
    replicas = fields.List(fields.Nested(SeatSchema))
    reason = fields.String(metadata={"description": "why there"})


class BecauseSchema(Strict):
    """Why those wait that do not start now, with the nearest miss."""

    reason = fields.String()
    message = fields.String()


class DisplacedJobSchema(Strict):
    """A job of one's own that would make room."""

    job_id = fields.UUID()
    name = fields.String()
    priority = fields.Integer()
    how = fields.String(metadata={"description": "preempt, reclaim, consolidate: all of it; shrink: some replicas"})
    grace_s = fields.Float()


class DisplacedSchema(Strict):
    """Who would make room at once."""

    jobs = fields.List(fields.Nested(DisplacedJobSchema))
    others = fields.Integer(metadata={"description": "jobs of projects that are not one's own"})


class WhatIfAnswerSchema(Strict):
    """What would become of the job."""

    queue = fields.String()
    asked_at = fields.AwareDateTime()
    copies = fields.List(fields.Nested(CopySchema))
    starting_now = fields.Integer()
    could_ever_start = fields.Boolean()
    why = fields.Nested(BecauseSchema, allow_none=True)
    refused = fields.String(allow_none=True, metadata={"description": "why a quota would refuse the submission"})
    displaced = fields.Nested(DisplacedSchema)
    requeued = fields.Integer(metadata={"description": "jobs that would wait again for the nodes taken away"})


class DryRunSchema(Strict):
    """What somebody thinks of submitting: one of them, as POST /jobs, /jobs/batch and /jobs/workflows take it."""

    job = fields.Nested(JobSubmitSchema)
    jobs = fields.List(fields.Nested(JobSubmitSchema), validate=validate.Length(1, 1000))
    workflow = fields.Nested(WorkflowSubmitSchema)

    @validates_schema(skip_on_field_errors=True)
    def one_of_them(self, data: dict[str, Any], **_: Any) -> None:
        """Nothing is ignored."""
        if len(data) != 1:
            raise ValidationError("give exactly one of job, jobs and workflow", "job")
        if any(spec.array for spec in data.get("jobs", ())):
            raise ValidationError("array is not for batches: ask for it on its own, as job", "jobs")
        if "workflow" in data and any(step.spec.array for step in data["workflow"].steps):
            raise ValidationError("array is not for workflows: ask for it on its own, as job", "workflow")

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> DryRun:
        """Hand the rules a value, not a dictionary."""
        if "workflow" in data:
            return DryRun(data["workflow"].steps, "/workflow/jobs/{}")
        if "jobs" in data:
            return DryRun(tuple(Step(spec) for spec in data["jobs"]), "/jobs/{}")
        return DryRun((Step(data["job"]),), "/job")


class HeldSchema(Strict):
    """What jobs hold together if all of them run at once, with as few replicas as they start with."""

    cpu_milli = fields.Integer()
    memory_bytes = fields.Integer()
    gpu_milli = fields.Integer()
    gpu_seconds_at_most = fields.Float(allow_none=True, metadata={"description": "null where one has no time limit"})


class DryJobSchema(Strict):
    """What one submission would become: `count` jobs."""

    name = fields.String()
    project = fields.String()
    queue = fields.String()
    count = fields.Integer()
    spec = fields.Dict(metadata={"description": "as it would be stored"})
    labels = fields.Dict()
    waits_for = fields.List(fields.String(), metadata={"description": "names of the workflow, ids of jobs"})
    total = fields.Nested(HeldSchema)
    forecast = fields.Integer(
        allow_none=True,
        metadata={
            "description": "the number of its forecast; null: it waits for others, or too many kinds are before it"
        },
    )


class DryRunAnswerSchema(Strict):
    """What would happen, and has not."""

    count = fields.Integer()
    refused = fields.String(allow_none=True, metadata={"description": "why a quota would refuse all of it"})
    could_ever_start = fields.Boolean()
    total = fields.Nested(HeldSchema)
    jobs = fields.List(fields.Nested(DryJobSchema))
    forecasts = fields.List(fields.Nested(WhatIfAnswerSchema))


class StockSchema(Strict):
    """What there is, and what of it is held."""

    capacity = fields.Integer()
    held = fields.Integer()


class IdleSchema(Strict):
    """The devices of one model on nodes that are ready; those cut into slices are left out."""

    gpu_type = fields.String(attribute="model")
    nodes = fields.Integer()
    devices = fields.Integer()
    idle_milli = fields.Integer()
    whole = fields.Integer(metadata={"description": "devices of which nothing is held"})
    most_on_one_node = fields.Integer(metadata={"description": "the most of these that any node has"})
    useless_milli = fields.Integer(
        allow_none=True,
        metadata={"description": "of what is idle, what a job like those that came last could not use on the average "
                  "(its fragmentation); null: none came"},
    )  # fmt: skip


class CapacitySchema(Strict):
    """The whole cluster."""

    nodes = fields.Integer()
    nodes_ready = fields.Integer()
    cpu_milli = fields.Nested(StockSchema)
    memory_bytes = fields.Nested(StockSchema)
    gpus = fields.List(fields.Nested(IdleSchema))
