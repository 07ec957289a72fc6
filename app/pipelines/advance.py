"""How a run goes on: what ended is noted, what may begin is submitted, all in one transaction from rows alone.

Whoever calls this may die at any moment and call it again: it looks at what is, never at what was said to have happened.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, func, select
from sqlalchemy.dialects.postgresql import distinct_on

from app.core.states import PIPELINE_RUN
from app.core.uow import UnitOfWork
from app.jobs.models import Job
from app.pipelines import beginnings, outputs
from app.pipelines.dag import BAD, ENDED, GOOD, Graph, decide
from app.pipelines.launching import Launch, launch
from app.pipelines.models import Backfill, Pipeline, PipelineRun, StageRun
from app.pipelines.outputs import Told
from app.pipelines.schedules import go_on_with
from app.pipelines.service import RECIPES, Recipe
from trellis.vocabulary import BackfillState, JobState, PipelineRunState, StageState, TriggerRule

# What could not be submitted for now is tried again so much later.
PAUSE = timedelta(seconds=10)
AT_ONCE = 200
_STANDS = (
    select(
        StageRun.id, StageRun.stage, StageRun.element, StageRun.state, StageRun.job_id, StageRun.output_of,
        StageRun.output_digest, StageRun.result, Job.state.label("job_state"), Job.ended_at.label("job_ended_at"),
        Job.message.label("job_message"), Job.cause.label("job_cause"), Job.exit_code.label("job_exit_code"),
    )
    .outerjoin(Job, (Job.id == StageRun.job_id) & (StageRun.state == StageState.RUNNING))
)  # fmt: skip


_RUN_ID = bindparam("run_id", type_=Uuid())
_RUN = select(
    PipelineRun.state, PipelineRun.version_id, PipelineRun.ended_at, PipelineRun.cancel_asked_at, PipelineRun.look_at
).where(PipelineRun.id == _RUN_ID)
_LOCKED = (
    select(PipelineRun)
    .where(PipelineRun.id == _RUN_ID)
    .with_for_update(key_share=True)
    .execution_options(populate_existing=True)
)
_BY_IDS = select(StageRun).where(StageRun.id == any_(bindparam("ids", type_=ARRAY(Uuid))))
_MAINS = _STANDS.where(StageRun.run_id == _RUN_ID, StageRun.element.is_(None))
_OPEN = _STANDS.where(StageRun.run_id == _RUN_ID, StageRun.element.is_(None) | (StageRun.state == StageState.RUNNING))
_WITH_LIVE_ELEMENTS = (
    select(StageRun.stage)
    .join(Job, Job.id == StageRun.job_id)
    .where(
        StageRun.run_id == _RUN_ID,
        StageRun.element.is_not(None),
        StageRun.state == StageState.RUNNING,
        Job.ended_at.is_(None),
    )
    .distinct()
)


@dataclass
class Position:
    """Where a locked run stands: the rows of its stages as they were read, and what has become of them since."""

    run: PipelineRun
    recipe: Recipe
    mains: dict[str, Any]
    elements: dict[str, list[Any]]
    states: dict[str, StageState] = field(default_factory=dict)
    changed: dict[UUID, StageRun] = field(default_factory=dict)
    wanted: list[UUID] = field(default_factory=list)  # jobs whose results must be read before it goes on

    @property
    def graph(self) -> Graph:
        """Of its version."""
        return self.recipe.flow.graph


def advance(uow: UnitOfWork, run_id: UUID, results: Mapping[UUID, Told]) -> list[UUID]:
    """Let a run be as far as its jobs are. Returns the jobs whose results it needs to go on: call again with them.

    Ends that nothing follows from yet are noted together with the one that something follows from: of ten stages that the
    next waits for, nine cost a look.
    """
    if not (results or _is_due(uow, run_id)):
        return []
    run = uow.session.execute(_LOCKED, {"run_id": run_id}).scalar_one_or_none()
    if run is None or run.ended_at is not None:
        return []
    recipe = RECIPES.get(uow, run.version_id)
    if run.state is PipelineRunState.QUEUED:
        if not _may_begin(uow, run):
            return []
        uow.move(run, PipelineRunState.RUNNING)
        if not beginnings.settle_parameters(uow, run, recipe):
            _conclude(uow, run, PipelineRunState.FAILED)
            return []
        beginnings.begin(uow, run, recipe)
        uow.session.flush()
    if run.look_at is not None:
        run.look_at = None
    place = _position(uow, run, recipe)
    _note_ends(uow, place, results)
    if run.cancel_asked_at is None:
        _go_on(uow, place)
    if all(state in ENDED for state in place.states.values()):
        _end(uow, place)
    return place.wanted


def _is_due(uow: UnitOfWork, run_id: UUID) -> bool:
    """Whether anything follows from what has ended. Locks nothing.

    Whoever goes on with the run at this moment does so because of ends that are seen here as well: then it is due, and
    waits for them. And the last of several ends is looked at after all of them are there.
    """
    run = uow.execute(_RUN, {"run_id": run_id}).one_or_none()
    if run is None or run.ended_at is not None:
        return False
    if run.state is PipelineRunState.QUEUED or run.cancel_asked_at is not None or run.look_at is not None:
        return True
    flow = RECIPES.get(uow, run.version_id).flow
    states: dict[str, StageState] = {}
    told: dict[str, object] = {}
    mapped: list[str] = []
    for row in uow.execute(_MAINS, {"run_id": run_id}):
        states[row.stage] = _outcome(row)[0] if row.job_ended_at else row.state
        told[row.stage] = row.result
        if row.job_state is JobState.SUCCEEDED and row.stage in flow.graph.tellers:
            return True
        if row.state is StageState.RUNNING and row.job_id is None:
            mapped.append(row.stage)
    if mapped and set(mapped) - set(uow.execute(_WITH_LIVE_ELEMENTS, {"run_id": run_id}).scalars()):
        return True
    step = decide(flow.graph, states, told)
    return bool(step.ready or step.ends) or all(state in ENDED for state in states.values())


def _may_begin(uow: UnitOfWork, run: PipelineRun) -> bool:
    """Whether fewer runs of its pipeline go on than may; who asks at the same time waits for the answer."""
    locked = select(Pipeline).where(Pipeline.id == run.pipeline_id).with_for_update(key_share=True)
    pipeline = uow.session.execute(locked.execution_options(populate_existing=True)).scalar_one()
    going = select(func.count()).where(
        PipelineRun.pipeline_id == pipeline.id, PipelineRun.state == PipelineRunState.RUNNING
    )
    return int(uow.execute(going).scalar_one()) < pipeline.concurrency


def _position(uow: UnitOfWork, run: PipelineRun, recipe: Recipe) -> Position:
    mains: dict[str, Any] = {}
    elements: dict[str, list[Any]] = {}
    for row in uow.execute(_OPEN, {"run_id": run.id}):
        if row.element is None:
            mains[row.stage] = row
        else:
            elements.setdefault(row.stage, []).append(row)
    place = Position(run, recipe, mains, elements)
    place.states = {name: row.state for name, row in mains.items()}
    return place


def _note_ends(uow: UnitOfWork, place: Position, results: Mapping[UUID, Told]) -> None:
    """Stages and elements whose job has ended have ended as it did."""
    over = [row for rows in ([*place.mains.values()], *place.elements.values()) for row in rows if row.job_ended_at]
    ready: list[Any] = []
    for row in over:
        tells = row.element is None and row.stage in place.graph.tellers and row.job_state is JobState.SUCCEEDED
        if tells and row.job_id not in results:
            place.wanted.append(row.job_id)
        else:
            ready.append(row)
    if ready:
        place.changed |= _load(uow, [row.id for row in ready])
    digests = outputs.digests(uow, [row.job_id for row in ready]) if ready and place.recipe.flow.caches else {}
    for row in ready:
        stage = place.changed[row.id]
        state, message = _outcome(row)
        told = results.get(row.job_id)
        if told is not None and state is StageState.SUCCEEDED:
            stage.result = told.value
            if told.fault:
                state, message = StageState.FAILED, told.fault
        if state is StageState.SUCCEEDED:
            stage.output_of, stage.output_digest = row.job_id, digests.get(row.job_id)
        _finish(uow, place, stage, state, message)
    for name in {row.stage for row in ready if row.element is not None}:
        _join(uow, place, name)


def _outcome(row: Any) -> tuple[StageState, str]:
    if row.job_state is JobState.SUCCEEDED:
        return StageState.SUCCEEDED, ""
    said = row.job_message or f"its job ended {row.job_state}".replace("_", " ")
    if row.job_exit_code:
        said = row.job_message or f"its job exited with {row.job_exit_code}"
    return (StageState.CANCELLED if row.job_state is JobState.CANCELLED else StageState.FAILED), said[:2000]


def _finish(uow: UnitOfWork, place: Position, stage: StageRun, state: StageState, message: str = "") -> None:
    stage.message = message
    uow.move(stage, state, stage=stage.stage, **({"reason": message} if message else {}))
    if stage.element is None:
        place.states[stage.stage] = state


def _join(uow: UnitOfWork, place: Position, name: str) -> None:
    """A mapped stage has ended when its last element has."""
    uow.session.flush()
    counted = (
        select(StageRun.state, func.count(), func.array_agg(StageRun.output_digest))
        .where(StageRun.run_id == place.run.id, StageRun.stage == name, StageRun.element.is_not(None))
        .group_by(StageRun.state)
    )
    found = {state: (count, digests) for state, count, digests in uow.execute(counted)}
    if StageState.RUNNING in found:
        return
    (main,) = _load(uow, [place.mains[name].id]).values()
    bad = sum(count for state, (count, _) in found.items() if state in BAD)
    total = sum(count for count, _ in found.values())
    if bad:
        _finish(uow, place, main, StageState.FAILED, f"{bad} of {total} elements did not succeed")
        return
    digests = [digest for _, some in found.values() for digest in some]
    main.output_digest = None if None in digests else outputs.join(digests)
    _finish(uow, place, main, StageState.SUCCEEDED)


def _go_on(uow: UnitOfWork, place: Position) -> None:
    """Begin what may begin, again and again while that lets others begin: what is reused ends at once."""
    while True:
        step = decide(place.graph, place.states, _results(place))
        names = [*step.ends, *step.ready]
        if not names:
            return
        rows = _load(uow, [place.mains[name].id for name in names])
        place.changed |= rows
        by_name = {row.stage: row for row in rows.values()}
        for name, state in step.ends.items():
            _finish(uow, place, by_name[name], state, _why(place, name, state))
        if not step.ready:
            continue
        outcome = launch(uow, place.run, place.recipe, [_launch(place, by_name[name]) for name in step.ready])
        for name, (state, message) in outcome.ended.items():
            if state is StageState.REUSED:
                by_name[name].output_of, by_name[name].output_digest = outcome.reused[name]
            if state is StageState.SUCCEEDED:  # mapped over nothing
                uow.move(by_name[name], StageState.RUNNING, stage=name)
            _finish(uow, place, by_name[name], state, message)
        for name in outcome.begun:
            by_name[name].message = ""
            uow.move(by_name[name], StageState.RUNNING, stage=name)
            place.states[name] = StageState.RUNNING
        if outcome.wait:
            place.run.look_at, place.run.message = uow.clock.now() + PAUSE, outcome.wait
            return
        place.run.message = ""
        if not outcome.ended:
            return


def _launch(place: Position, stage: StageRun) -> Launch:
    node = place.graph.nodes[stage.stage]
    inputs = {name: _made(place, name) for name in node.inputs}
    values = place.recipe.flow.stages[stage.stage].over
    if node.over is not None:
        told = _results(place).get(node.over)
        values = tuple(told) if isinstance(told, list) else None
    return Launch(stage, inputs, values, mapped=node.over is not None or values is not None)


def _made(place: Position, name: str) -> tuple[UUID | None, str | None]:
    """The job whose artifacts are a stage's output, and their digest."""
    row = place.mains[name]
    now = place.changed.get(row.id)
    return (row.output_of, row.output_digest) if now is None else (now.output_of, now.output_digest)


