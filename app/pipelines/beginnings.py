"""The stages of a run as it begins: which are to be done, and what those that are not stand for."""

from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on

from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.pipelines.dag import BAD
from app.pipelines.models import PipelineRun, StageRun
from app.pipelines.parameters import resolve
from app.pipelines.service import Recipe
from trellis.errors import Invalid
from trellis.vocabulary import StageState

_MADE = frozenset({StageState.SUCCEEDED, StageState.REUSED})


def settle_parameters(uow: UnitOfWork, run: PipelineRun, recipe: Recipe) -> bool:
    """Give a run of a fire time the values that hold for that; False, with the run's message, where there are none."""
    if run.fire_at is None:
        return True
    try:
        run.parameters = dict(resolve(recipe.flow.parameters, run.parameters, run.fire_at, recipe.zone))
    except Invalid as error:
        run.message = "; ".join(f"{fault.pointer.removeprefix('/')} {fault.message}" for fault in error.fields)
        return False
    return True


def begin(uow: UnitOfWork, run: PipelineRun, recipe: Recipe) -> None:
    """Store a row for each stage."""
    graph = recipe.flow.graph
    chosen = set(run.wanted.get("stages", graph.nodes))
    spared: dict[str, Any] = {}
    if "again_of" in run.wanted:
        before = _of_run(uow, UUID(run.wanted["again_of"]))
        undone = graph.downstream([name for name in graph.nodes if name not in before or before[name].state in BAD])
        spared = {name: row for name, row in before.items() if name not in undone and row.state in _MADE}
    earlier = _earlier(uow, run) if len(chosen) < len(graph.nodes) else {}
    uow.session.add_all(
        StageRun(
            id=new_id(), version=1, project_id=run.project_id, run_id=run.id, stage=name, message="",
            created_at=uow.clock.now(), **_standing(name, chosen, spared, earlier, uow),
        )
        for name in graph.nodes
    )  # fmt: skip


def _standing(
    name: str, chosen: set[str], spared: dict[str, Any], earlier: dict[str, Any], uow: UnitOfWork
) -> dict[str, Any]:
    """How a stage stands at the beginning of a run, and what it made, where that is known."""
    if name in chosen and name not in spared:
        return {"state": StageState.WAITING}
    known = spared.get(name) or earlier.get(name)
    made = {"output_of": known.output_of, "output_digest": known.output_digest, "result": known.result} if known else {}
    state = StageState.REUSED if name in spared else StageState.LEFT_OUT
    return {"state": state, "ended_at": uow.clock.now(), **made}


_COLUMNS = (StageRun.stage, StageRun.state, StageRun.output_of, StageRun.output_digest, StageRun.result)


def _of_run(uow: UnitOfWork, run_id: UUID) -> dict[str, Any]:
    rows = select(*_COLUMNS).where(StageRun.run_id == run_id, StageRun.element.is_(None))
    return {row.stage: row for row in uow.execute(rows)}


def _earlier(uow: UnitOfWork, run: PipelineRun) -> dict[str, Any]:
    """What each stage of the pipeline made when it last succeeded."""
    rows = (
        select(*_COLUMNS)
        .ext(distinct_on(StageRun.stage))
        .join(PipelineRun, PipelineRun.id == StageRun.run_id)
        .where(PipelineRun.pipeline_id == run.pipeline_id, StageRun.element.is_(None), StageRun.state.in_(_MADE))
        .order_by(StageRun.stage, StageRun.id.desc())
    )
    return {row.stage: row for row in uow.execute(rows)}
