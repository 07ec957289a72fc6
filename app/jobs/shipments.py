"""What nodes send: logs, metrics and reports, taken in together."""

from collections.abc import Collection, Iterable
from uuid import UUID

from sqlalchemy import ARRAY, Uuid, any_, bindparam, select

from app.core.access import Permission
from app.core.uow import UnitOfWork
from app.jobs.attempts import FREEING, Family, apply_reports
from app.jobs.logs import append_chunks
from app.jobs.metrics import append_points
from app.jobs.models import Replica
from app.resources.allocations import lock_node, lock_nodes
from trellis.wire import Receipt, Shipment

_MINE = (
    Replica.id == any_(bindparam("ids", type_=ARRAY(Uuid))),
    Replica.node_id == any_(bindparam("node_ids", type_=ARRAY(Uuid))),
)
_LOCKED = select(Replica).where(*_MINE).order_by(Replica.id).with_for_update(key_share=True)
_NODES_OF = select(Replica.node_id).where(*_MINE).distinct()


def apply_shipment(uow: UnitOfWork, shipment: Shipment, node_ids: Collection[UUID]) -> Receipt:
    """Take in logs and metrics, then reports, of these nodes' replicas, all or nothing; known parts change nothing."""
    uow.require(Permission.REPLICA_REPORT)
    sent = {UUID(replica_id) for replica_id in shipment.replica_ids}
    replicas: dict[UUID, Replica] = {}
    stale: set[str] = set()
    if shipment.reports:
        replicas, stale = _apply_all(uow, shipment, sent, node_ids)
    if others := sent - replicas.keys():
        named = {"ids": list(others), "node_ids": list(node_ids)}
        known = {replica.id: replica for replica in uow.session.execute(_LOCKED, named).scalars()}
        _take_in(uow, known, shipment)
        replicas |= known
    return _receipt(replicas.values(), stale | {str(replica_id) for replica_id in sent - replicas.keys()})


def _apply_all(
    uow: UnitOfWork, shipment: Shipment, sent: set[UUID], node_ids: Collection[UUID]
) -> tuple[dict[UUID, Replica], set[str]]:
    # Lock order: node, job, attempt. A node only if something of it may be released.
    _lock_freed(uow, [UUID(r.replica_id) for r in shipment.reports if r.state in FREEING], node_ids)
    family = Family.of_replicas(uow, sent, node_ids)
    mine = {r.id: r for r in family.replicas.values() if r.node_id in node_ids and r.id in sent}
    _take_in(uow, mine, shipment)
    return mine, apply_reports(uow, family, shipment.reports, node_ids)


def _lock_freed(uow: UnitOfWork, freed: Collection[UUID], node_ids: Collection[UUID]) -> None:
    """Lock the nodes that these replicas are on."""
    if not freed:
        return
    if len(node_ids) == 1:
        lock_node(uow, next(iter(node_ids)))
        return
    found = uow.execute(_NODES_OF, {"ids": list(freed), "node_ids": list(node_ids)})
    lock_nodes(uow, [row.node_id for row in found])


def _take_in(uow: UnitOfWork, replicas: dict[UUID, Replica], shipment: Shipment) -> None:
    append_chunks(uow, replicas, [chunk for chunk in shipment.logs if UUID(chunk.replica_id) in replicas])
    append_points(uow, replicas, [point for point in shipment.metrics if UUID(point.replica_id) in replicas])


def _receipt(replicas: Iterable[Replica], stale: set[str]) -> Receipt:
    settled = list(replicas)
    return Receipt(
        logs={str(r.id): r.log_bytes for r in settled},
        metrics={str(r.id): r.metric_seq for r in settled},
        reports={str(r.id): r.report_seq for r in settled},
        stale=tuple(sorted(stale)),
    )
