"""What operators say of a node: labels, taints, where it lies, whose it is, what it costs."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from uuid import UUID

from app.core.access import Permission
from app.core.uow import UnitOfWork
from app.resources.models import Node, Pool
from app.resources.overcommit import give_anew
from app.resources.pools import find_pool
from app.resources.topology import list_levels
from trellis.errors import Field, Invalid
from trellis.vocabulary import TaintEffect

# What the scheduler knows a node by besides its labels: a label of that name would be taken for it.
RESERVED = frozenset({"name", "pool", "gpu_model"})


@dataclass(frozen=True, slots=True)
class Taint:
    """Keeps jobs away that do not tolerate it."""

    key: str
    value: str = ""
    effect: TaintEffect = TaintEffect.REFUSE


@dataclass(frozen=True, slots=True)
class Traits:
    """What shall be said of a node; None leaves it as it was. `pool` is a name, "" for none."""

    labels: Mapping[str, str] | None = None
    taints: tuple[Taint, ...] | None = None
    domains: Mapping[str, str] | None = None
    pool: str | None = None
    spot: bool | None = None
    usd_micros_hour: int | None = None
    caches: tuple[str, ...] | None = None


def change_node(uow: UnitOfWork, node_id: UUID, traits: Traits, version: int | None) -> Node:
    """Say something new of a node. Raises Invalid with the field, Overcommitted, StaleVersion."""
    uow.require(Permission.NODE_WRITE)
    check_traits(traits, list_levels(uow))
    pool = find_pool(uow, traits.pool) if traits.pool else None  # before the node: locks are taken in this order
    node = uow.get(Node, node_id, lock=True)
    uow.expect_version(node, version)
    set_traits(uow, node, traits, pool)
    return node


def check_traits(traits: Traits, levels: tuple[str, ...]) -> None:
    """Raises Invalid for a domain of no level, and for a label that would hide what the platform says itself."""
    faults = [
        Field(f"/domains/{level}", f"is no level of the topology; there are {', '.join(levels) or 'none'}")
        for level in traits.domains or ()
        if level not in levels
    ]
    taken = RESERVED | set(levels)
    faults += [
        Field(f"/labels/{key}", "is what the platform says itself") for key in traits.labels or () if key in taken
    ]
    if faults:
        raise Invalid(*faults)


def set_traits(uow: UnitOfWork, node: Node, traits: Traits, pool: Pool | None) -> bool:
    """Let (locked) `node` have the (checked) traits; `pool` is the one they name. Tells whether anything changed."""
    before = traits_of(node)
    wanted = _stored(traits, pool)
    changed = {name: value for name, value in wanted.items() if before[name] != value}
    if not changed:
        return False
    for name, value in changed.items():
        setattr(node, name, UUID(value) if name == "pool_id" and value else value)
    if "pool_id" in changed:
        give_anew(uow, [node], pool)
    node.version += 1
    uow.emit("node.changed", node, before={name: before[name] for name in changed}, after=changed)
    return True


def traits_of(node: Node) -> dict[str, Any]:
    """What is said of a node now, as it is stored, ids as text."""
    said = {f.name: getattr(node, f.name) for f in fields(Traits) if f.name != "pool"}
    return said | {"pool_id": str(node.pool_id) if node.pool_id else None}


def taints_of(node: Node) -> list[Taint]:
    """Its taints as values."""
    return [Taint(taint["key"], taint["value"], TaintEffect(taint["effect"])) for taint in node.taints]


def _stored(traits: Traits, pool: Pool | None) -> dict[str, Any]:
    wanted: dict[str, Any] = {
        f.name: value for f in fields(traits) if f.name != "pool" and (value := getattr(traits, f.name)) is not None
    }
    if traits.pool is not None:
        wanted["pool_id"] = str(pool.id) if pool else None
    for name in ("labels", "domains"):
        if name in wanted:
            wanted[name] = dict(wanted[name])
    if traits.taints is not None:
        wanted["taints"] = [{"key": t.key, "value": t.value, "effect": str(t.effect)} for t in traits.taints]
    if traits.caches is not None:
        wanted["caches"] = sorted(set(traits.caches))
    return wanted
