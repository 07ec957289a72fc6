"""May a job run on a node at all, and how much would it like to: what labels, taints, pools and prices say.

All of this stays as it is while a plan is made; what other jobs do is in `affinity`.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

from scheduler.placement.topology import NODE
from scheduler.snapshot import Constraints, Effect, Node, Operator, Pool, Strategy, Taint, Term, Toleration

AVOIDED = 100
"""What an avoided taint counts against a node: as much as the strongest preference counts for one."""

NEAR_DATA = 100
"""What having all of a job's data at hand counts for a node; a part of it counts in proportion."""

PRICES = 1 << 48
"""More than any price: wishes count before prices, prices before what fits the cluster best."""

Cause = str
"""Why a node is kept away, in words that go on after "by" or "for"."""


class Terrain(NamedTuple):
    """What there is to know of the cluster's nodes beside their amounts, by node number."""

    nodes: Sequence[Node]
    levels: tuple[str, ...] = ()
    pools: tuple[Pool, ...] = ()

    def label(self, node: Node, key: str) -> str | None:
        """Return what a node's label says, None where it has none; what is known of every node is a label too."""
        if key == "name":
            return node.name
        if key == "pool":
            return node.pool_id or None
        if key == "gpu_model":
            return node.gpu_model or None
        if key in self.levels:
            place = self.levels.index(key)
            return node.domains[place] or None if place < len(node.domains) else None
        return next((value for name, value in node.labels if name == key), None)

    def pools_within(self, pool_id: str) -> frozenset[str]:
        """Return the ids of a pool and of all below it."""
        found = {pool_id}
        while below := {pool.id for pool in self.pools if pool.parent_id in found} - found:
            found |= below
        return frozenset(found)


Verdict = tuple[Cause | None, int]
"""Why a node is out (None: it is not), and how many points speak against it."""


def judge(terrain: Terrain, constraints: Constraints, *, by_gpu: bool) -> list[Verdict]:
    """Judge every node, by number; `by_gpu` compares prices for a GPU rather than for a CPU.

    Fewer points are better: wishes first (preferences, avoided taints, data at hand), then, where the cheapest is
    asked for, the price.
    """
    if constraints.within_required and constraints.within not in (*terrain.levels, NODE):
        return [(f"level {constraints.within!r}, which the cluster has not", 0)] * len(terrain.nodes)
    pools = terrain.pools_within(constraints.pool_id) if constraints.pool_id else frozenset()
    refusal_of = cache(lambda taints: _refusal(taints, constraints.tolerations))
    avoided_of = cache(lambda taints: _avoided(taints, constraints.tolerations))

    def one(node: Node) -> Verdict:
        cause = _kept_away(terrain, constraints, node, pools) or refusal_of(node.taints)
        if cause is not None:
            return cause, 0
        points = avoided_of(node.taints) * AVOIDED - _liked(terrain, constraints, node)
        if constraints.strategy is Strategy.CHEAP:
            return None, points * PRICES + price(node, by_gpu=by_gpu)
        return None, points

    return list(map(one, terrain.nodes))


def holds(term: Term, value: str | None) -> bool:
    """Tell whether a term holds for a label's value, None for a node without that label.

    What is absent is in no list and neither above nor below anything.
    """
    match term.operator:
        case Operator.IN:
            return value in term.values
        case Operator.NOT_IN:
            return value not in term.values
        case Operator.EXISTS:
            return value is not None
        case Operator.ABSENT:
            return value is None
        case Operator.ABOVE:
            return _compares(value, term.values, float.__gt__)
        case Operator.BELOW:
            return _compares(value, term.values, float.__lt__)


def tolerates(tolerations: Sequence[Toleration], taint: Taint) -> bool:
    """Tell whether one of the tolerations puts up with `taint`."""
    return any(one.key in ("", taint.key) and one.value in (None, taint.value) for one in tolerations)


def price(node: Node, *, by_gpu: bool) -> int:
    """Return what one GPU, or one CPU, of a node costs an hour, in micro-dollars."""
    parts = len(node.gpu_milli_free) if by_gpu else node.cpu_milli // 1000
    return node.usd_micros_hour // max(parts, 1)


def in_words(term: Term) -> str:
    """Spell a term as a user would."""
    match term.operator:
        case Operator.IN if len(term.values) == 1:
            return f"{term.key}={term.values[0]}"
        case Operator.EXISTS | Operator.ABSENT:
            return f"{term.key} {term.operator}"
        case _:
            return f"{term.key} {term.operator.replace('_', ' ')} {', '.join(term.values)}"


def _kept_away(terrain: Terrain, constraints: Constraints, node: Node, pools: frozenset[str]) -> Cause | None:
    if pools and node.pool_id not in pools:
        return f"pool {constraints.pool_id!r}"
    if constraints.within_required and constraints.within != NODE and not terrain.label(node, constraints.within):
        return f"having no known {constraints.within}"
    for term in constraints.selector:
        if not holds(term, terrain.label(node, term.key)):
            return f"selector {in_words(term)}"
    if node.spot and not constraints.spot:
        return "being spot nodes"
    if node.isolation < constraints.min_isolation:
        return f"isolation below {constraints.min_isolation}"
    return None


def _refusal(taints: Sequence[Taint], tolerations: Sequence[Toleration]) -> Cause | None:
    for taint in taints:
        if taint.effect is Effect.REFUSE and not tolerates(tolerations, taint):
            return f"taint {taint.key}={taint.value}" if taint.value else f"taint {taint.key}"
    return None


def _avoided(taints: Sequence[Taint], tolerations: Sequence[Toleration]) -> int:
    return sum(taint.effect is Effect.AVOID and not tolerates(tolerations, taint) for taint in taints)


def _liked(terrain: Terrain, constraints: Constraints, node: Node) -> int:
    points = sum(wish.weight for wish in constraints.prefers if holds(wish.term, terrain.label(node, wish.term.key)))
    if constraints.data:
        points += NEAR_DATA * sum(key in node.caches for key in constraints.data) // len(constraints.data)
    return points


def _compares(value: str | None, values: Sequence[str], compare: Callable[[float, float], bool]) -> bool:
    number = _number(value)
    bounds = [_number(each) for each in values]
    return number is not None and bool(bounds) and all(bound is not None and compare(number, bound) for bound in bounds)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
