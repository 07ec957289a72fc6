"""Jobs over HTTP."""

from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from flask import Response, current_app
from flask.views import MethodView

from app.http.blueprint import Blueprint
from app.http.paging import page_request
from app.http.transaction import current_uow, if_match
from app.jobs import answer_schemas as answers
from app.jobs import (
    arrays,
    checkpoints,
    gangs,
    groups,
    listing,
    losses,
    metrics,
    migrations,
    query_schemas,
    schemas,
    series,
    service,
    suspensions,
    workflows,
)
from app.jobs.groups import Change, Group
from app.jobs.models import Job
from app.jobs.spec import JobSpec
from app.jobs.workflows import WorkflowSpec
from app.storage.checkpoints import Place, list_checkpoints, present
from app.storage.schemas import SavedCheckpointListSchema
from trellis.errors import Field, Invalid
from trellis.vocabulary import GroupKind

blp = Blueprint("jobs", __name__, url_prefix="/jobs", description="Everything that runs is a job.")


_CHANGES = {
    "suspend": suspensions.suspend_job,
    "resume": suspensions.resume_job,
    "give_up": losses.give_up_node,
}


def _shown(*jobs: Job) -> list[dict[str, Any]]:
    uow = current_uow()
    names = listing.names_for(uow, jobs)
    return [listing.present(job, names, uow.clock.now()) for job in jobs]


def _tried(job: Job) -> dict[str, Any]:
    """Whether a job that is not kept could ever start."""
    never = current_app.extensions["why_never"](current_uow(), job)
    return {"could_start": not never, "why": never}


def _tagged(job: Job) -> tuple[dict[str, Any], int, dict[str, str]]:
    return _shown(job)[0], 200, {"ETag": f'"{job.version}"'}


def _changed(group: Group, change: Change) -> dict[str, Any]:
    uow = current_uow()
    changed = groups.change_group(uow, group, change)
    uow.flush()
    return listing.present_group(groups.summarise(uow, group)) | {"changed": changed}


def _of_workflow(jobs: Sequence[Job]) -> Group:
    found = groups.group_of(jobs[0])
    if found is None:
        raise ValueError("these jobs are of no workflow")
    return found


