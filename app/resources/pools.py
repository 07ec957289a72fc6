"""Pools: nodes under one quota, nested, lending to their siblings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import column, select, table

from app.core.access import Permission
from app.core.amounts import Limits
from app.core.locks import wait_lock
from app.core.paging import Page, PageRequest, page
from app.core.uow import UnitOfWork
from app.resources.models import Node, Pool
from app.resources.overcommit import ONE, give_anew
from trellis.errors import AlreadyExists, Conflict, Field, Invalid

DEEPEST = 8
# Queues stand above pools, so their model is not to be had here; two columns of their table are.
_QUEUES = table("queues", column("name"), column("pool_id"))


class PoolInUse(Conflict):
    """Something still belongs to it."""

    code = "pool_in_use"
    title = "The pool is in use"


@dataclass(frozen=True, slots=True)
class PoolSpec:
    """A pool to be made; `parent` is the name of the pool it lies in, "" for none."""

    name: str
    parent: str = ""
    weight: int = 1
    nominal: Limits = field(default_factory=Limits)
    lends: Limits = field(default_factory=Limits)
    borrows: Limits = field(default_factory=Limits)
    cpu_overcommit_milli: int = ONE
    memory_overcommit_milli: int = ONE


def create_pool(uow: UnitOfWork, spec: PoolSpec) -> Pool:
    """Make a pool. Raises AlreadyExists for a name in use, Invalid for a parent that is none or lies too deep."""
    uow.require(Permission.POOL_WRITE)
    wait_lock(uow, "pools")
    if uow.session.execute(select(Pool.id).where(Pool.name == spec.name)).first():
        raise AlreadyExists(f"there is a pool {spec.name} already")
    pool = Pool(name=spec.name, parent_id=_parent_id(uow, spec.parent, None), **_columns(_changes_of(spec)))
    uow.session.add(pool)
    uow.session.flush()
    uow.emit("pool.created", pool, name=pool.name, after=_told(pool))
    return pool


def change_pool(uow: UnitOfWork, pool_id: UUID, changes: Mapping[str, Any], version: int | None) -> Pool:
    """Change fields of `PoolSpec` (but the name); new ratios hold for its nodes at once.

    Raises: Invalid for a parent that is none or lies within, Overcommitted, StaleVersion.
    """
    uow.require(Permission.POOL_WRITE)
    wait_lock(uow, "pools")  # the tree is changed by one at a time, so that no two changes make a ring
    pool = uow.get(Pool, pool_id, lock=True)
    uow.expect_version(pool, version)
    set_pool(uow, pool, changes)
    return pool


def set_pool(uow: UnitOfWork, pool: Pool, changes: Mapping[str, Any]) -> bool:
    """Let a (locked) pool have these fields of `PoolSpec`. Tells whether anything changed."""
    columns = _columns(changes)
    if "parent" in changes:
        columns["parent_id"] = _parent_id(uow, changes["parent"], pool)
    before = _told(pool)
    for name, value in columns.items():
        setattr(pool, name, value)
    after = _told(pool)
    changed = [name for name in after if after[name] != before[name]]
    if not changed:
        return False
    if {"cpu_overcommit_milli", "memory_overcommit_milli"} & set(changed):
        give_anew(uow, _lock_nodes_of(uow, pool), pool)
    pool.version += 1
    uow.session.flush()
    told = {"before": {name: before[name] for name in changed}, "after": {name: after[name] for name in changed}}
    uow.emit("pool.changed", pool, name=pool.name, **told)
    return True


def remove_pool(uow: UnitOfWork, pool_id: UUID, version: int | None) -> None:
    """Remove a pool that nothing belongs to. Raises PoolInUse, StaleVersion."""
    uow.require(Permission.POOL_WRITE)
    wait_lock(uow, "pools")
    pool = uow.get(Pool, pool_id, lock=True)
    uow.expect_version(pool, version)
    users = {
        "node": select(Node.name).where(Node.pool_id == pool_id),
        "pool": select(Pool.name).where(Pool.parent_id == pool_id),
        "queue": select(_QUEUES.c.name).where(_QUEUES.c.pool_id == pool_id),
    }
    for noun, statement in users.items():
        if name := uow.session.execute(statement.limit(1)).scalar():
            raise PoolInUse(f"{noun} {name} belongs to pool {pool.name}: move it out first")
    uow.emit("pool.removed", pool, name=pool.name, before=_told(pool))
    uow.session.delete(pool)


def list_pools(uow: UnitOfWork) -> Sequence[Pool]:
    """All pools, parents before what lies in them."""
    pools = uow.session.execute(select(Pool).order_by(Pool.name)).scalars().all()
    known = {pool.id: pool for pool in pools}

    def depth(pool: Pool) -> int:
        return 0 if pool.parent_id is None else 1 + depth(known[pool.parent_id])

    return sorted(pools, key=depth)


def find_pool(uow: UnitOfWork, name: str) -> Pool:
    """The pool of that name, locked, so that it stays and keeps its ratios. Raises Invalid."""
    statement = select(Pool).where(Pool.name == name).with_for_update(key_share=True)
    pool = uow.session.execute(statement.execution_options(populate_existing=True)).scalar_one_or_none()
    if pool is None:
        raise Invalid(Field("/pool", f"there is no pool {name}: `trellis pools` lists them"))
    return pool


def page_of_pools(uow: UnitOfWork, request: PageRequest) -> Page[Pool]:
    """One page of them."""
    return page(uow, uow.visible(Pool), Pool, request)


def _parent_id(uow: UnitOfWork, name: str, child: Pool | None) -> UUID | None:
    if not name:
        return None
    pools = {pool.id: pool for pool in list_pools(uow)}
    parent = next((pool for pool in pools.values() if pool.name == name), None)
    if parent is None:
        raise Invalid(Field("/parent", f"there is no pool {name}"))
    above, depth = parent, 1
    while True:
        if child is not None and above.id == child.id:
            raise Invalid(Field("/parent", f"pool {name} lies in pool {child.name}, or is it"))
        if above.parent_id is None:
            break
        above, depth = pools[above.parent_id], depth + 1
    if depth + (_height(child, pools) if child else 1) > DEEPEST:
        raise Invalid(Field("/parent", f"pools nest at most {DEEPEST} deep"))
    return parent.id


def _height(pool: Pool, pools: Mapping[UUID, Pool]) -> int:
    below = [_height(child, pools) for child in pools.values() if child.parent_id == pool.id]
    return 1 + max(below, default=0)


def _lock_nodes_of(uow: UnitOfWork, pool: Pool) -> Sequence[Node]:
    statement = select(Node).where(Node.pool_id == pool.id).order_by(Node.id).with_for_update(key_share=True)
    return uow.session.execute(statement.execution_options(populate_existing=True)).scalars().all()


def _changes_of(spec: PoolSpec) -> dict[str, Any]:
    return {name: getattr(spec, name) for name in PoolSpec.__slots__ if name not in ("name", "parent")}


def _columns(changes: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value.stored() if isinstance(value, Limits) else value
        for name, value in changes.items()
        if name != "parent"
    }


def _told(pool: Pool) -> dict[str, Any]:
    names = ("weight", "nominal", "lends", "borrows", "cpu_overcommit_milli", "memory_overcommit_milli")
    told = {name: getattr(pool, name) for name in names}
    return told | {"parent_id": str(pool.parent_id) if pool.parent_id else None}
