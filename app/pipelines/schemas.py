"""Shapes of definitions, runs and schedules. Every fault of a definition is found at once."""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, pre_load, validate, validates_schema

from app.http.constraints import Flag
from app.http.schema import NAME, Amount, Integer, Strict, Text
from app.jobs.schemas import JobSubmitSchema
from app.jobs.spec import JobSpec
from app.pipelines.dag import MOST_ELEMENTS, MOST_STAGES, count_faults, faults_of
from app.pipelines.definition import (
    NOT_OF_A_STAGE,
    PipelineSpec,
    ScheduleSpec,
    job_body,
    read_flow,
    read_node,
    read_parameters,
)
from app.pipelines.parameters import ParameterType, declaration_faults, fault_of
from app.pipelines.runs import RunSpec
from app.pipelines.schedules import BackfillSpec
from app.pipelines.timetable import SHORTEST_S, Timetable, cron_fault, zone_fault
from trellis.errors import Field
from trellis.vocabulary import BackfillState, CatchUp, PipelineRunState, StageKind, StageState, TriggerRule

STAGE_NAME = validate.Regexp(
    r"^[a-z][a-z0-9_-]{0,62}$", error="must be 1 to 63 of a-z, 0-9, '_' and '-', a letter first"
)
PARAMETER_NAME = validate.Regexp(r"^[a-z][a-z0-9_]{0,62}$", error="must be 1 to 63 of a-z, 0-9 and '_', a letter first")
MOST_PARAMETERS = 100
_JOB = JobSubmitSchema()


class StageName(fields.String):
    """A stage's name."""

    def __init__(self, **options: Any) -> None:
        super().__init__(validate=STAGE_NAME, **options)


def _in_reach(at: datetime) -> None:
    """Times that calendars and the database can count from, whatever the zone."""
    if not 2000 <= at.year <= 2200:
        raise ValidationError("must lie between the years 2000 and 2200")


class ParameterSchema(Strict):
    """A parameter that a run may say."""

    type = fields.Enum(ParameterType, by_value=True, required=True)
    default = fields.Raw(metadata={"description": "of that type; without one every run must say it"})


class OverStageSchema(Strict):
    """The stage whose result, a list, is mapped over."""

    stage = StageName(required=True)


