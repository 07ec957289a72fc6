"""Hardware over HTTP."""

from typing import Any
from uuid import UUID

from flask import current_app
from flask.views import MethodView
from sqlalchemy import select

from app.core.paging import Page, Sort, page
from app.http.blueprint import Blueprint
from app.http.paging import PageQuery, page_of, page_request
from app.http.schema import ReasonSchema
from app.http.transaction import answers_secret, current_uow, etag, if_match, versioned
from app.resources import (
    allocations,
    cluster,
    cordons,
    drains,
    kinds,
    pools,
    quarantines,
    reservations,
    schemas,
    topology,
    usage,
)
from app.resources.allocations import AllocationReport, count_left, live_on, slots_used
from app.resources.candidates import is_well, labelled
from app.resources.capacity import PoolReport, report_pools
from app.resources.gpus import gpu_type
from app.resources.history import list_node_events
from app.resources.maintenance import MaintenanceSpec, plan_maintenance
from app.resources.models import Allocation, Gpu, Node, Pool, Reservation
from app.resources.nodes import create_join_token, gpus_of
from app.resources.pools import PoolSpec
from app.resources.standing import Drain, Quarantine
from app.resources.traits import Traits, change_node, taints_of
from trellis.errors import Field, Invalid

SORTS = {"name": Sort(Node.name, descending=False), "-name": Sort(Node.name, descending=True)}
COLUMNS = ("id", "name", "hostname", "state", "isolation", "isolation_detail", "cpu_milli", "cpu_milli_used",
           "memory_bytes", "memory_bytes_used", "real_cpu_milli", "real_memory_bytes", "gpu_model", "profile",
           "domains", "pool_id", "spot", "caches", "cordoned_at", "cordon_reason", "last_seen_at",
           "version")  # fmt: skip
POOL_SORTS = {"name": Sort(Pool.name, descending=False), "-name": Sort(Pool.name, descending=True)}
ALLOCATION_SORTS = {"created_at": Sort(Allocation.created_at, False), "-created_at": Sort(Allocation.created_at, True)}
RESERVATION_SORTS = {"starts_at": Sort(Reservation.starts_at, False), "-starts_at": Sort(Reservation.starts_at, True)}
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
        if query.get("name"):
            statement = statement.where(Node.name.in_(query["name"]))
        if query.get("gpu_type"):
            statement = statement.where(Node.gpu_model == gpu_type(query["gpu_type"]))
        for number, text in enumerate(query.get("label") or ()):
            name, colon, value = text.partition(":")
            if not colon:
                raise Invalid(Field(f"/label/{number}", "must be name:value"))
            statement = statement.where(labelled(name, value))
        if query.get("pool"):
            statement = statement.where(Node.pool_id.in_(select(Pool.id).where(Pool.name == query["pool"])))
        for level in ("zone", "cluster"):
            if query.get(level):
                statement = statement.where(labelled(level, query[level]))
        if "healthy" in query:
            statement = statement.where(is_well() if query["healthy"] else ~is_well())
        found = page(uow, statement, Node, page_request(query, SORTS, "name"))
        return {"items": _shown(*found.items), "next_cursor": found.next_cursor}


@blp.route("/nodes/<uuid:node_id>")
class NodeItem(MethodView):
    """One machine."""

    @blp.response(200, schemas.NodeSchema)
    def get(self, node_id: UUID) -> Any:
        """Show a node."""
        return _answer(current_uow().get(Node, node_id))

    @blp.arguments(schemas.NodeChangeSchema)
    @blp.response(200, schemas.NodeSchema)
    def patch(self, traits: Traits, node_id: UUID) -> Any:
        """Say something new of a node: labels, taints, where it lies, its pool, price and caches."""
        return _answer(change_node(current_uow(), node_id, traits, if_match()))


@blp.route("/nodes/<uuid:node_id>/cordon")
class Cordon(MethodView):
    """Keeping a node free."""

    @blp.arguments(ReasonSchema, required=False)
    @blp.response(200, schemas.NodeSchema)
    def put(self, body: dict[str, str], node_id: UUID) -> Any:
        """Place nothing more on a node; what runs there goes on."""
        return _answer(cordons.cordon_node(current_uow(), node_id, body["reason"], if_match()))


