"""May a job run on a node at all, and how much would it like to: what labels, taints, pools and prices say.

All of this stays as it is while a plan is made; what other jobs do is in `affinity`.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import cache

from scheduler.placement.topology import NODE
from scheduler.snapshot import (
    Constraints,
    Effect,
    Node,
    Operator,
    Pool,
    Preference,
    Strategy,
    Taint,
    Term,
    Toleration,
)

AVOIDED = 100
"""What an avoided taint counts against a node: as much as the strongest preference counts for one."""

NEAR_DATA = 100
"""What having all of a job's data at hand counts for a node; a part of it counts in proportion."""

PRICES = 1 << 48
"""More than any price: wishes count before prices, prices before what fits the cluster best."""

Cause = str
"""Why a node is kept away, in words that go on after "by" or "for"."""


class Terrain:
    """What there is to know of the cluster's nodes beside their amounts, by node number."""

    def __init__(self, nodes: Sequence[Node], levels: Sequence[str] = (), pools: Sequence[Pool] = ()) -> None:
        self.nodes = nodes
        self.levels = tuple(levels)
        self.pools = pools
        self._columns: dict[str, Sequence[str | None]] = {}

    def column(self, key: str) -> Sequence[str | None]:
        """Return what each node's label says, None where it has none; what is known of every node is a label too."""
        column = self._columns.get(key)
        if column is None:
            column = self._columns[key] = [self._label(node, key) for node in self.nodes]
        return column

    def _label(self, node: Node, key: str) -> str | None:
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
    nodes = terrain.nodes
    causes: list[Cause | None] = [None] * len(nodes)
    points = [0] * len(nodes)
    for cause_of in _refusals(terrain, constraints):
        for number, cause in enumerate(causes):
            if cause is None:
                causes[number] = cause_of(number)
    for points_of in _wishes(terrain, constraints):
        points = [so_far + points_of(number) for number, so_far in enumerate(points)]
    if constraints.strategy is Strategy.CHEAP:
        points = [each * PRICES + price(node, by_gpu=by_gpu) for each, node in zip(points, nodes, strict=True)]
    return [(None, each) if cause is None else (cause, 0) for cause, each in zip(causes, points, strict=True)]


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


def _refusals(terrain: Terrain, constraints: Constraints) -> Iterator[Callable[[int], Cause | None]]:
    """Yield what may keep these jobs off a node, of which the first that does is named."""
    nodes, level = terrain.nodes, constraints.within
    if constraints.within_required and level and level not in (*terrain.levels, NODE):
        yield lambda _: f"level {level!r}, which the cluster has not"
    if constraints.pool_id:
        pools = terrain.pools_within(constraints.pool_id)
        name = next((pool.name for pool in terrain.pools if pool.id == constraints.pool_id), constraints.pool_id)
        yield lambda number: None if nodes[number].pool_id in pools else f"not being in pool {name!r}"
    if constraints.within_required and level in terrain.levels:
        yield _refusal_of(terrain, Term(level, Operator.EXISTS), f"having no known {level}")
    for term in constraints.selector:
        yield _refusal_of(terrain, term, f"selector {in_words(term)}")
    if not constraints.spot:
        yield lambda number: "being spot nodes" if nodes[number].spot else None
    if constraints.container:
        yield lambda number: None if nodes[number].containers else "having no container engine"
    if constraints.min_isolation:
        least = constraints.min_isolation
        yield lambda number: None if nodes[number].isolation >= least else f"isolation below {least}"
    refusal_of = cache(lambda taints: _refusal(taints, constraints.tolerations))
    if any(node.taints for node in nodes):
        yield lambda number: refusal_of(nodes[number].taints)


def _wishes(terrain: Terrain, constraints: Constraints) -> Iterator[Callable[[int], int]]:
    """Yield what speaks against a node, in points; less than 0 is for it."""
    nodes = terrain.nodes
    avoided_of = cache(lambda taints: AVOIDED * _avoided(taints, constraints.tolerations))
    if any(node.taints for node in nodes):
        yield lambda number: avoided_of(nodes[number].taints)
    for wish in constraints.prefers:
        yield _wish_of(terrain, wish)
    if constraints.data:
        keys = constraints.data
        yield lambda number: -NEAR_DATA * sum(key in nodes[number].caches for key in keys) // len(keys)


def _refusal_of(terrain: Terrain, term: Term, cause: Cause) -> Callable[[int], Cause | None]:
    column, held = terrain.column(term.key), cache(lambda value: holds(term, value))
    return lambda number: None if held(column[number]) else cause


def _wish_of(terrain: Terrain, wish: Preference) -> Callable[[int], int]:
    column, held = terrain.column(wish.term.key), cache(lambda value: holds(wish.term, value))
    return lambda number: -wish.weight if held(column[number]) else 0


def _refusal(taints: Sequence[Taint], tolerations: Sequence[Toleration]) -> Cause | None:
    for taint in taints:
        if taint.effect is Effect.REFUSE and not tolerates(tolerations, taint):
            return f"taint {taint.key}={taint.value}" if taint.value else f"taint {taint.key}"
    return None


def _avoided(taints: Sequence[Taint], tolerations: Sequence[Toleration]) -> int:
    return sum(taint.effect is Effect.AVOID and not tolerates(tolerations, taint) for taint in taints)


def _compares(value: str | None, values: Sequence[str], compare: Callable[[float, float], bool]) -> bool:
    number = _number(value)
    bounds = [_number(each) for each in values]
    return number is not None and bool(bounds) and all(bound is not None and compare(number, bound) for bound in bounds)


def _number(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:
        return None