def _results(place: Position) -> dict[str, object]:
    found = {}
    for name in place.graph.tellers:
        row = place.mains[name]
        now = place.changed.get(row.id)
        found[name] = row.result if now is None else now.result
    return found


def _why(place: Position, name: str, state: StageState) -> str:
    before = place.graph.nodes[name].before
    if state is StageState.BLOCKED:
        bad = next((one for one in before if place.states[one] in BAD), None)
        return f"{bad} ended {place.states[bad]}" if bad else ""
    return "the way that was taken does not lead by it"


def _load(uow: UnitOfWork, ids: Sequence[UUID]) -> dict[UUID, StageRun]:
    rows = uow.session.execute(_BY_IDS, {"ids": list(ids)}).scalars()
    return {row.id: row for row in rows}


def _end(uow: UnitOfWork, place: Position) -> None:
    """All stages have ended, and so has the run: the next of its pipeline may begin."""
    run = place.run
    bad = [name for name, state in place.states.items() if state in BAD]
    lost = _not_made_up_for(place.graph, place.states)
    state = PipelineRunState.FAILED if lost else PipelineRunState.SUCCEEDED
    if run.cancel_asked_at is not None and bad:
        state = PipelineRunState.CANCELLED
    if state is PipelineRunState.FAILED:
        failed = [name for name in lost if place.states[name] is not StageState.BLOCKED]
        run.message = f"{', '.join(failed[:5])}{' and others' if len(failed) > 5 else ''} did not succeed"
    _conclude(uow, run, state)


