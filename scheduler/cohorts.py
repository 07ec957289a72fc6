"""Pools that lend to each other: how much of its own, and of others', a pool may still use.

Pools form trees. What a pool does not keep for itself it leaves to its parent, where its siblings find it; what it
uses beyond that it takes from there. The formulas are Kueue's (KEP-79 and its hierarchical resource nodes), for each
resource r of a pool c:

    quota(c)      = nominal(c) + what its children leave to it
    kept(c)       = max(0, quota(c) - lends(c))
    left(c)       = quota(c) - kept(c), c's part of its parent's quota
    use(parent)   includes max(0, use(c) - kept(c)) of each child c
    available(c)  = max(0, kept - use) + min(available(parent), left - max(0, use - kept) + borrows(c))
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from scheduler.amounts import offered
from scheduler.snapshot import WHOLE, Amounts, Node, Pool
from scheduler.usage import WHOLE_CLUSTER

RESOURCES = range(len(Amounts._fields))


class _Fund:
    """One pool's books, amounts by resource."""

    __slots__ = ("borrows", "children", "kept", "lends", "most", "parent", "pool", "quota", "used")

    def __init__(self, pool: Pool, nominal: Amounts, parent: "_Fund | None") -> None:
        self.pool = pool
        self.parent = parent
        self.children: list[_Fund] = []
        self.borrows = pool.borrows
        self.lends = pool.lends
        self.quota = list(nominal)
        self.kept = [0, 0, 0]
        self.most = [0, 0, 0]
        self.used = [0, 0, 0]


