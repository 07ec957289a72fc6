"""Hardware over HTTP."""

from typing import Any
from uuid import UUID

from flask import current_app
from flask.views import MethodView

from app.core.paging import Sort, page
from app.http.blueprint import Blueprint
from app.http.paging import page_request
from app.http.transaction import answers_secret, current_uow
from app.resources import schemas
from app.resources.allocations import live_on
from app.resources.gpus import gpu_type
from app.resources.models import Gpu, Node
from app.resources.nodes import create_join_token, gpus_of
from trellis.errors import Field, Invalid

SORTS = {"name": Sort(Node.name, descending=False), "-name": Sort(Node.name, descending=True)}
blp = Blueprint("resources", __name__, url_prefix="/resources", description="Machines and their devices.")


@blp.route("/nodes")
class Nodes(MethodView):
    """The machines."""

    @blp.arguments(schemas.NodeQuerySchema, location="query")
    @blp.response(200, schemas.NodePageSchema)
    def get(self, query: dict[str, Any]) -> dict[str, Any]:
        """List nodes with their devices and what the caller may see of their jobs."""
        uow = current_uow()
        statement = uow.visible(Node)
        if query.get("state"):
            statement = statement.where(Node.state.in_(query["state"]))
        if query.get("gpu_type"):
            statement = statement.where(Node.gpu_model == gpu_type(query["gpu_type"]))
        for number, text in enumerate(query.get("label") or ()):
            name, colon, value = text.partition(":")
            if not colon:
                raise Invalid(Field(f"/label/{number}", "must be name:value"))
            statement = statement.where(Node.labels.contains({name: value}))
        found = page(uow, statement, Node, page_request(query, SORTS, "name"))
        return {"items": _shown(*found.items), "next_cursor": found.next_cursor}


@blp.route("/nodes/<uuid:node_id>")
class NodeItem(MethodView):
    """One machine."""

    @blp.response(200, schemas.NodeSchema)
    def get(self, node_id: UUID) -> Any:
        """Show a node."""
        node = current_uow().get(Node, node_id)
        return _shown(node)[0], 200, {"ETag": f'"{node.version}"'}


@blp.route("/join-tokens")
class JoinTokens(MethodView):
    """What lets machines join."""

    @answers_secret
    @blp.arguments(schemas.JoinTokenRequestSchema)
    @blp.response(201, schemas.JoinTokenSchema)
    def post(self, body: dict[str, Any]) -> dict[str, Any]:
        """Make a join token; it is shown once."""
        keyring = current_app.extensions["keyring"]
        token, secret = create_join_token(current_uow(), keyring, body["name"], body["expires_in_s"])
        return {"id": token.id, "token": secret, "expires_at": token.expires_at}


def _shown(*nodes: Node) -> list[dict[str, Any]]:
    uow = current_uow()
    ids = [node.id for node in nodes]
    gpus, held = gpus_of(uow, ids), live_on(uow, ids)
    jobs: dict[UUID, list[dict[str, Any]]] = {node_id: [] for node_id in ids}
    for a in held:
        holder = {"job_id": a.job_id, "name": a.holder_name, "cpu_milli": a.cpu_milli, "memory_bytes": a.memory_bytes}
        jobs[a.node_id].append(holder)
    columns = ("id", "name", "hostname", "state", "isolation", "isolation_detail", "cpu_milli", "cpu_milli_used",
               "memory_bytes", "memory_bytes_used", "gpu_model", "profile", "labels", "last_seen_at", "version")  # fmt: skip
    return [
        {name: getattr(node, name) for name in columns}
        | {
            "load_percent": node.telemetry.get("load_percent"),
            "gpus": [_gpu(gpu, node) for gpu in gpus[node.id]],
            "jobs": jobs[node.id],
        }
        for node in nodes
    ]


def _gpu(gpu: Gpu, node: Node) -> dict[str, Any]:
    shown = ("index", "uuid", "model", "memory_bytes", "milli_used", "numa", "links")
    readings: list[dict[str, Any]] = node.telemetry.get("gpus", [])
    reading = next((r for r in readings if r["index"] == gpu.index), {})
    return {name: getattr(gpu, name) for name in shown} | {k: v for k, v in reading.items() if k != "index"}
