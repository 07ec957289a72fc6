"""Shapes of what is submitted: jobs, batches, arrays, workflows."""

import re
from typing import Any

from marshmallow import ValidationError, fields, post_load, validate, validates_schema

from app.http.constraints import ConstraintsSchema, Flag
from app.http.schema import LABEL_NAME, Amount, Integer, Strict, Text
from app.jobs.spec import (
    ArraySpec,
    CheckpointSpec,
    CodeSpec,
    DependencySpec,
    JobSpec,
    Resources,
    Retries,
    RetryRule,
    RoleSpec,
)
from app.jobs.workflows import Step, WorkflowSpec
from app.resources.gpus import gpu_type
from app.storage.retention import Keep
from scheduler.placement.mig import profiles
from trellis.features import FEATURES
from trellis.vocabulary import (
    Cause,
    CheckpointBy,
    DependencyKind,
    ExecutorKind,
    HangAction,
    MetricMode,
    NetworkPolicy,
    OnNodeLost,
    OnReplicaFailure,
    OnResize,
    PullPolicy,
    WarnSignal,
)

LARGEST_ARRAY = 10_000
MOST_REPLICAS = 4096
MOST_ROLES = 16
ROLE_NAME = validate.Regexp(r"^[a-z][a-z0-9-]{0,62}$", error="must be 1 to 63 of a-z, 0-9 and '-', a letter first")
ENVIRONMENT_NAME = validate.Regexp(r"^[A-Za-z_][A-Za-z0-9_]{0,127}$", error="must be a name such as MY_VARIABLE")
FILE_NAME = validate.Regexp(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", error="must be a plain file name")
# Names with which a variable would change how the platform's own helpers or the loader behave.
RESERVED = re.compile(r"LD_.*|TRELLIS_.*|BASH_ENV|ENV|IFS|GCONV_PATH|PATH|HOME|CUDA_VISIBLE_DEVICES")
# The grammar of references that engines read: nothing in it is a path of the host's, an option, or, as Podman reads what
# looks like a name and a tag, another place to fetch from.
_TRANSPORT = r"(?:atomic|containers-storage|dir|docker(?:-archive|-daemon)?|oci(?:-archive)?|ostree|sif|tarball)"
_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*(?::[0-9]{{1,5}})?"
_TAG = r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
IMAGE = re.compile(rf"(?!{_TRANSPORT}:)(?:{_HOST}/)?{_PART}(?:/{_PART})*{_TAG}\Z")
# And those by which replicas of one job find each other: in a job of one replica they are its own.
OF_GANGS = re.compile(
    r"RANK|WORLD_SIZE|MASTER_ADDR|MASTER_PORT|(LOCAL|GROUP|ROLE)_(RANK|WORLD_SIZE)|NODE_RANK|ROLE_NAME|PET_.*"
    r"|(OMPI_MCA_orte|PRTE_MCA_prte)_default_hostfile|HYDRA_HOST_FILE"
)
RETRIED = frozenset(Cause) - {Cause.CANCELLED, Cause.SUSPENDED, Cause.MIGRATED, Cause.RESIZED}
_RANGE = re.compile(r"(\d{1,7})(?:-(\d{1,7})(?::(\d{1,7}))?)?", re.ASCII)


class GpuTypes(fields.Field[Any]):
    """The model of GPU that will do, or the several."""

    def __init__(self, **options: Any) -> None:
        one: dict[str, Any] = {"type": "string", "maxLength": 63}
        several = {"type": "array", "items": one, "minItems": 1, "maxItems": 16}
        super().__init__(metadata={"oneOf": [one, several], "example": ["H100", "A100"]}, **options)
        self._name = Text(longest=63, shortest=1)
        self._names = fields.List(self._name, validate=validate.Length(1, 16))

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[str, ...]:
        if isinstance(value, list):
            return tuple(sorted({gpu_type(str(name)) for name in self._names.deserialize(value, attr, data)}))
        return (gpu_type(str(self._name.deserialize(value, attr, data))),)


class ResourcesSchema(Strict):
    """What each replica needs."""

    cpu_milli = Amount("milli", least=1, most=4096_000, data_key="cpus", metadata={"example": 4})
    memory_bytes = Amount("bytes", least=1 << 20, most=1 << 50, data_key="memory", metadata={"example": "16GiB"})
    gpu_milli = Amount("milli", least=0, most=1024_000, data_key="gpus", metadata={"example": 1})
    gpu_type = GpuTypes()
    mig_profile = Text(longest=20, metadata={"description": "one slice of a device, not gpus", "example": "2g.20gb"})

    @validates_schema(skip_on_field_errors=True)
    def whole_or_share(self, data: dict[str, Any], **_: Any) -> None:
        """A share is of one device; above that only whole devices; a slice is asked for by itself."""
        milli, profile = data.get("gpu_milli", 0), data.get("mig_profile", "")
        if milli > 1000 and milli % 1000:
            raise ValidationError("must be whole above 1: a share is of one device", "gpus")
        if profile and profile not in profiles():
            raise ValidationError(f"is no MIG profile; there are {', '.join(sorted(profiles()))}", "mig_profile")
        if profile and milli:
            raise ValidationError("asks for a slice of a device, yet gpus for devices: give one of them", "mig_profile")
        if data.get("gpu_type") and not (milli or profile):
            raise ValidationError("asks for a GPU model, yet gpus is 0", "gpu_type")

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Resources:
        """Hand the rules a value, not a dictionary."""
        models = data.pop("gpu_type", ())
        several = {"gpu_types": models} if len(models) > 1 else {"gpu_type": "".join(models)}
        return Resources(**data, **several)


class Image(fields.String):
    """A container's image: its name with a registry before it, a tag or a digest behind it, or both."""

    def __init__(self, metadata: dict[str, Any] | None = None) -> None:
        said = {"example": "docker.io/library/python:3.12-slim", **(metadata or {})}
        shape = validate.Regexp(
            IMAGE, error="must be such as python:3.12, registry.example/team/tool:1 or tool@sha256:…"
        )
        super().__init__(validate=[validate.Length(1, 512), shape], metadata=said)


class SecuritySchema(Strict):
    """What of a container's keeping in is not as always; nothing gives a job rights."""

    read_only_root = Flag(metadata={"description": "whether what the image holds can't be written to"})


def known_features(wished: dict[str, bool]) -> None:
    """Nobody is to believe that something is on which is not there."""
    unknown = {name: [f"is no feature; there are {', '.join(FEATURES)}"] for name in wished if name not in FEATURES}
    if unknown:
        raise ValidationError(unknown)


class ReplicaFields(Strict):
    """How many replicas alike."""

    replicas = Integer(least=1, most=MOST_REPLICAS)
    min_replicas = Integer(least=1, most=MOST_REPLICAS, metadata={"description": "the fewest that it starts with"})
    max_replicas = Integer(least=1, most=MOST_REPLICAS, metadata={"description": "so many where there is room"})

    @validates_schema(skip_on_field_errors=True)
    def one_count(self, data: dict[str, Any], **_: Any) -> None:
        """Either so many, or from so many to so many."""
        if "replicas" in data and data.keys() & {"min_replicas", "max_replicas"}:
            raise ValidationError(
                "says how many; min_replicas and max_replicas say from how many to how many", "replicas"
            )
        if "min_replicas" in data and "max_replicas" not in data:
            raise ValidationError("is missing: min_replicas alone is `replicas`", "max_replicas")
        if data.get("max_replicas", MOST_REPLICAS) < data.get("min_replicas", 1):
            raise ValidationError("is less than min_replicas", "max_replicas")

    @staticmethod
    def counted(data: dict[str, Any]) -> dict[str, Any]:
        """The loaded body with the fewest as `replicas`."""
        fewest = data.pop("min_replicas", 1 if "max_replicas" in data else None)
        return data if fewest is None else data | {"replicas": fewest}


class ReplicaRoleSchema(ReplicaFields):
    """Replicas of a job that are alike."""

    name = fields.String(required=True, validate=ROLE_NAME, metadata={"example": "worker"})
    resources = fields.Nested(ResourcesSchema)
    command = fields.List(Text(longest=131_072, lines=True), validate=validate.Length(1, 1000))
    image = Image(metadata={"description": "in place of the job's"})

    @validates_schema(skip_on_field_errors=True)
    def a_program(self, data: dict[str, Any], **_: Any) -> None:
        """What runs, where the role says it."""
        if data.get("command", ["x"])[0].strip() == "":
            raise ValidationError({"0": ["must name a program"]}, "command")

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> RoleSpec:
        """Hand the rules a value, not a dictionary."""
        if "command" in data:
            data["command"] = tuple(data["command"])
        return RoleSpec(**self.counted(data))


class RetryRuleFields(Strict):
    """How often, and after which pauses."""

    limit = Integer(least=0, most=20)
    backoff_s = Amount("seconds", least=0, most=86_400)
    max_backoff_s = Amount("seconds", least=0, most=86_400)
    backoff_factor = Integer(least=1, most=10, metadata={"description": "each pause is so many times the one before"})
    jitter_percent = Integer(least=0, most=100, metadata={"description": "so much of a pause more or less"})


class RetryRuleSchema(RetryRuleFields):
    """When to try again after one cause."""

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> RetryRule:
        """Hand the rules a value."""
        return RetryRule(**data)


class RetriesSchema(RetryRuleFields):
    """When to try again."""

    on = fields.List(fields.Enum(Cause, by_value=True), validate=validate.Length(max=20))
    exit_codes = fields.List(
        Integer(least=1, most=255), validate=validate.Length(1, 255),
        metadata={"description": "of exit codes, these alone are tried again"},
    )  # fmt: skip
    by_cause = fields.Dict(
        fields.String(validate=validate.OneOf([str(cause) for cause in RETRIED])), fields.Nested(RetryRuleSchema),
        metadata={"description": "rules of their own, which count their own tries", "example": {"out_of_memory": {"limit": 1}}},
    )  # fmt: skip

    @validates_schema(skip_on_field_errors=True)
    def sensible(self, data: dict[str, Any], **_: Any) -> None:
        """Nobody tries again what was ended on purpose."""
        if on_purpose := [str(cause) for cause in data.get("on", ()) if cause not in RETRIED]:
            raise ValidationError(f"names {on_purpose[0]}, which is never tried again by itself", "on")

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Retries:
        """Hand the rules a value."""
        lists: dict[str, Any] = {name: tuple(data[name]) for name in ("on", "exit_codes") if name in data}
        lists["by_cause"] = tuple((Cause(word), rule) for word, rule in data.get("by_cause", {}).items())
        return Retries(**data | lists)


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


def parse_indexes(text: str, name: str = "indexes") -> tuple[int, ...]:
    """`"0-3,8,10-20:5"` as sorted numbers; counted before they are made, so that a huge range costs nothing."""
    ranges: list[range] = []
    for part in text.replace(" ", "").split(","):
        match = _RANGE.fullmatch(part)
        if match is None:
            raise ValidationError("must be numbers and ranges such as 0-9,12,20-40:2", name)
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        if last < first or step < 1:
            raise ValidationError(f"holds the empty range {part}", name)
        ranges.append(range(first, last + 1, step))
    if sum(map(len, ranges)) > LARGEST_ARRAY:
        raise ValidationError(f"holds more than {LARGEST_ARRAY} elements", name)
    return tuple(sorted({index for part in ranges for index in part}))


class KeepSchema(Strict):
    """What of a replica's checkpoints is kept; each may keep some that the others would not."""

    last = Integer(least=1, most=1000, metadata={"description": "the newest"})
    hours = Integer(least=0, most=8760, metadata={"description": "the first of each hour, for so many hours"})
    best = Integer(least=0, most=1000, metadata={"description": "the best by `metric`"})
    metric = Text(longest=200, shortest=1)
    mode = fields.Enum(MetricMode, by_value=True)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> Keep:
        """Hand the rules a value."""
        if bool(data.get("best")) != bool(data.get("metric")):
            raise ValidationError("go together: the best by which metric, and how many", "best")
        return Keep(**data)


class CheckpointSchema(Strict):
    """When checkpoints are made, and which are kept."""

    every_s = Amount("seconds", least=0, most=31_536_000, data_key="every", metadata={"example": "10m"})
    settle_s = Amount("seconds", least=1, most=3600, data_key="settle", metadata={"example": 5})
    keep = fields.Nested(KeepSchema)
    by = fields.Enum(
        CheckpointBy, by_value=True,
        metadata={"description": "of several replicas: the first one saves, all save a part, or each goes on by itself"},
    )  # fmt: skip
    fresh_start = Flag(
        metadata={"description": "where `from_checkpoint` can't be restored it starts without it, in place of failing"}
    )

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> CheckpointSpec:
        """Hand the rules a value."""
        return CheckpointSpec(**data)


class JobSubmitSchema(ReplicaFields):
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
    roles = fields.List(
        fields.Nested(ReplicaRoleSchema), validate=validate.Length(1, MOST_ROLES),
        metadata={"description": "kinds of replicas that start together, in place of resources and replicas"},
    )  # fmt: skip
    constraints = fields.Nested(ConstraintsSchema)
    preemptible = Flag(metadata={"description": "whether it may be evicted for a higher priority"})
    checkpointable = Flag(metadata={"description": "whether it goes on where it was when it runs again"})
    checkpoint = fields.Nested(
        CheckpointSchema, metadata={"description": "saves what it can go on from; makes it checkpointable"}
    )
    from_checkpoint = fields.UUID(metadata={"description": "of another job: what its first attempt goes on from"})
    priority = Integer(least=-1000, most=1000)
    time_limit_s = Amount("seconds", least=1, most=31_536_000, data_key="time_limit", allow_none=True)
    grace_s = Amount("seconds", least=0, most=3600, data_key="grace")
    warn_signal = fields.Enum(
        WarnSignal, by_value=True,
        metadata={"description": "sent before the time limit, and for a checkpoint, to processes that handle it"},
    )  # fmt: skip
    warn_before_s = Amount("seconds", least=1, most=86_400, data_key="warn_before")
    hang_after_s = Amount(
        "seconds", most=31_536_000, data_key="hang_after",
        metadata={"description": "hung, if it prints nothing and uses no CPU and no device for so long; 0: never", "example": "30m"},
    )  # fmt: skip
    hang_action = fields.Enum(HangAction, by_value=True, metadata={"description": "what becomes of it then"})
    on_node_lost = fields.Enum(
        OnNodeLost, by_value=True, metadata={"description": "whether it runs elsewhere, waits for the node, or is lost"}
    )
    on_replica_failure = fields.Enum(
        OnReplicaFailure, by_value=True, metadata={"description": "whether all end, or go on with one replica less"}
    )
    on_resize = fields.Enum(
        OnResize, by_value=True,
        metadata={"description": "how an elastic job gets more or fewer; restart is usual for a checkpointable one"},
    )  # fmt: skip
    deadline_at = fields.AwareDateTime(data_key="deadline", allow_none=True)
    depends_on = fields.List(fields.Nested(DependencySchema), validate=validate.Length(max=1000))
    array = fields.Nested(ArraySchema)
    retries = fields.Nested(RetriesSchema)
    labels = fields.Dict(fields.String(validate=LABEL_NAME), Text(longest=200), validate=validate.Length(max=64))
    network = fields.Enum(NetworkPolicy, by_value=True)
    # Text, for the description of an enumeration would name all of it: the others are for nodes to say, not for jobs.
    executor = fields.String(validate=validate.OneOf([ExecutorKind.PROCESS.value, ExecutorKind.CONTAINER.value]))
    image = Image(metadata={"description": "runs in a container of this image"})
    pull = fields.Enum(PullPolicy, by_value=True, metadata={"description": "when a node fetches the image"})
    security = fields.Nested(SecuritySchema)
    debug = Flag(
        metadata={
            "description": "more of what the node does in the log, measured each second; nothing less of anything"
        }
    )
    features = fields.Dict(
        fields.String(), Flag(), validate=known_features,
        metadata={"description": "on or off for this job, whatever is said for its project: GET /features", "example": {"fine_metrics": True}},
    )  # fmt: skip
    dry_run = fields.Boolean(truthy={True}, falsy={False})
    bundle = fields.UUID(metadata={"description": "the directory of code that it runs in, see PUT /bundles"})
    requirements = Text(
        longest=1024, shortest=1,
        metadata={"description": "the file of the bundle that names the packages to run with", "example": "requirements.txt"},
    )  # fmt: skip

    @validates_schema(skip_on_field_errors=True)
    def one_program(self, data: dict[str, Any], **_: Any) -> None:
        """Exactly one way to say what runs; no reserved variable."""
        all_say = bool(data.get("roles")) and all(role.command for role in data["roles"])
        if ("command" in data) == ("script" in data) and not (all_say and "command" not in data):
            raise ValidationError("give exactly one of command and script", "command")
        if data.get("command", ["x"])[0].strip() == "":
            raise ValidationError({"0": ["must name a program"]}, "command")
        if "requirements" in data and "bundle" not in data:
            raise ValidationError("is a file of a bundle, and none is named: see PUT /bundles", "requirements")
        if "arguments" in data and "script" not in data:
            raise ValidationError("go with a script; a command carries its own", "arguments")
        if "warn_before_s" in data and "warn_signal" not in data:
            raise ValidationError("says when, yet not with which signal: give warn_signal", "warn_before")
        reserved = {
            name: ["is set by the platform"] for name in data.get("environment", ()) if RESERVED.fullmatch(name)
        }
        if reserved:
            raise ValidationError(reserved, "environment")

    @validates_schema(skip_on_field_errors=True)
    def one_way_to_run(self, data: dict[str, Any], **_: Any) -> None:
        """What is said of containers goes with an image, and an image with a container."""
        images = "image" in data or any(role.image for role in data.get("roles", ()))
        if images and data.get("executor") == ExecutorKind.PROCESS:
            raise ValidationError("runs no image: leave it out, or leave the image out", "executor")
        if images and "requirements" in data:
            raise ValidationError("goes without an image, which brings packages of its own", "requirements")
        if images:
            return
        for name in ("pull", "security"):
            if name in data:
                raise ValidationError("is of a container: name its image", name)
        if data.get("executor") == ExecutorKind.CONTAINER:
            raise ValidationError("is missing: a container runs one", "image")

    @validates_schema(skip_on_field_errors=True)
    def consistent_gang(self, data: dict[str, Any], **_: Any) -> None:
        """What is asked of several replicas fits how many there are."""
        least, most = self._sizes(data)
        saves = bool(data.get("checkpoint") or data.get("from_checkpoint"))
        resumes = data.get("checkpointable", saves)
        if data.get("on_replica_failure") is OnReplicaFailure.SHRINK and least == most:
            raise ValidationError("needs fewer to go on with: give min_replicas and max_replicas", "on_replica_failure")
        if data.get("on_resize") is OnResize.RESTART and not resumes:
            raise ValidationError("would lose what it has done: give checkpoint, or checkpointable", "on_resize")
        if "checkpoint" in data and data["checkpoint"].by is CheckpointBy.ALL and least != most:
            message = "is for a fixed number of replicas: parts that so many saved can't be shared out among others"
            raise ValidationError({"by": [message]}, "checkpoint")
        taken = [name for name in data.get("environment", ()) if most > 1 and OF_GANGS.fullmatch(name)]
        if taken:
            raise ValidationError(
                {name: ["is set by the platform where there are several replicas"] for name in taken}, "environment"
            )

    @staticmethod
    def _sizes(data: dict[str, Any]) -> tuple[int, int]:
        """From how many replicas to how many."""
        if roles := data.get("roles"):
            return sum(role.replicas for role in roles), sum(role.most for role in roles)
        most = data.get("max_replicas", data.get("replicas", 1))
        return data.get("min_replicas", 1 if "max_replicas" in data else most), most

    @validates_schema(skip_on_field_errors=True)
    def consistent_roles(self, data: dict[str, Any], **_: Any) -> None:
        """What replicas there are is said in one place, and no role twice."""
        roles: list[RoleSpec] = data.get("roles", [])
        if roles and (both := data.keys() & {"resources", "replicas", "min_replicas", "max_replicas"}):
            raise ValidationError("is said by each of the roles", min(both))
        names = [role.name for role in roles]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValidationError(f"names {min(twice)} twice", "roles")
        if sum(role.most for role in roles) > MOST_REPLICAS:
            raise ValidationError(f"ask for more than {MOST_REPLICAS} replicas together", "roles")

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> JobSpec:
        """Hand the rules a value, not a dictionary."""
        lists = ("command", "arguments", "depends_on", "roles")
        if "bundle" in data:
            data["code"] = CodeSpec(data.pop("bundle"), data.pop("requirements", ""))
        if "executor" in data:
            data["executor"] = ExecutorKind(data["executor"])
        if "image" in data:
            data["executor"] = ExecutorKind.CONTAINER
        data |= data.pop("security", {})
        if "from_checkpoint" in data:  # what goes on from one has a folder for it, and may as well save its own
            data.setdefault("checkpoint", CheckpointSpec())
        if "checkpoint" in data:
            data.setdefault("checkpointable", True)
        least, most = self._sizes(data)
        if least < most and data.get("checkpointable"):  # who can go on is best told anew who the others are
            data.setdefault("on_resize", OnResize.RESTART)
        return JobSpec(**self.counted(data) | {name: tuple(data[name]) for name in lists if name in data})


class BatchSchema(Strict):
    """Up to a thousand jobs, all or none."""

    jobs = fields.List(fields.Nested(JobSubmitSchema), required=True, validate=validate.Length(1, 1000))


class AfterSchema(Strict):
    """Another job of the workflow to wait for."""

    job = Text(required=True, longest=200, shortest=1, metadata={"example": "prepare"})
    kind = fields.Enum(DependencyKind, by_value=True, load_default=DependencyKind.AFTER_SUCCESS)

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> tuple[str, DependencyKind]:
        """Hand the rules a value."""
        return data["job"], data["kind"]


class StepSchema(JobSubmitSchema):
    """A job of a workflow: a submission with a name, that may wait for others of the workflow."""

    name = Text(required=True, longest=200, shortest=1, metadata={"example": "train"})
    after = fields.List(fields.Nested(AfterSchema), validate=validate.Length(max=1000))

    @post_load
    def build(self, data: dict[str, Any], **options: Any) -> Any:
        """Hand the rules a value."""
        after = tuple(data.pop("after", ()))
        return Step(super().build(data, **options), after)


class WorkflowSubmitSchema(Strict):
    """Up to a thousand jobs that belong together, all or none."""

    name = Text(required=True, longest=200, shortest=1, metadata={"example": "nightly"})
    jobs = fields.List(fields.Nested(StepSchema), required=True, validate=validate.Length(1, 1000))
    dry_run = fields.Boolean(truthy={True}, falsy={False})

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> WorkflowSpec:
        """Hand the rules a value."""
        return WorkflowSpec(data["name"], tuple(data["jobs"]), data.get("dry_run", False))