@blp.route("")
class Jobs(MethodView):
    """The collection."""

    @blp.arguments(query_schemas.JobQuerySchema, location="query")
    @blp.response(200, answers.JobPageSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List jobs: filter, sort, page."""
        page = listing.list_jobs(current_uow(), query, page_request(query, listing.SORTS, "-submitted_at"))
        items = _shown(*page.items)
        if query.get("grouped"):
            standing = groups.groups_of(current_uow(), page.items)
            items = [
                item | ({"group": listing.present_group(standing[item["id"]])} if item["id"] in standing else {})
                for item in items
            ]
        return {"items": items, "next_cursor": page.next_cursor}

    @blp.arguments(schemas.JobSubmitSchema)
    @blp.response(201, answers.JobSchema)
    def post(self, spec: JobSpec) -> Any:
        """Submit a job; with `array`, many at once."""
        uow = current_uow()
        if spec.array is None:
            job, place = service.submit_job(uow, spec)
            return (
                listing.present(job, listing.names_at(place), uow.clock.now())
                | (_tried(job) if spec.dry_run else {})
                | {"notes": gangs.notes_on(job.spec)},
                200 if spec.dry_run else 201,
                {"Location": f"/api/v1/jobs/{job.id}"},
            )
        array, place = arrays.submit_array(uow, spec, spec.array)
        names = listing.names_at(place)
        body = {
            "array_id": array.id,
            "items": [listing.present(job, names, uow.clock.now()) for job in array.jobs],
            "count": array.count,
            "next_cursor": None,
        }
        return Response(current_app.json.dumps(answers.JobPageSchema().dump(body)), 201, mimetype="application/json")


@blp.route("/batch")
class JobBatch(MethodView):
    """Many submissions in one request."""

    @blp.arguments(schemas.BatchSchema)
    @blp.response(201, answers.JobPageSchema)
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Submit up to 1,000 jobs, all or none."""
        jobs = service.submit_batch(current_uow(), body["jobs"])
        return {"items": _shown(*jobs), "count": len(jobs), "next_cursor": None}


@blp.route("/workflows")
class Workflows(MethodView):
    """Jobs that wait for one another."""

    @blp.arguments(schemas.WorkflowSubmitSchema)
    @blp.response(201, answers.WorkflowSchema)
    def post(self, spec: WorkflowSpec) -> Any:
        """Submit a workflow: up to 1,000 jobs by name, all or none."""
        jobs = workflows.submit_workflow(current_uow(), spec)
        body = listing.present_group(groups.Summary(_of_workflow(jobs), jobs[0], Counter(job.state for job in jobs)))
        return body | {"items": _shown(*jobs)}, 200 if spec.dry_run else 201


@blp.route("/workflows/<uuid:workflow_id>")
class WorkflowItem(MethodView):
    """One workflow."""

    @blp.response(200, answers.JobGroupSchema)
    def get(self, workflow_id: UUID) -> Any:
        """Show a workflow: how many of its jobs are in which state."""
        return listing.present_group(groups.summarise(current_uow(), Group(GroupKind.WORKFLOW, workflow_id)))


@blp.route("/workflows/<uuid:workflow_id>/status")
class WorkflowStatus(MethodView):
    """Where a workflow is going."""

    @blp.arguments(query_schemas.WorkflowStatusSchema)
    @blp.response(200, answers.JobGroupSchema)
    def patch(self, change: Change, workflow_id: UUID) -> Any:
        """Cancel, suspend or resume a workflow as one."""
        return _changed(Group(GroupKind.WORKFLOW, workflow_id), change)


@blp.route("/arrays/<uuid:array_id>")
class ArrayItem(MethodView):
    """One array."""

    @blp.response(200, answers.JobGroupSchema)
    def get(self, array_id: UUID) -> Any:
        """Show an array: how many of its elements are in which state."""
        return listing.present_group(groups.summarise(current_uow(), Group(GroupKind.ARRAY, array_id)))


@blp.route("/arrays/<uuid:array_id>/status")
class ArrayStatus(MethodView):
    """Where an array is going."""

    @blp.arguments(query_schemas.ArrayStatusSchema)
    @blp.response(200, answers.JobGroupSchema)
    def patch(self, change: Change, array_id: UUID) -> Any:
        """Cancel, suspend, resume or retry an array or some elements of it."""
        return _changed(Group(GroupKind.ARRAY, array_id), change)


@blp.route("/<uuid:job_id>")
class JobItem(MethodView):
    """One job."""

    @blp.arguments(query_schemas.VerboseSchema, location="query")
    @blp.response(200, answers.JobSchema)
    def get(self, query: dict[str, Any], job_id: UUID) -> Any:
        """Show a job; with `verbose`, its spec, dependencies and attempts."""
        uow = current_uow()
        job = uow.get(Job, job_id)
        body, status, headers = _tagged(job)
        if query["verbose"]:
            body |= listing.history(uow, job)
        return body, status, headers


@blp.route("/<uuid:job_id>/status")
class JobStatus(MethodView):
    """Where a job is going."""

    @blp.arguments(query_schemas.StatusChangeSchema)
    @blp.response(200, answers.JobSchema)
    def patch(self, change: dict[str, Any], job_id: UUID) -> Any:
        """Cancel, suspend, resume or migrate a job, give up its silent nodes, or retry it (which answers the new job)."""
        uow = current_uow()
        if change["action"] == "retry":
            return _tagged(service.retry_job(uow, job_id))
        if change["action"] == "migrate":
            why_never = current_app.extensions["why_never"]
            aim = {"to": change.get("to", ""), "reason": change["reason"]}
            return _tagged(migrations.migrate_job(uow, job_id, if_match(), why_never, **aim))
        if act := _CHANGES.get(change["action"]):
            return _tagged(act(uow, job_id, if_match(), reason=change["reason"]))
        return _tagged(service.cancel_job(uow, job_id, if_match(), reason=change["reason"], force=change["force"]))


@blp.route("/<uuid:job_id>/events")
class JobEvents(MethodView):
    """What happened to a job."""

    @blp.arguments(query_schemas.EventQuerySchema, location="query")
    @blp.response(200, answers.EventPageSchema)
    def get(self, query: dict[str, Any], job_id: UUID) -> dict[str, Any]:
        """List the events of a job, its attempts and its replicas, oldest first."""
        uow = current_uow()
        cursor = query.get("cursor") or "0"
        if not cursor.isdigit() or len(cursor) > 18:
            raise Invalid(Field("/cursor", "is not a cursor of this list: start again without it"))
        job = uow.get(Job, job_id)
        found = listing.list_events(uow, job, query.get("kind"), int(cursor), query["limit"])
        more = str(found[-1].id) if len(found) == query["limit"] else None
        return {"items": [listing.present_event(event) for event in found], "next_cursor": more}


@blp.route("/<uuid:job_id>/metrics")
class JobMetrics(MethodView):
    """What a job measures of itself."""

    @blp.arguments(query_schemas.MetricQuerySchema, location="query")
    @blp.response(200, answers.MetricsSchema)
    def get(self, query: dict[str, Any], job_id: UUID) -> dict[str, Any]:
        """Show the latest value of each metric, or with `name` the points of one."""
        uow = current_uow()
        job = uow.get(Job, job_id)
        if "name" in query:
            return {"points": metrics.series(uow, job, query["name"], query["limit"])}
        return {"latest": metrics.latest(uow, job)}


@blp.route("/<uuid:job_id>/metrics/series")
class JobSeries(MethodView):
    """Metrics over time."""

    @blp.arguments(query_schemas.SeriesQuerySchema, location="query")
    @blp.response(200, answers.SeriesSchema)
    def get(self, query: series.SeriesQuery, job_id: UUID) -> series.Table:
        """Show metrics over time: the mean (or `agg`) of each `resolution` seconds between `from` and `to`."""
        uow = current_uow()
        return series.over_time(uow, uow.get(Job, job_id), query)


@blp.route("/<uuid:job_id>/checkpoints")
class JobCheckpoints(MethodView):
    """What a job can go on from."""

    @blp.response(200, SavedCheckpointListSchema)
    def get(self, job_id: UUID) -> dict[str, Any]:
        """List the checkpoints of a job, newest first."""
        uow = current_uow()
        uow.get(Job, job_id)
        place: Place = current_app.extensions["checkpoints"]
        return {"items": [present(row, place) for row in list_checkpoints(uow, job_id)], "next_cursor": None}

    @blp.response(202, answers.JobSchema)
    def post(self, job_id: UUID) -> Any:
        """Have the running replicas of a job save a checkpoint soon."""
        return _shown(checkpoints.ask_checkpoint(current_uow(), job_id))[0]
