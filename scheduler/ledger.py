"""The what-if: a cluster on paper, changed freely and put back exactly."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from scheduler.capacity import NO_SETTING, Capacity, Setting
from scheduler.placement.rooms import Grant, Room
from scheduler.snapshot import Amounts, Node


class Ledger:
    """Free amounts by node number, their index, and an undo log; every change goes through `take` and `give`.

    Nodes are numbered by name, then id: a tie that falls to the lower number is the same for any order of rows.
    """

    def __init__(self, nodes: Sequence[Node], setting: Setting = NO_SETTING) -> None:
        self.nodes = sorted(nodes, key=lambda node: (node.name, node.id))
        self.number_of = {node.id: number for number, node in enumerate(self.nodes)}
        if len(self.number_of) < len(self.nodes):
            raise ValueError("two nodes of the snapshot have the same id")
        self.rooms = [Room.of(node) for node in self.nodes]
        self.capacity = Capacity(self.nodes, self.rooms, setting)
        self.ready = sum(node.ready for node in self.nodes)
        """How many nodes are ready."""
        self.away = Counter(node.away for node in self.nodes if not node.ready and node.away)
        """Of the others, how many are what."""
        self._free = [0, 0, 0]
        for room in self.rooms:
            self._free[0] += room.cpu_milli
            self._free[1] += room.memory_bytes
            self._free[2] += sum(room.gpus)
        self.gains = 0
        """How often something became free for good: what failed before may fit since."""
        self.version = 0
        """How often anything was taken or freed for good."""
        self._log: list[tuple[Grant, bool]] = []

    @property
    def free(self) -> Amounts:
        """What all nodes have free together, ready or not: an upper bound of what can be given away."""
        return Amounts(*self._free)

    def seat(self, grant: Grant) -> None:
        """Note a replica that runs already: the nodes' free amounts lack what it holds, but do not say whose it is."""
        self.rooms[grant.number].seat(grant)
        self.capacity.came(grant, 1)

    def take(self, grant: Grant) -> None:
        """Hold what `grant` names. Raises ValueError if that is not free: nothing is ever given twice."""
        if not self.rooms[grant.number].covers(grant):
            raise ValueError(f"{grant} is more than node {self.nodes[grant.number].name!r} has free")
        self._move(grant, taken=True)
        self._log.append((grant, True))

    def take_all(self, grants: Iterable[Grant]) -> bool:
        """Hold all of these if they are free together, else none; tell which."""
        mark = self.mark()
        for grant in grants:
            if not self.rooms[grant.number].covers(grant):
                self.rollback(mark)
                return False
            self.take(grant)
        return True

    def retake(self, grant: Grant) -> None:
        """Hold again what was given in the same what-if, be it more than the node has left by now."""
        self._move(grant, taken=True)
        self._log.append((grant, True))

    def give(self, grant: Grant) -> None:
        """Free what `grant` names."""
        self.gains += 1
        self._move(grant, taken=False)
        self._log.append((grant, False))

    def settle(self) -> None:
        """Forget how to undo what was done so far: it has happened."""
        if self._log:
            self.version += 1
            self._log.clear()

    def mark(self) -> int:
        """Return a point to roll back to."""
        return len(self._log)

    def rollback(self, mark: int) -> None:
        """Undo everything since `mark`, last change first."""
        while len(self._log) > mark:
            grant, taken = self._log.pop()
            self._move(grant, taken=not taken)

    @contextmanager
    def what_if(self) -> Iterator[None]:
        """Let anything be tried; after, all is as before, and nothing that failed before needs to be tried again."""
        mark, gains = self.mark(), self.gains
        try:
            yield
        finally:
            self.rollback(mark)
            self.gains = gains

    def _move(self, grant: Grant, *, taken: bool) -> None:
        room, free, sign = self.rooms[grant.number], self._free, -1 if taken else 1
        free[0] += sign * grant.cpu_milli
        free[1] += sign * grant.memory_bytes
        for _, milli in grant.gpus:
            free[2] += sign * milli
        if taken:
            room.take(grant)
        else:
            room.give(grant)
        if self.capacity.came(grant, 1 if taken else -1):
            self.gains += 1
