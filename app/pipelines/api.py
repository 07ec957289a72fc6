"""Pipelines over HTTP."""

from typing import Any
from uuid import UUID

from flask.views import MethodView

from app.core.paging import Page, Sort, page
from app.http.blueprint import Blueprint
from app.http.paging import PageQuery, page_of, page_request
from app.http.schema import Text
from app.http.transaction import current_uow
from app.pipelines import runs, schedules, schemas, service
from app.pipelines.definition import PipelineSpec
from app.pipelines.models import Backfill, Pipeline, PipelineRun
from app.pipelines.runs import RunSpec
from app.pipelines.schedules import BackfillSpec
from app.pipelines.service import Applied

blp = Blueprint("pipelines", __name__, url_prefix="/pipelines", description="Stages that are jobs, in order.")
SORTS = {"name": Sort(Pipeline.name, False), "-created_at": Sort(Pipeline.created_at, True)}
RUN_SORTS = {"created_at": Sort(PipelineRun.created_at, False), "-created_at": Sort(PipelineRun.created_at, True)}
SHOWN_TIMES = 100


class PipelineQuery(PageQuery):
    """Which pipelines."""

    name = Text(longest=63)
    project = Text(longest=63, metadata={"description": "its name or id"})


def _whole(applied: Applied) -> dict[str, Any]:
    names = ("id", "project_id", "name", "description", "number", "concurrency", "actor_name", "created_at", "version")
    return {name: getattr(applied.pipeline, name) for name in names} | {
        "definition": applied.version.definition,
        "changed": applied.changed,
        "schedule": schedules.schedule_of(current_uow(), applied.pipeline.id),
    }


def _shown(run: PipelineRun) -> dict[str, Any]:
    uow = current_uow()
    uow.flush()
    return {**{column.key: getattr(run, column.key) for column in run.__table__.c}, "stages": runs.look_at(uow, run)}


@blp.route("")
class Pipelines(MethodView):
    """All pipelines."""

    @blp.arguments(PipelineQuery, location="query")
    @blp.response(200, page_of(schemas.PipelineSchema))
    def get(self, query: dict[str, Any]) -> Page[Pipeline]:
        """List the pipelines of one's projects."""
        uow = current_uow()
        found = uow.visible(Pipeline).where(Pipeline.removed_at.is_(None))
        if "name" in query:
            found = found.where(Pipeline.name == query["name"])
        if "project" in query:
            found = found.where(Pipeline.project_id.in_(service.projects_called(uow, query["project"])))
        return page(uow, found, Pipeline, page_request(query, SORTS, "name"))

    @blp.arguments(schemas.PipelineBody)
    @blp.response(201, schemas.OnePipelineSchema)
    def post(self, spec: PipelineSpec) -> Any:
        """Apply a definition: a new pipeline, a new version of one, or nothing where it has not changed."""
        applied = service.apply_pipeline(current_uow(), spec)
        return _whole(applied), 201 if applied.changed and not spec.dry_run else 200


@blp.route("/<uuid:pipeline_id>")
class OnePipeline(MethodView):
    """One pipeline."""

    @blp.response(200, schemas.OnePipelineSchema)
    def get(self, pipeline_id: UUID) -> dict[str, Any]:
        """Read a pipeline with its newest definition."""
        uow = current_uow()
        pipeline = service.find_pipeline(uow, pipeline_id)
        return _whole(Applied(pipeline, service.version_of(uow, pipeline, pipeline.number), changed=False))

    @blp.response(204)
    def delete(self, pipeline_id: UUID) -> None:
        """Run it no more; its runs stay to be looked at."""
        service.remove_pipeline(current_uow(), pipeline_id)


@blp.route("/<uuid:pipeline_id>/versions")
class Versions(MethodView):
    """What was applied."""

    @blp.response(200, schemas.VersionListSchema)
    def get(self, pipeline_id: UUID) -> dict[str, Any]:
        """List the versions of a pipeline, the newest first."""
        uow = current_uow()
        return {"items": service.versions_of(uow, service.find_pipeline(uow, pipeline_id))}