@blp.route("/nodes/<uuid:node_id>/uncordon")
class Uncordon(MethodView):
    """Letting a node take work again."""

    @blp.arguments(ReasonSchema, required=False)
    @blp.response(200, schemas.NodeSchema)
    def put(self, body: dict[str, str], node_id: UUID) -> Any:
        """Place work on a node again."""
        return _answer(cordons.uncordon_node(current_uow(), node_id, body["reason"], if_match()))


@blp.route("/nodes/<uuid:node_id>/drain")
class DrainItem(MethodView):
    """Emptying a node."""

    @blp.arguments(schemas.DrainBodySchema, required=False)
    @blp.response(200, schemas.NodeSchema)
    def put(self, spec: drains.DrainSpec, node_id: UUID) -> Any:
        """Place nothing more on a node and have its jobs leave it: those that can go on elsewhere at once."""
        return _answer(drains.drain_node(current_uow(), node_id, spec, if_match()))


@blp.route("/nodes/<uuid:node_id>/undrain")
class Undrain(MethodView):
    """Letting a node that was emptied take work again."""

    @blp.arguments(ReasonSchema, required=False)
    @blp.response(200, schemas.NodeSchema)
    def put(self, body: dict[str, str], node_id: UUID) -> Any:
        """Place work on a node again; what has left it does not come back by itself."""
        return _answer(drains.undrain_node(current_uow(), node_id, body["reason"], if_match()))


@blp.route("/nodes/<uuid:node_id>/quarantine")
class QuarantineItem(MethodView):
    """Not trusting a node."""

    @blp.arguments(schemas.QuarantineBodySchema, required=False)
    @blp.response(200, schemas.NodeSchema)
    def put(self, body: dict[str, Any], node_id: UUID) -> Any:
        """Place nothing more on a node, or on one of its devices, until it is released by hand."""
        return _answer(quarantines.quarantine_node(current_uow(), node_id, body["device"], body["reason"], if_match()))


@blp.route("/nodes/<uuid:node_id>/release")
class Release(MethodView):
    """Trusting it again."""

    @blp.arguments(schemas.QuarantineBodySchema, required=False)
    @blp.response(200, schemas.NodeSchema)
    def put(self, body: dict[str, Any], node_id: UUID) -> Any:
        """End the quarantine of a node, or of one of its devices, whoever ordered it."""
        return _answer(quarantines.release_node(current_uow(), node_id, body["device"], body["reason"], if_match()))


@blp.route("/nodes/<uuid:node_id>/events")
class NodeEvents(MethodView):
    """What happened to a node."""

    @blp.arguments(schemas.NodeEventQuerySchema, location="query")
    @blp.response(200, page_of(schemas.NodeEventSchema))
    def get(self, query: dict[str, Any], node_id: UUID) -> dict[str, Any]:
        """List what happened to a node, the newest first: states, health, what hooks said (platform administrators)."""
        cursor = query.get("cursor")
        if cursor is not None and not (cursor.isdecimal() and len(cursor) <= 18):
            raise Invalid(Field("/cursor", "is not a cursor of this list: start again without it"))
        found = list_node_events(current_uow(), node_id, int(cursor) if cursor else None, query["limit"])
        return {"items": found, "next_cursor": str(found[-1].id) if len(found) == query["limit"] else None}


@blp.route("/kinds")
class Kinds(MethodView):
    """The machines by what they are."""

    @blp.response(200, schemas.KindsSchema)
    def get(self) -> Any:
        """Sum up the nodes by their hardware."""
        return {"items": kinds.list_kinds(current_uow())}


@blp.route("/topology")
class TopologyItem(MethodView):
    """What lies in what."""

    @blp.response(200, schemas.TopologySchema)
    def get(self) -> Any:
        """Show the levels of the topology, widest first."""
        return versioned(topology.get_topology(current_uow()))

    @blp.arguments(schemas.TopologySchema)
    @blp.response(200, schemas.TopologySchema)
    def put(self, body: dict[str, Any]) -> Any:
        """Name the levels of the topology anew."""
        return versioned(topology.set_levels(current_uow(), body["levels"], if_match()))


