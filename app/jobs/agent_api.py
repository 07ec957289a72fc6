"""What nodes call about their replicas; bodies are the values of `trellis.wire`."""

from collections.abc import Collection, Sequence
from typing import Any
from uuid import UUID

from flask import Response, current_app, request
from flask.views import MethodView

from app.core.access import Permission
from app.core.ids import new_id
from app.core.settings import Settings
from app.http import strict_json
from app.http.blueprint import Blueprint
from app.http.transaction import acting, current_uow, keyring, outside
from app.http.wire_body import body_as, described
from app.jobs import checkpoints, orders, replica_files, shipments
from app.jobs.code import bundle_for
from app.jobs.replica_files import Offer
from app.resources.nodes import read_node_tokens
from app.storage import artifacts
from app.storage.artifacts import Content, Label
from app.storage.bundles import contents, manifest_of
from app.storage.checkpoints import Place
from trellis import wire
from trellis.errors import Field, Invalid, Unauthenticated
from trellis.stores.base import Store
from trellis.stores.manifests import PACKED_AT_MOST

blp = Blueprint("agent_jobs", __name__, url_prefix="/agent", description="For nodes.")


@blp.route("/heartbeat")
class Heartbeats(MethodView):
    """A node lives."""

    @blp.doc(**described("Heartbeat", "Orders"))
    def post(self) -> Any:
        """Renew the node's lease; hear what to run and what to stop."""
        node_id = _acting_node()
        beats = {node_id: body_as(wire.Heartbeat)}
        given = orders.give_orders(current_uow(), beats, current_app.extensions["settings"], _place())
        return wire.pack(given[node_id])


@blp.route("/host/heartbeats")
class HostHeartbeats(MethodView):
    """Several nodes live."""

    @blp.doc(**described("HostHeartbeat", "HostOrders"))
    def post(self) -> Any:
        """Renew the leases of several nodes, each by its token; hear what each is to run and to stop."""
        uow, body = current_uow(), body_as(wire.HostHeartbeat)
        node_ids = _nodes_of(body.tokens)
        if not len(node_ids) == len(set(node_ids)) == len(body.heartbeats):
            raise Invalid(Field("/heartbeats", "must be one for each token, of different nodes"))
        beats = dict(zip(node_ids, body.heartbeats, strict=True))
        given = orders.give_orders(uow, beats, current_app.extensions["settings"], _place())
        return wire.pack(wire.HostOrders(tuple(given[node_id] for node_id in node_ids)))


@blp.route("/specs")
class Specs(MethodView):
    """What to run."""

    @blp.doc(**described("replicas: a list of [id, fence]", "specs: of ReplicaSpec; stale: ids that are not to run"))
    def post(self) -> Any:
        """Fetch the specs of replicas that a message named."""
        node_id = current_uow().actor.id
        return _specs(request.get_json(), [] if node_id is None else [node_id])


@blp.route("/host/specs")
class HostSpecs(MethodView):
    """What several nodes are to run."""

    @blp.doc(**described("tokens: of the nodes; replicas: a list of [id, fence]", "specs: of ReplicaSpec; stale: ids"))
    def post(self) -> Any:
        """Fetch the specs of replicas that messages to several nodes named."""
        body = request.get_json()
        tokens = body.get("tokens") if isinstance(body, dict) else None
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise Invalid(Field("/tokens", "must be a list of node tokens"))
        return _specs(body, _nodes_of(tokens))


@blp.route("/shipments")
class Shipments(MethodView):
    """What came of it."""

    @blp.doc(**described("Shipment", "Receipt"))
    def post(self) -> Any:
        """Take in logs, metrics and reports."""
        return _take_in(body_as(wire.Shipment), [_acting_node()])


@blp.route("/host/shipments")
class HostShipments(MethodView):
    """What came of it on several nodes."""

    @blp.doc(**described("HostShipment", "Receipt"))
    def post(self) -> Any:
        """Take in logs, metrics and reports of several nodes."""
        body = body_as(wire.HostShipment)
        return _take_in(body.shipment, _nodes_of(body.tokens))


@blp.route("/replicas/<uuid:replica_id>/artifacts")
class ReplicaArtifacts(MethodView):
    """Files that replicas keep."""

    @blp.doc(
        requestBody={"required": True, "content": {"application/octet-stream": {}}},
        responses={"200": {"description": "id: that of the artifact"}},
    )
    @outside
    def put(self, replica_id: UUID) -> Any:
        """Store a file that a replica saved. The same file again is the same artifact."""
        digest, size = request.headers.get("Digest", "").removeprefix("sha-256="), request.content_length or 0
        settings: Settings = current_app.extensions["settings"]
        offer = Offer(replica_id, request.args.get("fence", ""), _label(), Content(digest, size))
        owner, known = acting(lambda uow: replica_files.admit(uow, offer, settings))
        if known is not None:
            return {"id": str(known)}
        request.max_content_length = size + 1  # None would mean that of other bodies
        store: Store = current_app.extensions["store"]
        key = owner.new_key(new_id())
        written = artifacts.write(store, key, artifacts.incoming(request.stream.read, size))
        if (written.digest, written.size_bytes) != (digest, size):
            store.delete(key)
            raise Invalid(Field("/digest", f"the bytes that arrived have SHA-256 {written.digest}: send them again"))
        return {"id": str(acting(lambda uow: replica_files.keep(uow, offer, key)))}


