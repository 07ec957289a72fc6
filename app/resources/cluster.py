"""A whole cluster said at once, as a cluster.yaml does: levels of the topology, pools, traits of nodes, maintenance."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select

from app.core.access import Permission
from app.core.locks import wait_lock
from app.core.pointers import below
from app.core.uow import UnitOfWork
from app.resources.maintenance import MaintenanceSpec, apply_windows
from app.resources.models import Node, Pool
from app.resources.pools import PoolSpec, create_pool, set_pool
from app.resources.topology import list_levels, set_levels
from app.resources.traits import Traits, check_traits, set_traits
from trellis.errors import Field, Invalid


@dataclass(frozen=True, slots=True)
class NodeEntry:
    """What a file says of one node; `pointer` is where."""

    name: str
    pointer: str
    traits: Traits


@dataclass(frozen=True, slots=True)
class ClusterSpec:
    """What a file says; of a pool only what it says is changed. None: nothing about levels."""

    levels: tuple[str, ...] | None = None
    pools: Sequence[tuple[str, Mapping[str, Any]]] = ()
    nodes: Sequence[NodeEntry] = ()
    maintenance: Sequence[MaintenanceSpec] = ()


@dataclass(slots=True)
class Applied:
    """What it came to, by name: pools and nodes that changed, and nodes that have not joined yet."""

    pools: list[str] = field(default_factory=list)
    nodes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


def apply_cluster(uow: UnitOfWork, spec: ClusterSpec) -> Applied:
    """Make everything as `spec` says, all or nothing; what it does not name stays. Safe to repeat.

    Raises: Invalid with pointers into the file, Overcommitted.
    """
    uow.require(Permission.NODE_WRITE)
    uow.require(Permission.POOL_WRITE)
    if spec.levels is not None:
        set_levels(uow, spec.levels, None)
    applied = Applied(pools=_apply_pools(uow, spec.pools))
    _apply_nodes(uow, spec.nodes, applied)
    applied.missing = sorted({*applied.missing, *apply_windows(uow, spec.maintenance)})
    return applied


def _apply_pools(uow: UnitOfWork, wanted: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    wait_lock(uow, "pools")
    statement = select(Pool).where(Pool.name.in_([name for name, _ in wanted])).order_by(Pool.id)
    known = {pool.name: pool for pool in uow.session.execute(statement.with_for_update(key_share=True)).scalars()}
    made = [name for name, _ in wanted if name not in known]
    for name in made:  # all of them before any has a parent: a file may name them in any order
        known[name] = create_pool(uow, PoolSpec(name))
    changed = set(made)
    for number, (name, changes) in enumerate(wanted):
        with below(f"/pools/{number}"):
            if set_pool(uow, known[name], changes):
                changed.add(name)
    return sorted(changed)


def _apply_nodes(uow: UnitOfWork, entries: Sequence[NodeEntry], applied: Applied) -> None:
    levels, pools = list_levels(uow), {pool.name: pool for pool in uow.session.execute(select(Pool)).scalars()}
    names = [entry.name for entry in entries]
    # Sorted by id: every transaction locks nodes in one order.
    locked = select(Node).where(Node.name.in_(names)).order_by(Node.id).with_for_update(key_share=True)
    rows = uow.session.execute(locked.execution_options(populate_existing=True)).scalars()
    nodes = {node.name: node for node in rows}
    for entry in entries:
        with below(entry.pointer):
            check_traits(entry.traits, levels)
            pool = pools.get(entry.traits.pool or "")
            if entry.traits.pool and pool is None:
                raise Invalid(Field("/pool", f"there is no pool {entry.traits.pool}"))
            node = nodes.get(entry.name)
            if node is None:
                applied.missing.append(entry.name)
            elif set_traits(uow, node, entry.traits, pool):
                applied.nodes.append(entry.name)