@blp.route("/cluster")
class Cluster(MethodView):
    """Everything at once."""

    @blp.arguments(schemas.ClusterSchema)
    @blp.response(200, schemas.AppliedSchema)
    def put(self, spec: cluster.ClusterSpec) -> cluster.Applied:
        """Make topology, pools and nodes as a cluster.yaml says, all or nothing; what it does not name stays."""
        return cluster.apply_cluster(current_uow(), spec)


@blp.route("/pools")
class Pools(MethodView):
    """The pools."""

    @blp.arguments(PageQuery, location="query")
    @blp.response(200, page_of(schemas.PoolSchema))
    def get(self, query: dict[str, Any]) -> Page[PoolReport]:
        """List pools with what they have and what is held of it."""
        found = pools.page_of_pools(current_uow(), page_request(query, POOL_SORTS, "name"))
        return Page(report_pools(current_uow(), found.items), found.next_cursor)

    @blp.arguments(schemas.NewPoolSchema)
    @blp.response(201, schemas.PoolSchema)
    def post(self, spec: PoolSpec) -> Any:
        """Make a pool (platform administrators)."""
        return _report(pools.create_pool(current_uow(), spec))


@blp.route("/pools/<uuid:pool_id>")
class PoolItem(MethodView):
    """One pool."""

    @blp.response(200, schemas.PoolSchema)
    def get(self, pool_id: UUID) -> Any:
        """Show a pool with what it has and what is held of it."""
        return _report(current_uow().get(Pool, pool_id))

    @blp.arguments(schemas.PoolChangeSchema)
    @blp.response(200, schemas.PoolSchema)
    def patch(self, changes: dict[str, Any], pool_id: UUID) -> Any:
        """Change a pool; what is left out stays."""
        return _report(pools.change_pool(current_uow(), pool_id, changes, if_match()))

    @blp.response(204)
    def delete(self, pool_id: UUID) -> None:
        """Remove a pool that nothing belongs to."""
        pools.remove_pool(current_uow(), pool_id, if_match())


@blp.route("/allocations")
class Allocations(MethodView):
    """Who holds what now."""

    @blp.arguments(schemas.AllocationQuerySchema, location="query")
    @blp.response(200, page_of(schemas.AllocationSchema))
    def get(self, query: dict[str, Any]) -> Page[AllocationReport]:
        """List what is held now, by jobs and without: of one's projects."""
        uow = current_uow()
        filters: dict[str, UUID] = {name: query[name] for name in ("project_id", "node_id", "job_id") if name in query}
        found = allocations.page_of_live(uow, page_request(query, ALLOCATION_SORTS, "created_at"), filters)
        return Page(allocations.report(uow, found.items), found.next_cursor)


@blp.route("/allocations/<uuid:allocation_id>")
class AllocationItem(MethodView):
    """One of them."""

    @blp.response(200, schemas.AllocationSchema)
    def get(self, allocation_id: UUID) -> Any:
        """Show what is, or was, held."""
        allocation = current_uow().get(Allocation, allocation_id)
        return allocations.report(current_uow(), [allocation])[0], etag(allocation)

    @blp.arguments(schemas.ForceSchema, location="query")
    @blp.response(204)
    def delete(self, query: dict[str, Any], allocation_id: UUID) -> None:
        """Give back what is held without a job: one's own, or with `force` somebody else's (administrators)."""
        allocations.give_back(current_uow(), allocation_id, force=query["force"])


@blp.route("/reservations")
class Reservations(MethodView):
    """Claims on future windows."""

    @blp.arguments(schemas.ReservationQuerySchema, location="query")
    @blp.response(200, page_of(schemas.ReservationSchema))
    def get(self, query: dict[str, Any]) -> Page[dict[str, Any]]:
        """List the reservations of one's projects, and maintenance; with `ended` those that are over too."""
        wanted = page_request(query, RESERVATION_SORTS, "starts_at")
        found = reservations.page_of_reservations(
            current_uow(), wanted, query.get("project_id"), ended=query.get("ended", False)
        )
        return Page(_reserved(*found.items), found.next_cursor)