class Cohorts:
    """The books of all pools; whatever is taken and given back, in any order, leaves them as they were.

    A node without a pool is everybody's; a queue without one runs on such nodes only, and no pool's quota holds it.
    Raises: ValueError for pools that come twice, lie in a circle or below one unknown, weigh less than 1, or have
    negative amounts, and for a node in a pool that the snapshot lacks.
    """

    def __init__(self, pools: Sequence[Pool], nodes: Sequence[Node]) -> None:
        self._funds = _found(pools, nodes)
        self._reach: dict[tuple[str, bool], frozenset[str]] = {}

    def available(self, pool_id: str) -> Amounts:
        """Return what the jobs of a pool can take now; below zero where others hold what it was to have."""
        return Amounts(*_available(self._fund(pool_id)))

    def most(self, pool_id: str) -> Amounts:
        """Return what the jobs of a pool could take if nothing were held: its own, and what it may borrow."""
        return Amounts(*self._fund(pool_id).most)

    def used(self, pool_id: str) -> Amounts:
        """Return what is held in the name of a pool, and what its children hold beyond what they keep."""
        return Amounts(*self._fund(pool_id).used)

    def quota(self, pool_id: str) -> Amounts:
        """Return what a pool uses without borrowing: its nominal and what its children leave to it."""
        return Amounts(*self._fund(pool_id).quota)

    def borrows(self, pool_id: str, amounts: Sequence[int]) -> bool:
        """Tell whether taking `amounts` goes beyond the pool's own quota in a resource that is asked for."""
        fund = self._fund(pool_id)
        return any(
            amount > 0 and used + amount > quota
            for amount, used, quota in zip(amounts, fund.used, fund.quota, strict=True)
        )

    def debt(self, pool_id: str, amounts: Sequence[int]) -> tuple[int, ...]:
        """Return how much of others' the pool would use with `amounts` more: at each level below the root, its own last.

        Each is the largest part that borrowing takes of any one resource that can be borrowed there, in billionths,
        for the weight: 0 within the quota. Pools are served by it, lowest first, compared level by level (dominant
        resource share; Kueue, KEP-1714), so that nominal use goes before borrowed.
        """
        path = []
        fund = self._fund(pool_id)
        while fund.parent is not None:
            most, largest = fund.parent.most, 0
            for number, amount in enumerate(amounts):
                borrowed = fund.used[number] + amount - fund.quota[number]
                if borrowed > 0:
                    largest = max(largest, borrowed * WHOLE_CLUSTER // max(1, most[number]))
            path.append(largest * WHOLE // fund.pool.weight)
            amounts = _passed_on(fund, amounts)
            fund = fund.parent
        return tuple(reversed(path))

    def reach(self, pool_id: str, *, borrowing: bool) -> frozenset[str]:
        """Return the pools whose nodes the jobs of a pool may use; "" stands for nodes without one.

        Within its quota a pool keeps to its own nodes and to those of pools below it that lend something. Who borrows
        goes to whatever the cohort lends as well, as far up as pools on the way may borrow.
        """
        key = pool_id, borrowing
        if key not in self._reach:
            self._reach[key] = frozenset({"", *(self._lenders(self._fund(pool_id), borrowing) if pool_id else ())})
        return self._reach[key]

    def take(self, pool_id: str, amounts: Sequence[int]) -> None:
        """Hold `amounts` in the name of a pool; beyond what it keeps its parent's are used, and so on up."""
        fund: _Fund | None = self._fund(pool_id)
        while fund is not None:
            passed_on = _passed_on(fund, amounts) if fund.parent else amounts
            used = fund.used
            for number, amount in enumerate(amounts):
                used[number] += amount
            amounts, fund = passed_on, fund.parent

    def give(self, pool_id: str, amounts: Sequence[int]) -> None:
        """Give back what was held in the name of a pool."""
        self.take(pool_id, [-amount for amount in amounts])

    def _lenders(self, fund: _Fund, borrowing: bool) -> Iterator[str]:
        yield from _lending(fund)
        while borrowing and fund.parent is not None and any(fund.borrows):
            fund = fund.parent
            yield from _lending(fund)

    def _fund(self, pool_id: str) -> _Fund:
        if pool_id not in self._funds:
            raise ValueError(f"pool {pool_id!r} is not one of the snapshot's")
        return self._funds[pool_id]


def _passed_on(fund: _Fund, amounts: Sequence[int]) -> list[int]:
    """Return by how much the parent's use changes when a pool's own changes by `amounts`."""
    return [
        max(used + amount, kept) - max(used, kept)
        for used, kept, amount in zip(fund.used, fund.kept, amounts, strict=True)
    ]


def _available(fund: _Fund) -> list[int]:
    if fund.parent is None:
        return [quota - used for quota, used in zip(fund.quota, fund.used, strict=True)]
    above = _available(fund.parent)
    found = []
    for number in RESOURCES:
        kept, used = fund.kept[number], fund.used[number]
        may_take = fund.quota[number] - kept - max(0, used - kept) + fund.borrows[number]
        found.append(max(0, kept - used) + min(above[number], may_take))
    return found


def _lending(fund: _Fund) -> Iterator[str]:
    """Yield a pool and those below it, leaving out the branches that lend nothing."""
    yield fund.pool.id
    for child in fund.children:
        if any(child.lends):
            yield from _lending(child)


def _found(pools: Sequence[Pool], nodes: Sequence[Node]) -> dict[str, _Fund]:
    """Open the books, parents first; then sum up from the leaves, and bound from the roots."""
    by_id = {pool.id: pool for pool in pools}
    if len(by_id) < len(pools):
        raise ValueError("two pools of the snapshot have the same id")
    nodes_of = _by_pool(nodes, by_id)
    funds: dict[str, _Fund] = {}
    for pool in pools:
        _check(pool, by_id)
        for one in reversed(_line_of(pool, by_id)):
            if one.id not in funds:
                nominal = offered(nodes_of.get(one.id, ())) if one.nominal is None else one.nominal
                fund = funds[one.id] = _Fund(one, nominal, funds.get(one.parent_id))
                if fund.parent is not None:
                    fund.parent.children.append(fund)
    for fund in reversed(funds.values()):
        for number in RESOURCES:
            fund.kept[number] = max(0, fund.quota[number] - fund.lends[number])
            if fund.parent is not None:
                fund.parent.quota[number] += fund.quota[number] - fund.kept[number]
    for fund in funds.values():
        above = fund.parent.most if fund.parent else fund.quota
        for number in RESOURCES:
            quota = fund.quota[number]
            most = min(fund.kept[number] + above[number], quota + fund.borrows[number])
            fund.most[number] = most if fund.parent else quota
    return funds


def _by_pool(nodes: Iterable[Node], by_id: Mapping[str, Pool]) -> dict[str, list[Node]]:
    nodes_of: dict[str, list[Node]] = {}
    for node in nodes:
        if node.pool_id and node.pool_id not in by_id:
            raise ValueError(f"node {node.name!r} lies in pool {node.pool_id!r}, which the snapshot lacks")
        nodes_of.setdefault(node.pool_id, []).append(node)
    return nodes_of


def _line_of(pool: Pool, by_id: Mapping[str, Pool]) -> list[Pool]:
    """Return a pool and all above it. Raises ValueError where they never end."""
    line = [pool]
    while line[-1].parent_id:
        if len(line) > len(by_id):
            raise ValueError(f"pool {pool.name!r} lies in a circle of pools")
        above = by_id.get(line[-1].parent_id)
        if above is None:
            raise ValueError(f"pool {line[-1].name!r} lies below {line[-1].parent_id!r}, which the snapshot lacks")
        line.append(above)
    return line


def _check(pool: Pool, by_id: Mapping[str, Pool]) -> None:
    if not pool.id:
        raise ValueError(f"pool {pool.name!r} has an empty id")
    if pool.weight < 1:
        raise ValueError(f"pool {pool.name!r} has weight {pool.weight}; it must be at least 1")
    if min(*(pool.nominal or (0, 0, 0)), *pool.lends, *pool.borrows) < 0:
        raise ValueError(f"pool {pool.name!r} has a negative amount")