@blp.route("/replicas/<uuid:replica_id>/code")
class ReplicaCode(MethodView):
    """The directory that a replica runs in."""

    @blp.doc(**described("nothing; `fence` is in the address", "a Manifest of trellis.bundles.manifest"))
    def get(self, replica_id: UUID) -> Any:
        """What is in it."""
        uow = current_uow()
        uow.require(Permission.REPLICA_REPORT)
        return wire.pack(manifest_of(bundle_for(uow, replica_id, request.args.get("fence"))))


@blp.route("/replicas/<uuid:replica_id>/code/blobs")
class ReplicaCodeBlobs(MethodView):
    """Its contents."""

    @blp.doc(
        **described("digests: those of the contents that are wanted", "the contents, as PUT /bundles/blobs has them")
    )
    def post(self, replica_id: UUID) -> Response:
        """Fetch the contents that the node has not got."""
        uow = current_uow()
        uow.require(Permission.REPLICA_REPORT)
        bundle, body = bundle_for(uow, replica_id, request.args.get("fence")), request.get_json()
        digests = body.get("digests") if isinstance(body, dict) else None
        if not isinstance(digests, list) or not all(isinstance(digest, str) for digest in digests):
            raise Invalid(Field("/digests", "must be a list of SHA-256 digests in hex"))
        store: Store = current_app.extensions["store"]
        return Response(contents(uow, store, bundle.id, digests), mimetype="application/octet-stream")


@blp.route("/replicas/<uuid:replica_id>/checkpoints")
class Checkpoints(MethodView):
    """What a replica can go on from."""

    @blp.doc(
        parameters=[{"in": "query", "name": "fence", "required": True, "schema": {"type": "integer"}}],
        requestBody={"required": True, "content": {"application/octet-stream": {}}},
        responses={"200": {"description": "id: of the checkpoint; key: of its signed manifest in the store"}},
    )
    def put(self, replica_id: UUID) -> Any:
        """Record a checkpoint whose chunks are in the store: the body is its manifest."""
        request.max_content_length = PACKED_AT_MOST
        fence = request.args.get("fence", "")
        current_uow().require(Permission.REPLICA_REPORT)
        if not fence.isdecimal() or len(fence) > 18:
            raise Invalid(Field("/fence", "must be the replica's fence"))
        saved = checkpoints.take_in(current_uow(), _place(), replica_id, int(fence), request.get_data())
        return {"id": str(saved.id), "key": saved.key}

    @blp.doc(**described("SaveFailed", "an empty object"))
    def post(self, replica_id: UUID) -> Any:
        """Note that a checkpoint could not be stored."""
        current_uow().require(Permission.REPLICA_REPORT)
        checkpoints.note_failed(current_uow(), replica_id, body_as(wire.SaveFailed))
        return {}


@blp.route("/replicas/<uuid:replica_id>/restored")
class Restores(MethodView):
    """What a replica goes on from."""

    @blp.doc(**described("Restored", "an empty object"))
    def post(self, replica_id: UUID) -> Any:
        """Note from which checkpoint a replica goes on, and which were damaged."""
        current_uow().require(Permission.REPLICA_REPORT)
        checkpoints.note_restored(current_uow(), replica_id, body_as(wire.Restored))
        return {}


def _label() -> Label:
    """What a replica's file is called and is. Raises Invalid."""
    try:
        details = strict_json.loads(request.headers.get("Artifact-Metadata", "{}"))
    except ValueError as error:
        raise Invalid(Field("/metadata", "must be JSON")) from error
    if not isinstance(details, dict):
        raise Invalid(Field("/metadata", "must be an object"))
    return Label(request.args.get("name", ""), request.args.get("type", ""), details=details)


def _place() -> Place:
    place: Place = current_app.extensions["checkpoints"]
    return place


def _acting_node() -> UUID:
    """The node that calls. Raises Unauthenticated for a machine that has yet to join, Forbidden for people."""
    uow = current_uow()
    uow.require(Permission.REPLICA_REPORT)
    if uow.actor.id is None:
        raise Unauthenticated("no node: join first")
    return uow.actor.id


def _nodes_of(tokens: Sequence[str]) -> list[UUID]:
    """The nodes that a host speaks for: it proves of each that it holds its token."""
    _acting_node()
    return read_node_tokens(keyring(), current_uow(), tokens)


def _specs(body: Any, node_ids: Collection[UUID]) -> dict[str, Any]:
    try:
        pairs = [(str(UUID(replica_id)), int(fence)) for replica_id, fence in body["replicas"]]
    except (TypeError, KeyError, ValueError) as error:
        raise Invalid(Field("/replicas", "must be a list of [id, fence]")) from error
    specs, stale = orders.specs_for(current_uow(), pairs[:1000], node_ids, _place())
    return {"specs": wire.pack(specs), "stale": stale}


def _take_in(shipment: wire.Shipment, node_ids: Collection[UUID]) -> Any:
    for replica_id in shipment.replica_ids:
        try:
            UUID(replica_id)
        except ValueError as error:
            raise Invalid(Field("/replica_id", "must be an id")) from error
    return wire.pack(shipments.apply_shipment(current_uow(), shipment, frozenset(node_ids)))