@blp.route("/<uuid:pipeline_id>/runs")
class Runs(MethodView):
    """Runs of a pipeline."""

    @blp.arguments(PageQuery, location="query")
    @blp.response(200, page_of(schemas.RunSchema))
    def get(self, query: dict[str, Any], pipeline_id: UUID) -> Page[PipelineRun]:
        """List the runs of a pipeline, the newest first."""
        uow = current_uow()
        found = uow.visible(PipelineRun).where(PipelineRun.pipeline_id == uow.get(Pipeline, pipeline_id).id)
        return page(uow, found, PipelineRun, page_request(query, RUN_SORTS, "-created_at"))

    @blp.arguments(schemas.RunBody)
    @blp.response(201, schemas.RunSchema)
    def post(self, spec: RunSpec, pipeline_id: UUID) -> PipelineRun:
        """Have a pipeline run: all of it, or a part."""
        return runs.start_run(current_uow(), pipeline_id, spec)


@blp.route("/runs/<uuid:run_id>")
class OneRun(MethodView):
    """One run."""

    @blp.response(200, schemas.OneRunSchema)
    def get(self, run_id: UUID) -> dict[str, Any]:
        """Read a run with its stages."""
        return _shown(current_uow().get(PipelineRun, run_id))


@blp.route("/runs/<uuid:run_id>/stages/<stage>/elements")
class Elements(MethodView):
    """A mapped stage of a run."""

    @blp.response(200, schemas.ElementListSchema)
    def get(self, run_id: UUID, stage: str) -> dict[str, Any]:
        """List the elements of a mapped stage."""
        uow = current_uow()
        return {"items": runs.elements_of(uow, uow.get(PipelineRun, run_id), stage)}


@blp.route("/runs/<uuid:run_id>/cancel")
class Cancel(MethodView):
    """Ending a run."""

    @blp.arguments(schemas.CancelBody, required=False)
    @blp.response(200, schemas.OneRunSchema)
    def post(self, body: dict[str, Any], run_id: UUID) -> dict[str, Any]:
        """End a run and its jobs."""
        return _shown(runs.cancel_run(current_uow(), run_id, reason=body["reason"], force=body["force"]))


@blp.route("/runs/<uuid:run_id>/again")
class Again(MethodView):
    """Doing a run again."""

    @blp.arguments(schemas.AgainBody, required=False)
    @blp.response(201, schemas.RunSchema)
    def post(self, body: dict[str, Any], run_id: UUID) -> PipelineRun:
        """Do again what did not succeed, or the whole, of the same version and with the same parameters."""
        return runs.run_again(current_uow(), run_id, whole=body["whole"])


@blp.route("/<uuid:pipeline_id>/schedule")
class Schedule(MethodView):
    """When a pipeline runs by itself."""

    @blp.arguments(schemas.PauseBody)
    @blp.response(200, schemas.ScheduleSchema)
    def patch(self, body: dict[str, Any], pipeline_id: UUID) -> Any:
        """Hold a schedule back, or let it go on from now."""
        uow = current_uow()
        return schedules.pause_schedule(uow, service.find_pipeline(uow, pipeline_id), paused=body["paused"])


@blp.route("/<uuid:pipeline_id>/backfills")
class Backfills(MethodView):
    """Runs for the past."""

    @blp.arguments(schemas.BackfillBody)
    @blp.response(201, schemas.OneBackfillSchema)
    def post(self, spec: BackfillSpec, pipeline_id: UUID) -> Any:
        """Run for each fire time of a range, a few at once; a dry run says which."""
        uow = current_uow()
        pipeline = service.find_pipeline(uow, pipeline_id)
        runs.check_parameters(uow, pipeline, spec.parameters or {})
        backfill, times = schedules.start_backfill(uow, pipeline, spec)
        body: dict[str, Any] = {"backfill": backfill, "count": len(times)}
        return (body | {"times": times[:SHOWN_TIMES]}, 200) if spec.dry_run else (body, 201)


@blp.route("/backfills/<uuid:backfill_id>")
class OneBackfill(MethodView):
    """One backfill."""

    @blp.response(200, schemas.OneBackfillSchema)
    def get(self, backfill_id: UUID) -> dict[str, Any]:
        """Read how far a backfill is."""
        return {"backfill": current_uow().get(Backfill, backfill_id)}


@blp.route("/backfills/<uuid:backfill_id>/cancel")
class CancelBackfill(MethodView):
    """Ending a backfill."""

    @blp.response(200, schemas.OneBackfillSchema)
    def post(self, backfill_id: UUID) -> dict[str, Any]:
        """Make no more runs of a backfill; those that were made go on."""
        return {"backfill": schedules.cancel_backfill(current_uow(), backfill_id)}