@blp.route("/reservations/<uuid:reservation_id>")
class ReservationItem(MethodView):
    """One claim."""

    @blp.response(200, schemas.ReservationSchema)
    def get(self, reservation_id: UUID) -> Any:
        """Show a reservation and the parts of nodes that it claims."""
        reservation = current_uow().get(Reservation, reservation_id)
        return _reserved(reservation)[0], 200, etag(reservation)

    @blp.response(204)
    def delete(self, reservation_id: UUID) -> None:
        """Give a reservation up."""
        reservations.cancel_reservation(current_uow(), reservation_id, if_match())


@blp.route("/maintenance")
class Maintenance(MethodView):
    """Working on nodes."""

    @blp.arguments(schemas.MaintenanceSchema)
    @blp.response(201, schemas.ReservationSchema)
    def post(self, spec: MaintenanceSpec) -> Any:
        """Claim whole nodes for maintenance over a window: they are drained when it begins, and back when it ends."""
        reservation = plan_maintenance(current_uow(), spec)
        return _reserved(reservation)[0], 201, etag(reservation)


@blp.route("/usage")
class Usage(MethodView):
    """Who held what."""

    @blp.arguments(schemas.UsageQuerySchema, location="query")
    @blp.response(200, schemas.UsageReportSchema)
    def get(self, query: usage.UsageQuery) -> usage.UsageReport:
        """Sum up what was held over time: CPU, memory and GPU hours of one's projects, apart by what is asked for."""
        return usage.report_usage(current_uow(), query)


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


def _reserved(*found: Reservation) -> list[dict[str, Any]]:
    return reservations.present(current_uow(), found)


def _report(pool: Pool) -> tuple[PoolReport, dict[str, str]]:
    return report_pools(current_uow(), [pool])[0], etag(pool)


def _answer(node: Node) -> tuple[dict[str, Any], int, dict[str, str]]:
    return _shown(node)[0], 200, etag(node)


def _shown(*nodes: Node) -> list[dict[str, Any]]:
    uow = current_uow()
    ids = [node.id for node in nodes]
    gpus, held = gpus_of(uow, ids), live_on(uow, ids)
    slots = slots_used(uow, [gpu.id for devices in gpus.values() for gpu in devices if gpu.partitioned])
    jobs: dict[UUID, list[dict[str, Any]]] = {node_id: [] for node_id in ids}
    for a in held:
        holder = {"job_id": a.job_id, "name": a.holder_name, "cpu_milli": a.cpu_milli, "memory_bytes": a.memory_bytes}
        jobs[a.node_id].append(holder)
    left = count_left(uow, nodes)
    pool_ids = {node.pool_id for node in nodes if node.pool_id}
    called: dict[UUID | None, str] = {}
    if pool_ids:
        named = select(Pool.id, Pool.name).where(Pool.id.in_(pool_ids))
        called = {row.id: row.name for row in uow.session.execute(named)}
    return [
        {name: getattr(node, name) for name in COLUMNS}
        | {
            "labels": node.all_labels,
            "taints": taints_of(node),
            "pool": called.get(node.pool_id),
            "usd_per_hour": node.usd_micros_hour / 1_000_000,
            "load_percent": node.telemetry.get("load_percent"),
            "gpus": [_gpu(gpu, node, slots.get(gpu.id, [])) for gpu in gpus[node.id]],
            "jobs": jobs[node.id],
            "drain": Drain.of(node),
            "quarantine": Quarantine.read(node.quarantine),
            "findings": node.findings,
            "disk_free_bytes": node.telemetry.get("disk_free_bytes"),
            "memory_in_use_bytes": node.telemetry.get("memory_used_bytes"),
            "jobs_left": left[node.id],
        }
        for node in nodes
    ]


def _gpu(gpu: Gpu, node: Node, slots: list[int]) -> dict[str, Any]:
    shown = ("index", "uuid", "model", "memory_bytes", "milli_used", "numa", "links", "partitioned")
    readings: list[dict[str, Any]] = node.telemetry.get("gpus", [])
    reading = next((r for r in readings if r["index"] == gpu.index), {})
    described = {name: getattr(gpu, name) for name in shown} | {"quarantine": Quarantine.read(gpu.quarantine)}
    if gpu.partitioned:
        described |= {"slots_used": slots, "slices": [{"profile": p, "start": s} for p, s in gpu.cuts or ()]}
    return described | {k: v for k, v in reading.items() if k != "index"}
