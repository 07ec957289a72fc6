"""Capacity outside the queues over HTTP."""

from typing import Any
from uuid import UUID

from flask import current_app
from flask.views import MethodView

from app.core.paging import Page, Sort
from app.core.throttle import OneAtATime
from app.http.blueprint import Blueprint
from app.http.paging import PageQuery, page_of, page_request
from app.http.transaction import current_uow, etag, if_match, outside, reading, signed_in
from app.resources.allocations import AllocationReport, report
from app.resources.models import Reservation
from app.resources.reservations import present
from app.resources.schemas import AllocationSchema, ReservationSchema
from app.scheduling import claims, dry_runs, policy, schemas, whatif
from app.scheduling.explain import QueueExplained, explain_queue
from app.scheduling.idleness import CapacityReport, report_capacity
from app.scheduling.models import PolicyVersion

resources = Blueprint("claims", __name__, url_prefix="/resources", description="Capacity outside the queues.")
scheduling = Blueprint("scheduling", __name__, url_prefix="/scheduling", description="How jobs are ranked and placed.")
explanations = Blueprint("explanations", __name__, url_prefix="/queues", description="Why jobs wait.")
dry = Blueprint("dry_runs", __name__, url_prefix="/jobs", description="What would happen to jobs.")
BLUEPRINTS = (resources, scheduling, explanations, dry)
VERSION_SORTS = {
    "-version": Sort(PolicyVersion.number, descending=True),
    "version": Sort(PolicyVersion.number, descending=False),
}


@resources.route("/allocate")
class Allocate(MethodView):
    """Holding something now."""

    @resources.arguments(schemas.AllocateSchema)
    @resources.response(201, AllocationSchema)
    def post(self, spec: claims.AllocationSpec) -> tuple[AllocationReport, dict[str, str]]:
        """Hold a part of a node for a project, outside the queues, until it is given back or its time is over."""
        allocation = claims.allocate(current_uow(), spec)
        return report(current_uow(), [allocation])[0], etag(allocation)


@resources.route("/reserve")
class Reserve(MethodView):
    """Claiming something for later."""

    @resources.arguments(schemas.ReserveSchema)
    @resources.response(201, ReservationSchema)
    def post(self, spec: claims.ReservationSpec) -> Any:
        """Claim parts of nodes for a project over a window (its administrators)."""
        return _reserved(claims.reserve(current_uow(), spec))


@resources.route("/what-if")
class WhatIf(MethodView):
    """Asking before submitting."""

    @outside
    @signed_in
    @resources.arguments(schemas.WhatIfSchema)
    @resources.response(200, schemas.WhatIfAnswerSchema)
    def post(self, wish: whatif.WishSpec) -> dict[str, Any]:
        """Say what would become of a job if it were submitted now: where, when, who would go; nothing is changed."""
        one_at_a_time: OneAtATime = current_app.extensions["what_if"]
        with one_at_a_time.turn():
            case = reading(lambda uow: whatif.read_case(uow, wish))
            seen = whatif.plan_case(case)
        return reading(lambda uow: whatif.report_case(uow, case, seen))


@dry.route("/dry-run")
class DryRuns(MethodView):
    """Submitting without it."""

    @outside
    @signed_in
    @dry.arguments(schemas.DryRunSchema)
    @dry.response(200, schemas.DryRunAnswerSchema)
    def post(self, wish: dry_runs.DryRun) -> dict[str, Any]:
        """Say what would happen to a job, an array, a batch or a workflow: stored how, refused why, started where and when."""
        one_at_a_time: OneAtATime = current_app.extensions["what_if"]
        with one_at_a_time.turn():
            case = reading(lambda uow: dry_runs.read_dry_run(uow, wish))
            seen = dry_runs.plan_dry_run(case)
        return reading(lambda uow: dry_runs.report_dry_run(uow, case, seen))


@resources.route("/capacity")
class Capacity(MethodView):
    """The whole cluster."""

    @resources.response(200, schemas.CapacitySchema)
    def get(self) -> CapacityReport:
        """Show what the cluster has and gives, which devices are idle, and how much of that is fragmented."""
        return report_capacity(current_uow())


@scheduling.route("/policy")
class Policy(MethodView):
    """How the platform schedules."""

    @scheduling.arguments(schemas.PolicyQuerySchema, location="query")
    @scheduling.response(200, schemas.PolicySchema)
    def get(self, query: dict[str, Any]) -> Any:
        """Show the scheduling policy in force, or an earlier version; the ETag is the number of its version."""
        return _tagged(policy.get_policy(current_uow(), query.get("version")))

    @scheduling.arguments(schemas.PolicySchema)
    @scheduling.response(200, schemas.PolicySchema)
    def put(self, wanted: policy.SchedulingPolicy) -> Any:
        """Put a scheduling policy in force, whole, from the next cycle on (platform administrators)."""
        return _tagged(policy.change_policy(current_uow(), wanted, if_match()))


@scheduling.route("/policy/versions")
class PolicyVersions(MethodView):
    """How it was before."""

    @scheduling.arguments(PageQuery, location="query")
    @scheduling.response(200, page_of(schemas.PolicyVersionSchema))
    def get(self, query: dict[str, Any]) -> Page[PolicyVersion]:
        """List the versions of the scheduling policy, the newest first."""
        return policy.page_of_versions(current_uow(), page_request(query, VERSION_SORTS, "-version"))


@explanations.route("/<uuid:queue_id>/explain")
class Explanation(MethodView):
    """Why its jobs wait."""

    @explanations.arguments(schemas.ExplainQuerySchema, location="query")
    @explanations.response(200, schemas.QueueExplainedSchema)
    def get(self, query: dict[str, UUID], queue_id: UUID) -> QueueExplained:
        """Say in which order the jobs of a queue wait, and why each kind of them does; or what waits before one job."""
        return explain_queue(current_uow(), queue_id, query.get("job"))


def _tagged(found: policy.InForce) -> tuple[policy.SchedulingPolicy, dict[str, str]]:
    return found.policy, {"ETag": f'"{found.version}"'}


def _reserved(reservation: Reservation) -> tuple[dict[str, Any], dict[str, str]]:
    current_uow().session.flush()
    return present(current_uow(), [reservation])[0], etag(reservation)
