"""What nodes call about their replicas; bodies are the values of `trellis.wire`."""

import re
from typing import Any
from uuid import UUID

from flask import current_app, request
from flask.views import MethodView

from app.core.access import Permission
from app.http.blueprint import Blueprint
from app.http.transaction import current_uow
from app.http.wire_body import body_as, described
from app.jobs import shipments
from app.jobs.models import Replica
from app.storage.artifacts import Upload, save
from trellis import wire
from trellis.errors import Field, Invalid, StaleFence
from trellis.stores.base import Store

# A name is only shown: the store's key is made by the server. Segments all the same, for whoever saves it as a file.
_NAME = re.compile(r"(?=.{1,255}$)[A-Za-z0-9_][A-Za-z0-9._-]*(/[A-Za-z0-9_][A-Za-z0-9._-]*)*", re.ASCII)
blp = Blueprint("agent_jobs", __name__, url_prefix="/agent", description="For nodes.")


@blp.route("/heartbeat")
class Heartbeats(MethodView):
    """A node lives."""

    @blp.doc(**described("Heartbeat", "Orders"))
    def post(self) -> Any:
        """Renew the node's lease; hear what to run and what to stop."""
        heartbeat = body_as(wire.Heartbeat)
        orders = shipments.give_orders(current_uow(), heartbeat, current_app.extensions["settings"])
        return wire.pack(orders)


@blp.route("/specs")
class Specs(MethodView):
    """What to run."""

    @blp.doc(**described("replicas: a list of [id, fence]", "specs: of ReplicaSpec; stale: ids that are not to run"))
    def post(self) -> Any:
        """Fetch the specs of replicas that a message named."""
        body = request.get_json()
        try:
            pairs = [(str(UUID(replica_id)), int(fence)) for replica_id, fence in body["replicas"]]
        except (TypeError, KeyError, ValueError) as error:
            raise Invalid(Field("/replicas", "must be a list of [id, fence]")) from error
        specs, stale = shipments.specs_for(current_uow(), pairs[:1000])
        return {"specs": wire.pack(specs), "stale": stale}


@blp.route("/shipments")
class Shipments(MethodView):
    """What came of it."""

    @blp.doc(**described("Shipment", "Receipt"))
    def post(self) -> Any:
        """Take in logs, metrics and reports."""
        shipment = body_as(wire.Shipment)
        for replica_id in shipment.replica_ids:
            try:
                UUID(replica_id)
            except ValueError as error:
                raise Invalid(Field("/replica_id", "must be an id")) from error
        return wire.pack(shipments.apply_shipment(current_uow(), shipment))


@blp.route("/replicas/<uuid:replica_id>/artifacts")
class ReplicaArtifacts(MethodView):
    """Files that replicas keep."""

    @blp.doc(
        requestBody={"required": True, "content": {"application/octet-stream": {}}},
        responses={"200": {"description": "id: that of the artifact"}},
    )
    def put(self, replica_id: UUID) -> Any:
        """Store a file that a replica saved."""
        uow = current_uow()
        uow.require(Permission.REPLICA_REPORT)
        replica = uow.get(Replica, replica_id)
        if request.args.get("fence") != str(replica.fence):
            raise StaleFence(f"replica {replica_id} has another fence")
        name, digest = request.args.get("name", ""), request.headers.get("Digest", "").removeprefix("sha-256=")
        if not _NAME.fullmatch(name):
            raise Invalid(Field("/name", "must be a plain file name"))
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise Invalid(Field("/digest", "send the header Digest: sha-256=<64 hex digits>"))
        upload = Upload(replica.project_id, replica.job_id, replica.id, name, digest)
        store: Store = current_app.extensions["store"]
        parts = iter(lambda: request.stream.read(1 << 20), b"")
        return {"id": str(save(uow, store, upload, parts).id)}