class Over(fields.Field[Any]):
    """Values, or the stage that tells them."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        if isinstance(value, list):
            if len(value) > MOST_ELEMENTS:
                raise ValidationError(f"are {len(value)}: at most {MOST_ELEMENTS}")
            return value
        return OverStageSchema().load(value)


class MapSchema(Strict):
    """One job a value."""

    over = Over(required=True, metadata={"description": "a list, or {stage: NAME}: its result", "example": ["a", "b"]})


class ConditionSchema(Strict):
    """What must have been told for a stage to be done."""

    stage = StageName(required=True)
    equals = fields.Raw(required=True, allow_none=True)


class StageSchema(Strict):
    """A stage: what it waits for, and what it asks of a job."""

    name = StageName(required=True, metadata={"example": "clean"})
    kind = fields.Enum(StageKind, by_value=True, load_default=StageKind.CUSTOM)
    description = Text(longest=2000, lines=True)
    after = fields.List(StageName(), validate=validate.Length(max=MOST_STAGES))
    inputs = fields.List(StageName(), validate=validate.Length(max=MOST_STAGES))
    when = fields.Enum(TriggerRule, by_value=True)
    only_if = fields.Nested(ConditionSchema)
    map = fields.Nested(MapSchema)
    cache = Flag(metadata={"description": "whether what it made is used again while nothing has changed"})
    resources = fields.Dict(metadata={"description": "as of a job"})
    retries = fields.Dict(metadata={"description": "as of a job"})
    time_limit = fields.Raw(metadata={"description": "as of a job", "example": "10m"})
    queue = Text(longest=63)
    pool = Text(longest=63)
    priority = Integer(least=-1000, most=1000)
    with_ = fields.Dict(
        data_key="with",
        metadata={"description": "of kind custom: a job's command or script and what else it asks for", "example": {"command": ["true"]}},
    )  # fmt: skip

    @validates_schema(skip_on_field_errors=True)
    def a_kind_that_is_there(self, data: dict[str, Any], **_: Any) -> None:
        """Kinds that cannot be run are refused here, not at night."""
        if data.get("kind", StageKind.CUSTOM) is not StageKind.CUSTOM:
            raise ValidationError("can't be run yet: there is custom", "kind")


class PipelineScheduleBody(Strict):
    """When it runs by itself: `cron` or `every`."""

    cron = Text(longest=200, metadata={"example": "30 2 * * *"})
    timezone = Text(longest=64, metadata={"example": "Europe/Berlin"})
    every_s = Amount("seconds", least=SHORTEST_S, most=31_536_000, data_key="every", metadata={"example": "15m"})
    starts_at = fields.AwareDateTime(validate=_in_reach)
    catch_up = fields.Enum(CatchUp, by_value=True)
    parameters = fields.Dict(fields.String())
    late_s = Amount("seconds", least=1, most=31_536_000, data_key="done_within", metadata={"example": "4h"})
    paused = Flag()

    @validates_schema(skip_on_field_errors=True)
    def sensible(self, data: dict[str, Any], **_: Any) -> None:
        """One way to say when; a zone that there is."""
        if ("cron" in data) == ("every_s" in data):
            raise ValidationError("give exactly one of cron and every", "cron")
        if fault := cron_fault(data["cron"]) if "cron" in data else None:
            raise ValidationError(fault, "cron")
        if fault := zone_fault(data["timezone"]) if "timezone" in data else None:
            raise ValidationError(fault, "timezone")

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> ScheduleSpec:
        """Hand the rules a value."""
        starts_at = data.get("starts_at")
        times = Timetable(
            data.get("cron", ""), data.get("timezone", "UTC"), data.get("every_s"),
            starts_at.astimezone(UTC) if starts_at else None,
        )  # fmt: skip
        return ScheduleSpec(
            times, data.get("catch_up", CatchUp.LATEST), data.get("parameters"), data.get("late_s"),
            bool(data.get("paused", False)),
        )  # fmt: skip


class PipelineBody(Strict):
    """A definition."""

    name = fields.String(required=True, validate=NAME, metadata={"example": "nightly"})
    project = Text(longest=63)
    description = Text(longest=2000, lines=True)
    parameters = fields.Dict(
        fields.String(validate=PARAMETER_NAME),
        fields.Nested(ParameterSchema),
        validate=validate.Length(max=MOST_PARAMETERS),
    )
    defaults = fields.Dict(metadata={"description": "what every stage asks of a job, where it does not say otherwise"})
    concurrency = Integer(least=1, most=1000, metadata={"description": "how many runs may go on at once"})
    stages = fields.List(fields.Nested(StageSchema), required=True, validate=validate.Length(1))
    schedule = fields.Nested(PipelineScheduleBody)
    dry_run = fields.Boolean(truthy={True}, falsy={False})

    @pre_load
    def not_too_many(self, data: Any, **_: Any) -> Any:
        """Nothing is made of what there is too much of."""
        stages = data.get("stages") if isinstance(data, dict) else None
        if isinstance(stages, list) and (faults := count_faults([s for s in stages if isinstance(s, dict)])):
            raise ValidationError({"stages": [fault.message for fault in faults]})
        return data

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def whole(self, data: dict[str, Any], original: Any, **_: Any) -> None:
        """The graph, the parameters, and what each stage asks of a job: all faults at once."""
        if not isinstance(original, dict):
            return
        faults: list[Field] = []
        stages = _well_formed(original.get("stages"))
        if stages is not None:
            faults += faults_of([read_node(stage) for stage in stages])
            jobs, refused = _jobs(original.get("defaults"), stages)
            faults += refused
            data["jobs"] = jobs
        declared = data.get("parameters")
        if isinstance(declared, dict) and all("type" in one for one in declared.values()):
            parameters = read_parameters(declared)
            faults += declaration_faults(parameters)
            schedule = data.get("schedule")
            for name, value in (schedule.parameters or {}).items() if isinstance(schedule, ScheduleSpec) else ():
                at = f"/schedule/parameters/{name}"
                if name not in parameters:
                    faults.append(Field(at, "is no parameter of this pipeline"))
                elif fault := fault_of(parameters[name].type, value):
                    faults.append(Field(at, fault))
            if isinstance(schedule, ScheduleSpec):
                said = schedule.parameters or {}
                faults += [
                    Field(f"/schedule/parameters/{name}", "is missing, and has no default")
                    for name, one in parameters.items()
                    if one.default is None and name not in said
                ]
        if faults:
            raise ValidationError(_nested(faults))

    @post_load(pass_original=True)
    def build(self, data: dict[str, Any], original: Mapping[str, Any], **_: Any) -> PipelineSpec:
        """Hand the rules a value."""
        source = {key: value for key, value in original.items() if key not in ("project", "dry_run")}
        return PipelineSpec(
            data["name"], data.get("project", ""), data.get("description", ""), data.get("concurrency", 1),
            read_flow(source), source, data["jobs"], data.get("schedule"), data.get("dry_run", False),
        )  # fmt: skip


def _well_formed(stages: Any) -> list[dict[str, Any]] | None:
    """The stages, if each is so much of one that the graph can be looked at."""
    if not isinstance(stages, list) or not all(isinstance(stage, dict) for stage in stages):
        return None
    for stage in stages:
        lists = [stage.get(name) or [] for name in ("after", "inputs")]
        if not isinstance(stage.get("name"), str) or not all(isinstance(each, list) for each in lists):
            return None
        if not all(isinstance(name, str) for each in lists for name in each):
            return None
        if stage.get("when", "all_done") not in set(TriggerRule):
            return None
        if "map" in stage or "only_if" in stage:
            try:
                StageSchema(only=("map", "only_if")).load({k: stage[k] for k in ("map", "only_if") if k in stage})
            except ValidationError:
                return None
    return stages


def _jobs(defaults: Any, stages: Iterable[Mapping[str, Any]]) -> tuple[dict[str, JobSpec], list[Field]]:
    """What each stage asks of a job, and what is wrong with that."""
    jobs: dict[str, JobSpec] = {}
    faults: list[Field] = []
    shared = defaults if isinstance(defaults, dict) else {}
    faults += [Field(f"/defaults/{name}", "is not for defaults") for name in shared if name in NOT_OF_A_STAGE - _SHARED]
    for number, stage in enumerate(stages):
        own = stage.get("with") or {}
        if not isinstance(own, dict):
            continue
        strange = sorted(NOT_OF_A_STAGE & own.keys())
        faults += [
            Field(f"/stages/{number}/with/{name}", _ELSEWHERE.get(name, "is not for a stage")) for name in strange
        ]
        try:
            jobs[stage["name"]] = _JOB.load(job_body(shared, {**stage, "with": own}))
        except ValidationError as error:
            said = json.dumps(stage["name"])
            faults += [
                Field(f"/stages/{number}{_where(pointer, own)}", f"{message} (stage {said})")
                for pointer, message in _flat("", error.normalized_messages())  # type: ignore[no-untyped-call]
            ]
    return jobs, faults


_SHARED = frozenset({"resources", "retries", "time_limit", "queue", "priority"})
_ELSEWHERE = dict.fromkeys(sorted(_SHARED), "is said beside `with`, not in it")


def _where(pointer: str, own: Mapping[str, Any]) -> str:
    """Where in a stage a fault of its job lies."""
    name = pointer.split("/")[1] if pointer else ""
    return pointer if name in _SHARED else f"/with{pointer}"


def _flat(pointer: str, messages: Any) -> Iterable[tuple[str, str]]:
    if isinstance(messages, Mapping):
        for key, inner in messages.items():
            yield from _flat(pointer if key == "_schema" else f"{pointer}/{key}", inner)
    elif isinstance(messages, list):
        for message in messages:
            yield from _flat(pointer, message)
    else:
        yield pointer, str(messages)


def _nested(faults: Iterable[Field]) -> dict[Any, Any]:
    """Faults by pointer as marshmallow nests its own."""
    found: dict[Any, Any] = {}
    for fault in faults:
        *way, last = [int(part) if part.isdigit() else part for part in fault.pointer.strip("/").split("/")]
        inner = found
        for part in way:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                break
        if isinstance(inner, dict):
            known = inner.get(last)
            if isinstance(known, dict):
                known.setdefault("_schema", []).append(fault.message)
            else:
                inner.setdefault(last, []).append(fault.message)
    return found


class ScheduleSchema(Schema):
    """When a pipeline runs by itself, and next."""

    cron = fields.String()
    timezone = fields.String(attribute="zone")
    every_s = fields.Integer(allow_none=True)
    catch_up = fields.Enum(CatchUp, by_value=True)
    parameters = fields.Dict()
    done_within_s = fields.Integer(attribute="late_s", allow_none=True)
    paused_at = fields.AwareDateTime(allow_none=True)
    fires_at = fields.AwareDateTime(allow_none=True)
    user = fields.String(attribute="actor_name", metadata={"description": "whose its runs are"})
    version = fields.Integer()


class PipelineSchema(Schema):
    """A pipeline."""

    id = fields.UUID()
    project_id = fields.UUID()
    name = fields.String()
    description = fields.String()
    number = fields.Integer(metadata={"description": "of its newest version"})
    concurrency = fields.Integer()
    user = fields.String(attribute="actor_name")
    created_at = fields.AwareDateTime()
    version = fields.Integer()


class OnePipelineSchema(PipelineSchema):
    """A pipeline with its newest definition."""

    definition = fields.Dict()
    schedule = fields.Nested(ScheduleSchema, allow_none=True)
    changed = fields.Boolean(metadata={"description": "whether this made a new version"})


class VersionSchema(Schema):
    """A version of a definition."""

    number = fields.Integer()
    digest = fields.String()
    user = fields.String(attribute="actor_name")
    created_at = fields.AwareDateTime()


class VersionListSchema(Schema):
    """Versions, the newest first."""

    items = fields.List(fields.Nested(VersionSchema))


class StageSightSchema(Schema):
    """A stage of a run."""

    name = fields.String(attribute="stage.stage")
    after = fields.List(fields.String(), attribute="before")
    state = fields.Enum(StageState, by_value=True)
    job_id = fields.UUID(attribute="stage.job_id", allow_none=True)
    job_state = fields.String(attribute="job.state", allow_none=True)
    attempt = fields.Integer(attribute="job.attempt", allow_none=True)
    exit_code = fields.Integer(attribute="job.exit_code", allow_none=True)
    output_of = fields.UUID(attribute="stage.output_of", allow_none=True)
    message = fields.String(attribute="stage.message")
    elements = fields.Dict(fields.String(), fields.Integer(), metadata={"description": "of a mapped stage, by state"})
    started_at = fields.AwareDateTime(attribute="stage.started_at", allow_none=True)
    ended_at = fields.AwareDateTime(attribute="stage.ended_at", allow_none=True)


class RunSchema(Schema):
    """A run."""

    id = fields.UUID()
    pipeline_id = fields.UUID()
    pipeline = fields.String()
    project_id = fields.UUID()
    number = fields.Integer(metadata={"description": "of the version that it runs"})
    state = fields.Enum(PipelineRunState, by_value=True)
    parameters = fields.Dict()
    user = fields.String(attribute="actor_name")
    message = fields.String()
    fire_at = fields.AwareDateTime(allow_none=True)
    backfill_id = fields.UUID(allow_none=True)
    again_of = fields.UUID(allow_none=True)
    created_at = fields.AwareDateTime()
    started_at = fields.AwareDateTime(allow_none=True)
    ended_at = fields.AwareDateTime(allow_none=True)
    version = fields.Integer()


class OneRunSchema(RunSchema):
    """A run with its stages."""

    stages = fields.List(fields.Nested(StageSightSchema))


class ElementSchema(Schema):
    """One value that a stage is mapped over, and its job."""

    element = fields.Integer(attribute="stage.element")
    value = fields.Raw(attribute="stage.value", allow_none=True)
    state = fields.Enum(StageState, by_value=True)
    job_id = fields.UUID(attribute="stage.job_id", allow_none=True)
    job_state = fields.String(attribute="job.state", allow_none=True)
    message = fields.String(attribute="stage.message")


class ElementListSchema(Schema):
    """Elements of a mapped stage, in order."""

    items = fields.List(fields.Nested(ElementSchema))


class RunBody(Strict):
    """A run to start."""

    parameters = fields.Dict(fields.String(), load_default=dict)
    number = Integer(least=1, most=10**9, data_key="version")
    first = fields.List(StageName(), data_key="from", validate=validate.Length(max=MOST_STAGES))
    last = fields.List(StageName(), data_key="to", validate=validate.Length(max=MOST_STAGES))
    chosen = fields.List(StageName(), data_key="only", validate=validate.Length(max=MOST_STAGES))
    fresh = Flag(metadata={"description": "use nothing again that was made before"})
    debug = Flag(metadata={"description": "more of what nodes do in the logs"})

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> RunSpec:
        """Hand the rules a value."""
        first, last, only = (tuple(data.pop(name, ())) for name in ("first", "last", "chosen"))
        return RunSpec(**data, first=first, last=last, only=only)


class AgainBody(Strict):
    """How to do a run again."""

    whole = fields.Boolean(truthy={True}, falsy={False}, load_default=False)


class CancelBody(Strict):
    """Why a run is cancelled."""

    reason = Text(longest=500, load_default="")
    force = fields.Boolean(truthy={True}, falsy={False}, load_default=False)


class PauseBody(Strict):
    """Whether a schedule is held back."""

    paused = fields.Boolean(truthy={True}, falsy={False}, required=True)


class BackfillBody(Strict):
    """A range of fire times to run for."""

    starts_at = fields.AwareDateTime(required=True, validate=_in_reach)
    ends_at = fields.AwareDateTime(required=True, validate=_in_reach)
    parallel = Integer(least=1, most=100)
    parameters = fields.Dict(fields.String())
    dry_run = fields.Boolean(truthy={True}, falsy={False})

    @post_load
    def build(self, data: dict[str, Any], **_: Any) -> BackfillSpec:
        """Hand the rules a value."""
        return BackfillSpec(**data)


class OneBackfillSchema(Schema):
    """A backfill: how many fire times its range holds, and the runs made so far."""

    id = fields.UUID(attribute="backfill.id")
    pipeline_id = fields.UUID(attribute="backfill.pipeline_id")
    state = fields.Enum(BackfillState, by_value=True, attribute="backfill.state")
    starts_at = fields.AwareDateTime(attribute="backfill.starts_at")
    ends_at = fields.AwareDateTime(attribute="backfill.ends_at")
    next_at = fields.AwareDateTime(attribute="backfill.next_at")
    parallel = fields.Integer(attribute="backfill.parallel")
    made = fields.Integer(attribute="backfill.made")
    ended_at = fields.AwareDateTime(attribute="backfill.ended_at", allow_none=True)
    count = fields.Integer()
    times = fields.List(fields.AwareDateTime(), metadata={"description": "the first hundred, of a dry run"})