def _conclude(uow: UnitOfWork, run: PipelineRun, state: PipelineRunState) -> None:
    """The run ends so, and whoever waited for that goes on."""
    uow.move(run, state, pipeline=run.pipeline, **({"reason": run.message} if run.message else {}))
    uow.session.flush()
    _wake_next(uow, run)
    if run.backfill_id is not None:
        go_on_with(uow, run.backfill_id)


def _wake_next(uow: UnitOfWork, run: PipelineRun) -> None:
    following = (
        select(PipelineRun)
        .where(PipelineRun.pipeline_id == run.pipeline_id, PipelineRun.state == PipelineRunState.QUEUED)
        .order_by(PipelineRun.id)
        .limit(1)
    )
    waiting = uow.session.execute(following).scalar_one_or_none()
    if waiting is not None:
        uow.emit("pipeline_run.queued", waiting)


def _not_made_up_for(graph: Graph, states: Mapping[str, StageState]) -> list[str]:
    """Bad stages that no other way made up for: one that waited for any success, and had it."""
    made_up: set[str] = set()
    for name in reversed(graph.order):
        for later in graph.after.get(name, ()):
            rule = graph.nodes[later].rule
            if (rule is TriggerRule.ANY_SUCCESS and states[later] in GOOD) or later in made_up:
                made_up.add(name)
    return [name for name in graph.order if states[name] in BAD and name not in made_up]


