"""A definition as typed data: what its stages are, and what each asks of a job."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from app.jobs.spec import JobSpec
from app.pipelines.dag import Condition, Graph, Node
from app.pipelines.parameters import Parameter, ParameterType
from app.pipelines.timetable import Timetable
from trellis.vocabulary import CatchUp, TriggerRule

LARGEST_RESULT = 1 << 20
# Of a job what a stage says beside `with`; a pipeline's defaults may say these and what `with` may.
OF_THE_JOB = ("resources", "retries", "time_limit", "queue", "priority")
# What a job takes and a stage does not: the pipeline says it, or it makes no sense for a stage.
NOT_OF_A_STAGE = frozenset(
    {"name", "project", "depends_on", "array", "dry_run", "deadline", "from_checkpoint", "executor", *OF_THE_JOB}
)
# The file of a stage's artifacts that holds its result, as JSON.
RESULT = "result.json"


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage beyond its place in the graph: `over` are the values that it is mapped over, where they are known before."""

    name: str
    cache: bool = False
    over: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class ScheduleSpec:
    """When a pipeline is to run by itself."""

    times: Timetable
    catch_up: CatchUp = CatchUp.LATEST
    parameters: Mapping[str, Any] | None = None
    late_s: int | None = None
    paused: bool = False


@dataclass(frozen=True)
class Flow:
    """What a run needs of a definition."""

    graph: Graph
    stages: Mapping[str, Stage]
    parameters: Mapping[str, Parameter]

    @cached_property
    def caches(self) -> bool:
        """Whether any stage may be spared because nothing changed."""
        return any(stage.cache for stage in self.stages.values())


@dataclass(frozen=True, slots=True)
class PipelineSpec:
    """A definition to apply: `source` word for word, `jobs` what its stages ask for."""

    name: str
    project: str
    description: str
    concurrency: int
    flow: Flow
    source: Mapping[str, Any]
    jobs: Mapping[str, JobSpec]
    schedule: ScheduleSpec | None = None
    dry_run: bool = False


def read_flow(definition: Mapping[str, Any]) -> Flow:
    """The flow of a definition whose shape is known to be good."""
    stages = definition["stages"]
    nodes = {stage["name"]: read_node(stage) for stage in stages}
    parts = {stage["name"]: _stage(stage) for stage in stages}
    return Flow(Graph(nodes), parts, read_parameters(definition.get("parameters") or {}))


def read_parameters(declared: Mapping[str, Any]) -> dict[str, Parameter]:
    """Declarations of parameters, of good shape."""
    return {name: Parameter(ParameterType(one["type"]), one.get("default")) for name, one in declared.items()}


def read_node(stage: Mapping[str, Any]) -> Node:
    """A stage's place in the graph."""
    over = (stage.get("map") or {}).get("over")
    wish = stage.get("only_if")
    return Node(
        stage["name"], tuple(stage.get("after") or ()), tuple(stage.get("inputs") or ()),
        TriggerRule(stage.get("when", TriggerRule.ALL_SUCCESS)),
        over["stage"] if isinstance(over, dict) else None,
        Condition(wish["stage"], wish["equals"]) if wish else None,
    )  # fmt: skip


def _stage(stage: Mapping[str, Any]) -> Stage:
    over = (stage.get("map") or {}).get("over")
    return Stage(stage["name"], bool(stage.get("cache")), tuple(over) if isinstance(over, list) else None)


def digest_of(value: Any) -> str:
    """A name for JSON data: the same for equal data, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def job_body(defaults: Mapping[str, Any], stage: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage asks of a job, as a submission would say it; what the stage says wins over the pipeline's defaults."""
    own = {name: stage[name] for name in OF_THE_JOB if name in stage}
    body = {**defaults, **(stage.get("with") or {}), **own}
    if isinstance(defaults.get("environment"), dict) and isinstance(body.get("environment"), dict):
        body["environment"] = {**defaults["environment"], **body["environment"]}
    if isinstance(defaults.get("resources"), dict) and isinstance(body.get("resources"), dict):
        body["resources"] = {**defaults["resources"], **body["resources"]}
    pool = stage.get("pool", body.pop("pool", None))
    if pool:
        body["constraints"] = {**(body.get("constraints") or {}), "pool": pool}
    body["name"] = stage["name"]
    return body
