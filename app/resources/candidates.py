"""Which nodes would do for a part that somebody asks for, whatever is free there now."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from sqlalchemy import ColumnElement, exists, func, select

from app.core.amounts import Amounts
from app.core.uow import UnitOfWork
from app.resources.models import Gpu, Node
from app.resources.pools import list_pools
from trellis.errors import Field, Invalid
from trellis.vocabulary import NodeState, TaintEffect


@dataclass(frozen=True, slots=True)
class Part:
    """A part of one node: so much of it, or with `exclusive` all of one that has at least so much.

    `labels` are those the node must have, levels of the topology included; `pool` is a name, pools within it included;
    `tolerates` are keys of taints, or `key=value`.
    """

    amounts: Amounts
    gpu_type: str = ""
    exclusive: bool = False
    pool: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    tolerates: tuple[str, ...] = ()


def list_candidates(uow: UnitOfWork, part: Part, states: Collection[NodeState]) -> list[Node]:
    """The nodes in one of `states` that would do, by name. Raises Invalid for an unknown pool."""
    conditions: list[ColumnElement[bool]] = [Node.state.in_(states)]
    if part.gpu_type:
        conditions.append(Node.gpu_model == part.gpu_type)
    if part.pool:
        conditions.append(Node.pool_id.in_(pools_within(uow, part.pool)))
    conditions += [labelled(name, value) for name, value in part.labels.items()]
    statement = select(Node).where(*conditions).order_by(Node.name)
    nodes = uow.session.execute(statement.execution_options(populate_existing=True)).scalars()
    return [node for node in nodes if _tolerated(node, part.tolerates)]


def labelled(name: str, value: str) -> ColumnElement[bool]:
    """Nodes with that label, or that lie in the domain `value` of the level `name`."""
    pair = {name: value}
    own = Node.own_labels.contains(pair) & ~Node.labels.has_key(name)
    found: ColumnElement[bool] = Node.labels.contains(pair) | own | Node.domains.contains(pair)
    return found


def is_well() -> ColumnElement[bool]:
    """Nodes of which nothing is known that is wrong: not of their devices either."""
    faulty = exists().where(Gpu.node_id == Node.id, Gpu.quarantine.is_not(None))
    nothing = func.jsonb_array_length(Node.findings) == 0
    found: ColumnElement[bool] = nothing & Node.quarantine.is_(None) & ~faulty
    return found


def pools_within(uow: UnitOfWork, name: str) -> Sequence[UUID]:
    """The pool of that name and all that lie in it. Raises Invalid."""
    within: list[UUID] = []
    for pool in list_pools(uow):  # parents first
        if pool.name == name or pool.parent_id in within:
            within.append(pool.id)
    if not within:
        raise Invalid(Field("/pool", f"there is no pool {name}: `trellis pools` lists them"))
    return within


def _tolerated(node: Node, words: Collection[str]) -> bool:
    return all(
        taint["effect"] != TaintEffect.REFUSE or taint["key"] in words or f"{taint['key']}={taint['value']}" in words
        for taint in node.taints
    )