def due_runs(uow: UnitOfWork) -> list[UUID]:
    """The net below lost messages: runs that could go on and were not told so; and backfills."""
    ended = (
        select(StageRun.run_id)
        .join(Job, Job.id == StageRun.job_id)
        .where(StageRun.state == StageState.RUNNING, Job.ended_at.is_not(None))
        .distinct()
        .limit(AT_ONCE)
    )
    waits = select(PipelineRun.id).where(
        PipelineRun.ended_at.is_(None),
        (PipelineRun.look_at <= uow.clock.now()) | (PipelineRun.state == PIPELINE_RUN.initial),
    )
    first = (
        waits.ext(distinct_on(PipelineRun.pipeline_id, PipelineRun.state))
        .order_by(PipelineRun.pipeline_id, PipelineRun.state, PipelineRun.id)
        .limit(AT_ONCE)
    )
    return [*dict.fromkeys([*uow.execute(ended).scalars(), *uow.execute(first).scalars()])]


def due_backfills(uow: UnitOfWork) -> list[UUID]:
    """Backfills of which no run goes on: the one that would have gone on with them did not live to."""
    alive = (
        select(PipelineRun.id).where(PipelineRun.backfill_id == Backfill.id, PipelineRun.ended_at.is_(None)).exists()
    )
    idle = select(Backfill.id).where(Backfill.state == BackfillState.RUNNING, ~alive).limit(AT_ONCE)
    return list(uow.execute(idle).scalars())
