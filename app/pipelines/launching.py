"""Stages that may begin become jobs: all of a run at once, as whoever's run it is."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on

from app.core.access import Actor
from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.jobs.models import Job
from app.jobs.service import Owner, submit_batch
from app.jobs.spec import JobSpec
from app.pipelines.dag import MOST_ELEMENTS
from app.pipelines.definition import digest_of
from app.pipelines.models import PipelineRun, StageRun
from app.pipelines.service import Recipe
from app.tenancy import actors
from trellis.errors import Forbidden, Invalid, NotFound, QuotaExceeded, Unauthenticated
from trellis.vocabulary import StageState

# Of what kind the owner of a stage's job is: its run.
OWNER = "pipeline_run"
LARGEST_VALUE = 4_096


@dataclass(frozen=True, slots=True)
class Launch:
    """A stage to begin: what its inputs made (which job, and the digest of that), and the values that it is mapped over."""

    stage: StageRun
    inputs: Mapping[str, tuple[UUID | None, str | None]]
    values: tuple[Any, ...] | None = None
    mapped: bool = False


@dataclass
class Launched:
    """What became of stages: those that have `begun`, and those that `ended` at once. `wait` says why none of the rest."""

    begun: list[str] = field(default_factory=list)
    ended: dict[str, tuple[StageState, str]] = field(default_factory=dict)
    reused: dict[str, tuple[UUID | None, str | None]] = field(default_factory=dict)
    wait: str = ""


@dataclass(frozen=True, slots=True)
class _Wish:
    """One job to submit: of a stage, or of an element of one."""

    launch: Launch
    spec: JobSpec
    element: int | None = None
    value: Any = None


def launch(uow: UnitOfWork, run: PipelineRun, recipe: Recipe, stages: Sequence[Launch]) -> Launched:
    """Submit the jobs of stages that may begin, in one go; what nothing changed for is reused."""
    outcome = Launched()
    stages = _reuse(uow, run, recipe, stages, outcome)
    wishes = [wish for one in stages for wish in _wishes(run, recipe, one, outcome)]
    try:
        actor = actors.of_owner(uow, run.actor_kind, run.actor_id)
    except Unauthenticated:
        _fail(outcome, wishes, f"{run.actor_name} is no longer there: whoever applies the pipeline anew owns its runs")
        return outcome
    with _as(uow, actor):
        while wishes:
            try:
                owner = Owner(OWNER, run.id, run.pipeline)
                jobs = submit_batch(uow, [wish.spec for wish in wishes], owner)
            except Invalid as error:
                wishes = _without(outcome, wishes, error, run.actor_name)
            except QuotaExceeded as error:
                outcome.wait = error.detail
                return outcome
            except (Forbidden, NotFound) as error:
                _fail(outcome, wishes, f"{run.actor_name} may no longer submit jobs here: {error.detail}")
                return outcome
            else:
                _note(uow, run, outcome, wishes, jobs)
                return outcome
    return outcome


@contextmanager
def _as(uow: UnitOfWork, actor: Actor) -> Iterator[None]:
    """Act as somebody: what is submitted is theirs, and takes their rights."""
    before, uow.actor = uow.actor, actor
    try:
        yield
    finally:
        uow.actor = before


def _wishes(run: PipelineRun, recipe: Recipe, one: Launch, outcome: Launched) -> Iterator[_Wish]:
    name = one.stage.stage
    spec = replace(
        recipe.jobs[name], project=str(run.project_id), debug="debug" in run.wanted or recipe.jobs[name].debug
    )
    given = _environment(run, one)
    if not one.mapped:
        yield _Wish(one, replace(spec, environment=spec.environment | given))
        return
    if fault := _values_fault(one.values):
        outcome.ended[name] = (StageState.FAILED, fault)
    elif not one.values:
        outcome.ended[name] = (StageState.SUCCEEDED, "it is mapped over nothing")
    else:
        for number, value in enumerate(one.values):
            said = {"TRELLIS_MAP_INDEX": str(number), "TRELLIS_MAP_VALUE": json.dumps(value)}
            environment = spec.environment | given | said
            yield _Wish(one, replace(spec, name=f"{name}[{number}]", environment=environment), number, value)


def _values_fault(values: tuple[Any, ...] | None) -> str:
    if values is None:
        return "what it is mapped over is no list"
    if len(values) > MOST_ELEMENTS:
        return f"it would be mapped over {len(values)} values: at most {MOST_ELEMENTS}"
    large = any(len(json.dumps(value)) > LARGEST_VALUE for value in values)
    return f"one of the values that it is mapped over is longer than {LARGEST_VALUE} characters" if large else ""


def _environment(run: PipelineRun, one: Launch) -> dict[str, str]:
    """What a stage's program is told: values as variables, so that no shell ever reads one as code."""
    told = {f"TRELLIS_PARAMETER_{name.upper()}": _text(value) for name, value in run.parameters.items()}
    inputs = {name: str(job_id) for name, (job_id, _) in one.inputs.items() if job_id}
    return told | {
        "TRELLIS_PIPELINE": run.pipeline,
        "TRELLIS_RUN_ID": str(run.id),
        "TRELLIS_STAGE": one.stage.stage,
        "TRELLIS_PARAMETERS": json.dumps(run.parameters),
        "TRELLIS_INPUTS": json.dumps(inputs),
        **({"TRELLIS_FIRE_AT": run.fire_at.isoformat()} if run.fire_at else {}),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _reuse(
    uow: UnitOfWork, run: PipelineRun, recipe: Recipe, stages: Sequence[Launch], outcome: Launched
) -> list[Launch]:
    """Those whose output is not known yet: the others need not be done."""
    keys = {one.stage.stage: key for one in stages if (key := _key(run, recipe, one))}
    for one in stages:
        one.stage.cache_key = keys.get(one.stage.stage)
    known: dict[str, Any] = {}
    if keys and "fresh" not in run.wanted:
        rows = (
            select(StageRun.cache_key, StageRun.output_of, StageRun.output_digest)
            .ext(distinct_on(StageRun.cache_key))
            .where(
                StageRun.cache_key.in_(keys.values()), StageRun.project_id == run.project_id,
                StageRun.state == StageState.SUCCEEDED, StageRun.element.is_(None),
            )
            .order_by(StageRun.cache_key, StageRun.id.desc())
        )  # fmt: skip
        known = {row.cache_key: row for row in uow.execute(rows)}
    left = []
    for one in stages:
        row = known.get(keys.get(one.stage.stage, ""))
        if row is None:
            left.append(one)
        else:
            outcome.ended[one.stage.stage] = (StageState.REUSED, "nothing that it is made of has changed")
            outcome.reused[one.stage.stage] = (row.output_of, row.output_digest)
    return left


def _key(run: PipelineRun, recipe: Recipe, one: Launch) -> str | None:
    """All that a stage's output is made of: its code, the parameters, what its inputs hold. None: it is not to be reused."""
    name = one.stage.stage
    inputs = {each: digest for each, (_, digest) in one.inputs.items()}
    if not recipe.flow.stages[name].cache or None in inputs.values() or one.mapped or name in recipe.flow.graph.tellers:
        return None
    spec = recipe.jobs[name].stored()
    code = {key: value for key, value in spec.get("code", {}).items() if key != "id"}
    what = {key: spec[key] for key in ("command", "script", "arguments", "environment") if key in spec}
    return digest_of([str(run.project_id), what, code, run.parameters, inputs])


def _without(outcome: Launched, wishes: list[_Wish], error: Invalid, owner: str) -> list[_Wish]:
    """What is left after those failed that were refused."""
    faults: dict[str, str] = {}
    for each in error.fields:
        _, _, rest = each.pointer.partition("/jobs/")
        number = rest.partition("/")[0]
        at_fault = [wishes[int(number)]] if number.isdigit() else wishes
        gone = f"{owner} may no longer submit jobs in this project" if each.pointer.endswith("/project") else ""
        faults |= {wish.launch.stage.stage: gone or each.message for wish in at_fault}
    if not faults:
        faults = {wish.launch.stage.stage: error.detail for wish in wishes}
    outcome.ended |= {name: (StageState.FAILED, f"its job was refused: {why}") for name, why in faults.items()}
    return [wish for wish in wishes if wish.launch.stage.stage not in faults]


def _fail(outcome: Launched, wishes: Sequence[_Wish], why: str) -> None:
    outcome.ended |= {wish.launch.stage.stage: (StageState.FAILED, why) for wish in wishes}


def _note(uow: UnitOfWork, run: PipelineRun, outcome: Launched, wishes: Sequence[_Wish], jobs: Sequence[Job]) -> None:
    elements = []
    for wish, job in zip(wishes, jobs, strict=True):
        stage = wish.launch.stage
        if wish.element is None:
            stage.job_id = job.id
        else:
            elements.append(
                StageRun(
                    id=new_id(), version=1, project_id=run.project_id, run_id=run.id, stage=stage.stage,
                    element=wish.element, state=StageState.RUNNING, job_id=job.id, value=wish.value, message="",
                    created_at=uow.clock.now(), started_at=uow.clock.now(),
                )
            )  # fmt: skip
        if stage.stage not in outcome.begun:
            outcome.begun.append(stage.stage)
    uow.insert(elements)
