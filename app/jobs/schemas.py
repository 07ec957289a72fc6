"""Shapes of requests and answers about jobs."""

import re
from typing import Any

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from app.http.schema import LABEL_NAME, Amount, Integer, QueryInteger, Strict, Text
from app.jobs.spec import ArraySpec, DependencySpec, JobSpec, Resources, Retries
from app.resources.gpus import gpu_type
from trellis.vocabulary import Cause, DependencyKind, ExecutorKind, JobState, NetworkPolicy, ReplicaState, Stream

LARGEST_ARRAY = 10_000
ENVIRONMENT_NAME = validate.Regexp(r"^[A-Za-z_][A-Za-z0-9_]{0,127}$", error="must be a name such as MY_VARIABLE")
FILE_NAME = validate.Regexp(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", error="must be a plain file name")
# Names with which a variable would change how the platform's own helpers or the loader behave.
RESERVED = re.compile(r"LD_.*|TRELLIS_.*|BASH_ENV|ENV|IFS|GCONV_PATH|PATH|HOME|CUDA_VISIBLE_DEVICES")
_RANGE = re.compile(r"(\d{1,7})(?:-(\d{1,7})(?::(\d{1,7}))?)?", re.ASCII)


class ResourcesSchema(Strict):
    """What each replica needs."""

    cpu_milli = Amount("milli", least=1, most=4096_000, data_key="cpus", metadata={"example": 4})
    memory_bytes = Amount("bytes", least=1 << 20, most=1 << 50, data_key="memory", metadata={"example": "16GiB"})
    gpu_milli = Amount("milli", least=0, most=1024_000, data_key="gpus", metadata={"example": 1})
    gpu_type = Text(longest=63)

    @validates_schema(skip_on_field_errors=True)
    def whole_or_share(self, data: dict[str, Any], **_: Any) -> None:
        """A share is of one device; above that only whole devices."""
        milli = data.get("gpu_milli", 0)
        if milli > 1000 and milli % 1000:
            raise ValidationError("must be whole above 1: a share is of one device", "gpus")
        if data.get("gpu_type") and not milli:
            raise ValidationError("asks for a GPU model, yet gpus is 0", "gpu_type")

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Resources:
        """Hand the rules a value, not a dictionary."""
        if "gpu_type" in data:
            data["gpu_type"] = gpu_type(data["gpu_type"])
        return Resources(**data)


class RetriesSchema(Strict):
    """When to try again."""

    limit = Integer(least=0, most=20)
    backoff_s = Amount("seconds", least=0, most=86_400)
    max_backoff_s = Amount("seconds", least=0, most=86_400)
    on = fields.List(fields.Enum(Cause, by_value=True), validate=validate.Length(max=20))

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Retries:
        """Hand the rules a value."""
        return Retries(**data | ({"on": tuple(data["on"])} if "on" in data else {}))


class DependencySchema(Strict):
    """A job to wait for."""

    job = fields.UUID(required=True)
    kind = fields.Enum(DependencyKind, by_value=True)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> DependencySpec:
        """Hand the rules a value."""
        return DependencySpec(**data)


class ArraySchema(Strict):
    """Many jobs from one submission."""

    indexes = Text(required=True, longest=1000, metadata={"example": "0-9,20-40:2"})
    max_parallel = Integer(least=0, most=LARGEST_ARRAY)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> ArraySpec:
        """Hand the rules a value."""
        return ArraySpec(parse_indexes(data.pop("indexes")), **data)


def parse_indexes(text: str) -> tuple[int, ...]:
    """`"0-3,8,10-20:5"` as sorted numbers; counted before they are made, so that a huge range costs nothing."""
    ranges: list[range] = []
    for part in text.replace(" ", "").split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValidationError("must be numbers and ranges such as 0-9,12,20-40:2", "indexes")
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if last < first or step < 1:
            raise ValidationError(f"holds the empty range {part}", "indexes")
        ranges.append(range(first, last + 1, step))
    if sum(map(len, ranges)) > LARGEST_ARRAY:
        raise ValidationError(f"holds more than {LARGEST_ARRAY} elements", "indexes")
    return tuple(sorted({index for part in ranges for index in part}))


class JobSubmitSchema(Strict):
    """A job to submit."""

    name = Text(longest=200, metadata={"example": "train"})
    project = Text(longest=63)
    queue = Text(longest=63)
    command = fields.List(Text(longest=131_072, lines=True), validate=validate.Length(1, 1000))
    script = Text(longest=1 << 20, lines=True, shortest=1)
    script_name = fields.String(validate=FILE_NAME)
    arguments = fields.List(Text(longest=131_072, lines=True), validate=validate.Length(max=1000))
    environment = fields.Dict(
        fields.String(validate=ENVIRONMENT_NAME), Text(longest=32_768, lines=True), validate=validate.Length(max=500)
    )
    resources = fields.Nested(ResourcesSchema)
    replicas = Integer(least=1, most=4096)
    priority = Integer(least=-1000, most=1000)
    time_limit_s = Amount("seconds", least=1, most=31_536_000, data_key="time_limit", allow_none=True)
    grace_s = Amount("seconds", least=0, most=3600, data_key="grace")
    deadline_at = fields.AwareDateTime(data_key="deadline", allow_none=True)
    depends_on = fields.List(fields.Nested(DependencySchema), validate=validate.Length(max=1000))
    array = fields.Nested(ArraySchema)
    retries = fields.Nested(RetriesSchema)
    labels = fields.Dict(fields.String(validate=LABEL_NAME), Text(longest=200), validate=validate.Length(max=64))
    network = fields.Enum(NetworkPolicy, by_value=True)
    executor = fields.Enum(ExecutorKind, by_value=True, validate=validate.OneOf([ExecutorKind.PROCESS]))
    dry_run = fields.Boolean(truthy={True}, falsy={False})

    @validates_schema(skip_on_field_errors=True)
    def one_program(self, data: dict[str, Any], **_: Any) -> None:
        """Exactly one way to say what runs; no reserved variable."""
        if ("command" in data) == ("script" in data):
            raise ValidationError("give exactly one of command and script", "command")
        if data.get("command", ["x"])[0].strip() == "":
            raise ValidationError({"0": ["must name a program"]}, "command")
        if "arguments" in data and "script" not in data:
            raise ValidationError("go with a script; a command carries its own", "arguments")
        reserved = {
            name: ["is set by the platform"] for name in data.get("environment", ()) if RESERVED.fullmatch(name)
        }
        if reserved:
            raise ValidationError(reserved, "environment")

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> JobSpec:
        """Hand the rules a value, not a dictionary."""
        lists = ("command", "arguments", "depends_on")
        return JobSpec(**data | {name: tuple(data[name]) for name in lists if name in data})


class BatchSchema(Strict):
    """Up to a thousand jobs, all or none."""

    jobs = fields.List(fields.Nested(JobSubmitSchema), required=True, validate=validate.Length(1, 1000))


class StatusChangeSchema(Strict):
    """What to do with a job."""

    action = fields.String(required=True, validate=validate.OneOf(["cancel", "retry"]))
    reason = Text(longest=500, load_default="")
    force = fields.Boolean(truthy={True}, falsy={False}, load_default=False)


class JobQuerySchema(Strict):
    """Filters of a list of jobs."""

    project = Text(longest=63)
    state = fields.List(fields.Enum(JobState, by_value=True))
    queue = Text(longest=63)
    user = Text(longest=200)
    name = Text(longest=200)
    label = fields.List(Text(longest=270), metadata={"example": ["team:vision"]})
    array_id = fields.UUID()
    submitted_after = fields.AwareDateTime()
    submitted_before = fields.AwareDateTime()
    started_after = fields.AwareDateTime()
    started_before = fields.AwareDateTime()
    ended_after = fields.AwareDateTime()
    ended_before = fields.AwareDateTime()
    sort = fields.String()
    limit = QueryInteger(least=1, most=500, load_default=50)
    cursor = fields.String(validate=validate.Length(max=1000))


class VerboseSchema(Strict):
    """How much to say."""

    verbose = fields.Boolean(load_default=False)


class LogQuerySchema(Strict):
    """Which lines of a log."""

    tail = QueryInteger(least=0, most=100_000)
    since = fields.AwareDateTime()
    replica = QueryInteger(least=0, most=4095)
    attempt = QueryInteger(least=1, most=1_000_000)
    stream = fields.Enum(Stream, by_value=True)
    cursor = fields.String(validate=validate.Length(max=100_000))
    follow = fields.Boolean(load_default=False)


class EventQuerySchema(Strict):
    """Which events."""

    kind = Text(longest=60)
    limit = QueryInteger(least=1, most=500, load_default=50)
    cursor = fields.String(validate=validate.Length(max=1000))


class MetricQuerySchema(Strict):
    """One series, or the latest value of each."""

    name = Text(longest=200)
    limit = QueryInteger(least=1, most=10_000, load_default=1000)


class JobResourcesSchema(Strict):
    """What each replica holds, in base units."""

    cpu_milli = fields.Integer()
    memory_bytes = fields.Integer()
    gpu_milli = fields.Integer()
    gpu_type = fields.String()


class ReplicaSchema(Strict):
    """One member of an attempt."""

    id = fields.UUID()
    index = fields.Integer()
    node = fields.String()
    state = fields.Enum(ReplicaState, by_value=True)
    exit_code = fields.Integer(allow_none=True)
    gpus = fields.List(fields.Dict())
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
    replicas = fields.List(fields.Nested(ReplicaSchema))


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
    expected_start_at = fields.AwareDateTime(allow_none=True)
    resources = fields.Nested(JobResourcesSchema)
    replicas = fields.Integer()
    labels = fields.Dict(fields.String(), fields.String())
    retry_of = fields.UUID(allow_none=True)
    array_id = fields.UUID(allow_none=True)
    array_index = fields.Integer(allow_none=True)
    version = fields.Integer()
    spec = fields.Dict()
    depends_on = fields.List(fields.Dict())
    attempts = fields.List(fields.Nested(AttemptSchema))


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


class ArtifactSchema(Strict):
    """A file that was kept."""

    id = fields.UUID()
    name = fields.String()
    size_bytes = fields.Integer()
    digest = fields.String()
    created_at = fields.AwareDateTime()
    url = fields.String()


class ArtifactListSchema(Strict):
    """The files of a job."""

    items = fields.List(fields.Nested(ArtifactSchema))
    next_cursor = fields.String(allow_none=True)


class MetricsSchema(Strict):
    """The latest value of each metric, or the points of one."""

    latest = fields.Dict(fields.String(), fields.Dict())
    points = fields.List(fields.Dict())
