"""The what-if: a cluster on paper, changed freely and put back exactly."""

from collections.abc import Sequence

from scheduler.capacity import Capacity
from scheduler.placement.rooms import Grant, Room
from scheduler.snapshot import Node


class Ledger:
    """Free amounts by node number, their index, and an undo log; every change goes through `take` and `give`.

    Nodes are numbered by name, then id: a tie that falls to the lower number is the same for any order of rows.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.nodes = sorted(nodes, key=lambda node: (node.name, node.id))
        self.number_of = {node.id: number for number, node in enumerate(self.nodes)}
        if len(self.number_of) < len(self.nodes):
            raise ValueError("two nodes of the snapshot have the same id")
        self.rooms = [
            Room(node.cpu_milli_free, node.memory_bytes_free, node.gpu_milli_free, node.gpu_model)
            for node in self.nodes
        ]
        self.capacity = Capacity()
        for number, node in enumerate(self.nodes):
            if node.ready:
                self.capacity.add(number, self.rooms[number])
        self.gains = 0
        """How often something became free for good: what failed before may fit since."""
        self._log: list[tuple[Grant, bool]] = []

    def take(self, grant: Grant) -> None:
        """Hold what `grant` names. Raises ValueError if that is not free: nothing is ever given twice."""
        if not self.rooms[grant.number].covers(grant):
            raise ValueError(f"{grant} is more than node {self.nodes[grant.number].name!r} has free")
        self._move(grant, taken=True)
        self._log.append((grant, True))

    def give(self, grant: Grant) -> None:
        """Free what `grant` names."""
        self.gains += 1
        self._move(grant, taken=False)
        self._log.append((grant, False))

    def settle(self) -> None:
        """Forget how to undo what was done so far: it has happened."""
        self._log.clear()

    def mark(self) -> int:
        """Return a point to roll back to."""
        return len(self._log)

    def rollback(self, mark: int) -> None:
        """Undo everything since `mark`, last change first."""
        while len(self._log) > mark:
            grant, taken = self._log.pop()
            self._move(grant, taken=not taken)

    def _move(self, grant: Grant, *, taken: bool) -> None:
        room = self.rooms[grant.number]
        indexed = self.nodes[grant.number].ready
        if indexed:
            self.capacity.remove(grant.number, room)
        if taken:
            room.take(grant)
        else:
            room.give(grant)
        if indexed:
            self.capacity.add(grant.number, room)
