"""Shapes of what is answered about jobs."""

from marshmallow import fields

from app.http.schema import Strict
from trellis.vocabulary import Cause, GroupKind, JobState, ReplicaState


class JobResourcesSchema(Strict):
    """What each replica holds, in base units; with roles, the most that any of them does."""

    cpu_milli = fields.Integer()
    memory_bytes = fields.Integer()
    gpu_milli = fields.Integer()
    gpu_type = fields.String()
    gpu_types = fields.List(fields.String(), metadata={"description": "where several models will do"})
    mig_profile = fields.String(metadata={"description": "one slice of a device"})


class JobRoleSchema(Strict):
    """Replicas that are alike."""

    name = fields.String()
    min_replicas = fields.Integer()
    max_replicas = fields.Integer()
    resources = fields.Nested(JobResourcesSchema)


class ReplicaSchema(Strict):
    """One member of an attempt."""

    id = fields.UUID()
    index = fields.Integer()
    role = fields.String()
    node = fields.String()
    address = fields.String(metadata={"description": "where others of its job reach it; empty before it is ready"})
    state = fields.Enum(ReplicaState, by_value=True)
    exit_code = fields.Integer(allow_none=True)
    gpus = fields.List(fields.Dict())
    slices = fields.List(fields.Dict())
    started_at = fields.AwareDateTime(allow_none=True)
    ended_at = fields.AwareDateTime(allow_none=True)
    cpu_s = fields.Float()
    peak_memory_bytes = fields.Integer()


class AttemptSchema(Strict):
    """One try."""

    number = fields.Integer()
    fence = fields.Integer()
    state = fields.Enum(ReplicaState, by_value=True)
    reason = fields.String()
    started_at = fields.AwareDateTime(allow_none=True)
    ended_at = fields.AwareDateTime(allow_none=True)
    cause = fields.Enum(Cause, by_value=True, allow_none=True)
    message = fields.String()
    replicas = fields.List(fields.Nested(ReplicaSchema), metadata={"description": "by index, which is the rank"})


class JobSchema(Strict):
    """A job as it is answered; the last four only where `verbose` asks for them."""

    id = fields.UUID()
    name = fields.String()
    project_id = fields.UUID()
    project = fields.String()
    queue = fields.String()
    user = fields.String()
    state = fields.Enum(JobState, by_value=True)
    priority = fields.Integer()
    submitted_at = fields.AwareDateTime()
    started_at = fields.AwareDateTime(allow_none=True)
    ended_at = fields.AwareDateTime(allow_none=True)
    wait_s = fields.Float(allow_none=True)
    run_s = fields.Float(allow_none=True)
    attempt = fields.Integer()
    exit_code = fields.Integer(allow_none=True)
    cause = fields.Enum(Cause, by_value=True, allow_none=True)
    message = fields.String()
    why = fields.String()
    could_start = fields.Boolean(
        metadata={"description": "of a dry run: whether it could if nothing else ran; `why` says why not"}
    )
    expected_start_at = fields.AwareDateTime(allow_none=True)
    resources = fields.Nested(JobResourcesSchema)
    replicas = fields.Integer(metadata={"description": "the fewest, of all roles"})
    max_replicas = fields.Integer()
    roles = fields.List(fields.Nested(JobRoleSchema))
    constraints = fields.Dict(metadata={"description": "as submitted"})
    preemptible = fields.Boolean()
    checkpointable = fields.Boolean()
    deadline = fields.AwareDateTime(allow_none=True)
    features = fields.List(fields.String(), metadata={"description": "what is switched on for it"})
    bundle = fields.Dict(
        metadata={"description": "of the code it runs in: id, digest, size_bytes, files, requirements"}, allow_none=True
    )
    labels = fields.Dict(fields.String(), fields.String())
    retry_of = fields.UUID(allow_none=True)
    array_id = fields.UUID(allow_none=True)
    array_index = fields.Integer(allow_none=True)
    workflow_id = fields.UUID(allow_none=True)
    workflow = fields.String()
    group = fields.Nested(
        "JobGroupSchema", metadata={"description": "in a grouped list: the array or workflow that it stands for"}
    )
    version = fields.Integer()
    notes = fields.List(fields.String(), metadata={"description": "on a submission: what may not have been thought of"})
    spec = fields.Dict()
    depends_on = fields.List(fields.Dict())
    attempts = fields.List(fields.Nested(AttemptSchema))


class JobGroupSchema(Strict):
    """An array or a workflow as one: how many of its jobs are in which state."""

    id = fields.UUID()
    kind = fields.Enum(GroupKind, by_value=True)
    name = fields.String()
    project_id = fields.UUID()
    user = fields.String()
    submitted_at = fields.AwareDateTime()
    count = fields.Integer()
    states = fields.Dict(fields.String(), fields.Integer(), metadata={"example": {"running": 4, "queued": 96}})
    changed = fields.Integer(metadata={"description": "of a change: how many jobs it concerned"})


class WorkflowSchema(JobGroupSchema):
    """A workflow that was submitted, with its jobs."""

    items = fields.List(fields.Nested(JobSchema))


class JobPageSchema(Strict):
    """A page of jobs; `count` and `array_id` for a submission of many."""

    items = fields.List(fields.Nested(JobSchema))
    next_cursor = fields.String(allow_none=True)
    count = fields.Integer()
    array_id = fields.UUID(allow_none=True)


class LogLineSchema(Strict):
    """One line."""

    at = fields.String()
    stream = fields.String()
    replica = fields.Integer()
    attempt = fields.Integer()
    text = fields.String()


class LogPageSchema(Strict):
    """Lines, and where to go on."""

    lines = fields.List(fields.Nested(LogLineSchema))
    cursor = fields.String()
    more = fields.Boolean(metadata={"description": "the log goes on: ask again with this cursor"})


class EventSchema(Strict):
    """One event."""

    id = fields.Integer()
    kind = fields.String()
    at = fields.AwareDateTime()
    actor = fields.Dict()
    subject = fields.Dict()
    before = fields.String(allow_none=True)
    after = fields.String(allow_none=True)
    reason = fields.String(allow_none=True)
    data = fields.Dict()


class EventPageSchema(Strict):
    """A page of events."""

    items = fields.List(fields.Nested(EventSchema))
    next_cursor = fields.String(allow_none=True)


class BucketSchema(Strict):
    """What was measured from `at` on, in one value."""

    at = fields.AwareDateTime()
    value = fields.Float()
    count = fields.Integer(metadata={"description": "of how many values"})


class OneSeriesSchema(Strict):
    """One metric over time, oldest first; where nothing was measured there is no point."""

    name = fields.String()
    replica = fields.Integer(metadata={"description": "where each replica was asked for by itself"})
    points = fields.List(fields.Nested(BucketSchema))


class SeriesSchema(Strict):
    """Metrics over time."""

    agg = fields.String()
    resolution_s = fields.Integer()
    items = fields.List(fields.Nested(OneSeriesSchema))


class MetricsSchema(Strict):
    """The latest value of each metric, or the points of one."""

    latest = fields.Dict(fields.String(), fields.Dict())
    points = fields.List(fields.Dict())
