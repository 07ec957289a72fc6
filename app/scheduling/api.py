"""Capacity outside the queues over HTTP."""

from typing import Any

from flask.views import MethodView

from app.http.blueprint import Blueprint
from app.http.transaction import current_uow, etag
from app.resources.allocations import AllocationReport, report
from app.resources.models import Reservation
from app.resources.reservations import present
from app.resources.schemas import AllocationSchema, ReservationSchema
from app.scheduling import claims, schemas

resources = Blueprint("claims", __name__, url_prefix="/resources", description="Capacity outside the queues.")
BLUEPRINTS = (resources,)


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


@resources.route("/maintenance")
class Maintenance(MethodView):
    """Working on nodes."""

    @resources.arguments(schemas.MaintenanceSchema)
    @resources.response(201, ReservationSchema)
    def post(self, spec: claims.MaintenanceSpec) -> Any:
        """Claim whole nodes for maintenance over a window (platform administrators)."""
        return _reserved(claims.plan_maintenance(current_uow(), spec))


def _reserved(reservation: Reservation) -> tuple[dict[str, Any], dict[str, str]]:
    current_uow().session.flush()
    return present(current_uow(), [reservation])[0], etag(reservation)
