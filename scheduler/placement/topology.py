"""The tree that nodes lie in, from the widest level to the narrowest: who is near whom."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from scheduler.snapshot import Node

NODE = "node"
"""The level below all others: each node for itself."""


class Level:
    """One level of the tree: its domains are numbered in the order of their paths from the top.

    `of[n]` is the domain of node number n, -1 where it is not known; `members` are the nodes of each domain.
    """

    __slots__ = ("members", "name", "of", "paths")

    def __init__(self, name: str, nodes: Sequence[Node], depth: int) -> None:
        self.name = name
        # A domain is known by all that it lies in: rack 1 of one zone is not rack 1 of another.
        found = [node.domains[: depth + 1] if any(node.domains[depth : depth + 1]) else None for node in nodes]
        self.paths = sorted({path for path in found if path is not None})
        number_of = {path: number for number, path in enumerate(self.paths)}
        self.of = [-1 if path is None else number_of[path] for path in found]
        self.members: list[list[int]] = [[] for _ in self.paths]
        for number, domain in enumerate(self.of):
            if domain >= 0:
                self.members[domain].append(number)


class Part(NamedTuple):
    """A part of the tree: the whole cluster (depth -1), a domain of the level at `depth`, or, below all, one node."""

    depth: int
    number: int


WHOLE_CLUSTER = Part(-1, 0)


class Topology:
    """The levels of a cluster, widest first."""

    def __init__(self, nodes: Sequence[Node], levels: Sequence[str]) -> None:
        if NODE in levels:
            raise ValueError(f"a topology level may not be called {NODE!r}: that is what is below them all")
        self.size = len(nodes)
        self.levels = [Level(name, nodes, depth) for depth, name in enumerate(levels)]
        self._below: dict[Part, Sequence[Part]] = {}
        self._depths = {name: depth for depth, name in enumerate(levels)}

    def depth(self, name: str) -> int | None:
        """Return the place of a level from the top, the number of levels for single nodes, None for no level at all."""
        return len(self.levels) if name == NODE else self._depths.get(name)

    def domain(self, name: str, number: int) -> int:
        """Return a key for what node `number` lies in; where that is not known, one that it shares with nobody.

        The level without a name is the whole cluster.
        """
        if not name:
            return 0
        depth = self._depths.get(name)
        if depth is None:
            return number
        domain = self.levels[depth].of[number]
        return domain if domain >= 0 else -1 - number

    def members(self, name: str, domain: int) -> Sequence[int]:
        """Return the nodes of what `domain` gave as a key."""
        if not name:
            return range(self.size)
        depth = self._depths.get(name)
        if depth is None:
            return (domain,)
        return self.levels[depth].members[domain] if domain >= 0 else (-1 - domain,)

    def part_of(self, depth: int, number: int) -> Part | None:
        """Return the part at `depth` that a node lies in, None where it is not known."""
        if depth < 0:
            return WHOLE_CLUSTER
        if depth == len(self.levels):
            return Part(depth, number)
        domain = self.levels[depth].of[number]
        return Part(depth, domain) if domain >= 0 else None

    def parts(self, depth: int) -> Iterator[Part]:
        """Yield all parts of one depth."""
        if depth < 0:
            yield WHOLE_CLUSTER
        else:
            size = self.size if depth == len(self.levels) else len(self.levels[depth].members)
            yield from (Part(depth, number) for number in range(size))

    def below(self, part: Part) -> Sequence[Part]:
        """Return what a part consists of: the domains of the next level, and nodes that lie in none of those."""
        known = self._below.get(part)
        if known is None:
            numbers = range(self.size) if part.depth < 0 else self.levels[part.depth].members[part.number]
            lowest, depth = len(self.levels), part.depth + 1
            found = {self.part_of(depth, number) or Part(lowest, number): None for number in numbers}
            known = self._below[part] = tuple(found)
        return known
