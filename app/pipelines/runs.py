"""Runs as their owners drive them: start, look, cancel, do again."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.core.access import Permission
from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.jobs.groups import Change, Group, change_group
from app.jobs.models import Job
from app.pipelines.dag import Graph
from app.pipelines.models import Pipeline, PipelineRun, StageRun
from app.pipelines.parameters import resolve
from app.pipelines.service import RECIPES, find_pipeline, version_of
from trellis.errors import Conflict, Field, Invalid
from trellis.vocabulary import ENDED_JOB_STATES, GroupKind, JobState, PipelineRunState, StageState

MOST_WAITING = 1_000


class RunNotEnded(Conflict):
    """Only a run that has ended can be done again."""

    code = "run_not_ended"
    title = "The run has not ended"


class TooManyRuns(Conflict):
    """So many runs of one pipeline wait already."""

    code = "too_many_runs"
    title = "Too many runs wait"


@dataclass(frozen=True, slots=True)
class RunSpec:
    """A run to start: of the newest version if none is said; of all stages, or those from, to, or named."""

    parameters: Mapping[str, Any] = field(default_factory=dict)
    number: int | None = None
    first: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    only: tuple[str, ...] = ()
    fresh: bool = False
    debug: bool = False


def start_run(uow: UnitOfWork, pipeline_id: UUID, spec: RunSpec) -> PipelineRun:
    """Have a pipeline run once; it begins when fewer of its runs than its `concurrency` go on.

    Raises: Invalid for parameters and stages that there are not, TooManyRuns.
    """
    pipeline = find_pipeline(uow, pipeline_id)
    uow.require(Permission.PIPELINE_WRITE, pipeline.project_id)
    version = version_of(uow, pipeline, spec.number or pipeline.number)
    recipe = RECIPES.get(uow, version.id)
    chosen = choose(recipe.flow.graph, spec)
    values = resolve(recipe.flow.parameters, spec.parameters, uow.clock.now(), recipe.zone)
    wanted: dict[str, Any] = {name: True for name in ("fresh", "debug") if getattr(spec, name)}
    if len(chosen) < len(recipe.flow.graph.nodes):
        wanted["stages"] = sorted(chosen)
    return _queue(uow, pipeline, PipelineRun(version_id=version.id, number=version.number, parameters=values), wanted)


def run_again(uow: UnitOfWork, run_id: UUID, *, whole: bool) -> PipelineRun:
    """Do an ended run again, of the same version and with the same parameters: what did not succeed and what comes
    after it, or the `whole`. Raises RunNotEnded; Conflict where nothing failed.
    """
    old = uow.get(PipelineRun, run_id)
    uow.require(Permission.PIPELINE_WRITE, old.project_id)
    if old.ended_at is None:
        raise RunNotEnded(f"run {run_id} is {old.state}: cancel it first, or wait")
    pipeline = find_pipeline(uow, old.pipeline_id)
    wanted = {name: value for name, value in old.wanted.items() if name != "again_of"}
    if not whole:
        wanted["again_of"] = str(old.id)
    values = dict(old.parameters)
    again = PipelineRun(version_id=old.version_id, number=old.number, parameters=values, again_of=old.id)
    if not whole and old.state is PipelineRunState.SUCCEEDED:
        raise Conflict(f"nothing of run {run_id} failed: do the whole again")
    return _queue(uow, pipeline, again, wanted)


def check_parameters(uow: UnitOfWork, pipeline: Pipeline, given: Mapping[str, Any]) -> None:
    """Raises Invalid where a run of the newest version could not begin with these."""
    recipe = RECIPES.get(uow, version_of(uow, pipeline, pipeline.number).id)
    resolve(recipe.flow.parameters, given, uow.clock.now(), recipe.zone)


def _queue(uow: UnitOfWork, pipeline: Pipeline, run: PipelineRun, wanted: dict[str, Any]) -> PipelineRun:
    waiting = select(PipelineRun.id).where(
        PipelineRun.pipeline_id == pipeline.id, PipelineRun.state == PipelineRunState.QUEUED
    )
    if len(uow.session.execute(waiting.limit(MOST_WAITING)).scalars().all()) == MOST_WAITING:
        raise TooManyRuns(f"{MOST_WAITING} runs of {pipeline.name} wait already: cancel some, or raise its concurrency")
    actor = uow.actor
    run.id, run.version, run.created_at = new_id(), 1, uow.clock.now()
    run.project_id, run.pipeline_id, run.pipeline = pipeline.project_id, pipeline.id, pipeline.name
    run.wanted, run.message = wanted, ""
    run.actor_kind, run.actor_id, run.actor_name = actor.kind, actor.id, actor.name
    uow.session.add(run)
    uow.session.flush()
    uow.emit("pipeline_run.queued", run)
    return run


def choose(graph: Graph, spec: RunSpec) -> set[str]:
    """The stages of a partial run. Raises Invalid for names that are no stages, or where none is left."""
    faults = [
        Field(f"/{field_name}", f"names {name!r}, which is no stage of this pipeline")
        for field_name, names in (("from", spec.first), ("to", spec.last), ("only", spec.only))
        for name in names
        if name not in graph.nodes
    ]
    if faults:
        raise Invalid(*faults)
    chosen = set(graph.nodes)
    if spec.first:
        chosen &= graph.downstream(spec.first)
    if spec.last:
        chosen &= graph.upstream(spec.last)
    if spec.only:
        chosen &= set(spec.only)
    if not chosen:
        raise Invalid(Field("/from", "no stage lies on the way from there to there"))
    return chosen


def cancel_run(uow: UnitOfWork, run_id: UUID, *, reason: str = "", force: bool = False) -> PipelineRun:
    """End a run: stages that wait are not begun, jobs that run are told to end; it has ended when they have.

    Asking again is harmless. Raises IllegalTransition where it has ended.
    """
    run = uow.get(PipelineRun, run_id, lock=True)
    uow.require(Permission.PIPELINE_WRITE, run.project_id)
    if run.cancel_asked_at is not None and run.ended_at is None and not force:
        return run
    live = list(_running(uow, run.id)) if run.state is PipelineRunState.RUNNING else []
    if not live:
        run.message = reason
        uow.move(run, PipelineRunState.CANCELLED, reason=reason)
    run.cancel_asked_at = uow.clock.now()
    run.message = reason
    waiting = select(StageRun).where(StageRun.run_id == run.id, StageRun.state == StageState.WAITING)
    for stage in uow.session.execute(waiting).scalars():
        uow.move(stage, StageState.CANCELLED)
    if live:
        run.version += 1
        uow.emit("pipeline_run.cancel_asked", run, reason=reason)
        change_group(uow, Group(GroupKind.WORKFLOW, run.id), Change("cancel", reason, force))
    return run


def _running(uow: UnitOfWork, run_id: UUID) -> Sequence[UUID]:
    going = select(StageRun.id).where(StageRun.run_id == run_id, StageRun.state == StageState.RUNNING)
    return uow.session.execute(going).scalars().all()


@dataclass(frozen=True, slots=True)
class StageSight:
    """A stage of a run and how its job is: its elements are counted by state where it is mapped."""

    stage: StageRun
    job: Any
    before: tuple[str, ...]
    elements: Mapping[str, int]

    @property
    def state(self) -> StageState:
        """As its job is: its row may be a step behind, while nothing follows from that."""
        return _seen(self.stage, self.job)


def _seen(stage: StageRun, job: Any) -> StageState:
    if stage.state is not StageState.RUNNING or job is None or job.state not in ENDED_JOB_STATES:
        return stage.state
    ended = {JobState.SUCCEEDED: StageState.SUCCEEDED, JobState.CANCELLED: StageState.CANCELLED}
    return ended.get(job.state, StageState.FAILED)


def look_at(uow: UnitOfWork, run: PipelineRun) -> list[StageSight]:
    """The stages of a run in the order of the graph. One that has not begun has none yet: they are all said to wait."""
    graph = RECIPES.get(uow, run.version_id).flow.graph
    rows = (
        select(StageRun, Job.state, Job.attempt, Job.exit_code, Job.message)
        .outerjoin(Job, Job.id == StageRun.job_id)
        .where(StageRun.run_id == run.id)
    )
    mains: dict[str, Any] = {}
    elements: dict[str, dict[str, int]] = {}
    for row in uow.session.execute(rows):
        stage: StageRun = row[0]
        if stage.element is None:
            mains[stage.stage] = row
        else:
            counted = elements.setdefault(stage.stage, {})
            state = str(_seen(stage, row))
            counted[state] = counted.get(state, 0) + 1
    return [
        StageSight(
            mains[name][0] if name in mains else StageRun(stage=name, state=StageState.WAITING, message=""),
            mains.get(name), graph.nodes[name].before, elements.get(name, {}),
        )
        for name in graph.order
    ]  # fmt: skip


def elements_of(uow: UnitOfWork, run: PipelineRun, stage: str) -> list[StageSight]:
    """The elements of a mapped stage, in order."""
    wanted = (
        select(StageRun, Job.state, Job.attempt, Job.exit_code, Job.message)
        .outerjoin(Job, Job.id == StageRun.job_id)
        .where(StageRun.run_id == run.id, StageRun.stage == stage, StageRun.element.is_not(None))
        .order_by(StageRun.element)
    )
    return [StageSight(row[0], row, (), {}) for row in uow.session.execute(wanted)]
