"""The nodes that some jobs may use, in groups of equal state, so that a search looks at few of them.

A field catches up with what has changed when it is used, so what nobody asks costs nothing.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from itertools import groupby
from operator import itemgetter
from typing import NamedTuple

from scheduler.placement.affinity import Watch
from scheduler.placement.rooms import Room
from scheduler.placement.states import State, States
from scheduler.placement.topology import Topology
from scheduler.snapshot import UNLIMITED


class Group:
    """Nodes in one state, with free CPUs between the same two thresholds, against which as many points speak.

    `cpus` are the free milli-CPUs that any of them has, sorted. Beside each, `tiers` has free memory in bytes and number
    of the nodes that have so many, sorted, and `tops` the most memory of these: a search that wants more passes them by
    without a look. `top` is the next threshold; `entered` counts the nodes that came.
    """

    __slots__ = ("band", "cpus", "entered", "points", "serial", "size", "state", "tiers", "top", "tops")

    def __init__(self, serial: int, state: State, band: int, points: int, top: int) -> None:
        self.serial = serial
        self.state = state
        self.band = band
        self.points = points
        self.top = top
        self.cpus: list[int] = []
        self.tiers: list[list[tuple[int, int]]] = []
        self.tops: list[int] = []
        self.size = 0
        self.entered = 0

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        """Yield free milli-CPUs, free memory in bytes and number of each node, in this order."""
        for cpu_milli, tier in zip(self.cpus, self.tiers, strict=True):
            for memory_bytes, number in tier:
                yield cpu_milli, memory_bytes, number

    def fill(self, nodes: list[tuple[int, int, int]]) -> None:
        """Take these nodes, and only these, in: each free milli-CPUs, free memory in bytes and number."""
        for cpu_milli, alike in groupby(sorted(nodes), itemgetter(0)):
            tier = [(memory_bytes, number) for _, memory_bytes, number in alike]
            self.cpus.append(cpu_milli)
            self.tiers.append(tier)
            self.tops.append(tier[-1][0])
        self.entered = self.size = len(nodes)

    def enter(self, cpu_milli: int, memory_bytes: int, number: int) -> None:
        """Take a node in."""
        self.entered += 1
        self.size += 1
        cpus = self.cpus
        place = bisect_left(cpus, cpu_milli)
        if place < len(cpus) and cpus[place] == cpu_milli:
            insort(self.tiers[place], (memory_bytes, number))
            self.tops[place] = max(self.tops[place], memory_bytes)
        else:
            cpus.insert(place, cpu_milli)
            self.tiers.insert(place, [(memory_bytes, number)])
            self.tops.insert(place, memory_bytes)

    def leave(self, cpu_milli: int, memory_bytes: int, number: int) -> None:
        """Let go of a node that is in it."""
        self.size -= 1
        place = bisect_left(self.cpus, cpu_milli)
        tier = self.tiers[place]
        if len(tier) == 1:
            del self.cpus[place], self.tiers[place], self.tops[place]
        else:
            del tier[bisect_left(tier, (memory_bytes, number))]
            self.tops[place] = tier[-1][0]


class Cluster(NamedTuple):
    """What all fields share: rooms by node number, their states, the tree they lie in, and which rooms have changed."""

    rooms: Sequence[Room]
    states: States
    topology: Topology
    thresholds: Sequence[int]
    most_cpu_milli: int
    changed: list[int]


class Field:
    """The nodes that `points` allows (None: it does not), less those that others keep a job away from.

    `exclusive` wants nodes with nobody on them; everybody else keeps away from nodes that an exclusive job is on.
    """

    def __init__(
        self, cluster: Cluster, points: Sequence[int | None], watches: Sequence[Watch] = (), *, exclusive: bool = False
    ) -> None:
        self.cluster = cluster
        self.watches = watches
        self.exclusive = exclusive
        self.born: list[Group] = []
        """Groups that have come to have nodes, in order."""
        self._points = points
        self._groups: dict[tuple[State, int, int], Group] = {}
        self._serial = 0
        self._where: list[tuple[int, int, Group] | None] = [None] * len(points)
        self._seen = len(cluster.changed)
        self._seen_of = [len(watch.changed) for watch in watches]
        self._fill()

    def allows(self, number: int) -> bool:
        """Tell whether a node is one of them, as of the last `catch_up`."""
        return self._where[number] is not None

    def refuses(self, number: int) -> bool:
        """Tell whether what the replicas must be near to, or apart from, keeps them off a node."""
        topology = self.cluster.topology
        return any(watch.refuses(topology.domain(watch.rule.level, number)) for watch in self.watches)

    def parts(self, number: int) -> bool:
        """Tell whether somebody is near a node from whom the replicas must be apart."""
        topology = self.cluster.topology
        return any(one.rule.apart and one.refuses(topology.domain(one.rule.level, number)) for one in self.watches)

    def admits(self, number: int) -> bool:
        """Tell whether a node is ready, and labels, taints and pools allow it, whoever is on it."""
        return self._points[number] is not None and self.cluster.rooms[number].ready

    def points_of(self, number: int) -> int:
        """Return what speaks against a node that is one of them."""
        place = self._where[number]
        return 0 if place is None else place[2].points

    @property
    def size(self) -> int:
        """How many nodes it allows, as of the last `catch_up`."""
        return sum([group.size for group in self._groups.values()])

    def groups(self) -> Iterator[Group]:
        """Yield the groups that have nodes."""
        return (group for group in self._groups.values() if group.size)

    def catch_up(self) -> None:
        """Take in what has changed since."""
        changed = self.cluster.changed
        if self._seen != len(changed):
            if self._seen == len(changed) - 1:
                self._refresh(changed[-1])
            else:
                for number in set(changed[self._seen :]):
                    self._refresh(number)
            self._seen = len(changed)
        for place, watch in enumerate(self.watches):
            if self._seen_of[place] != len(watch.changed):
                self._follow(watch, self._seen_of[place])
                self._seen_of[place] = len(watch.changed)

    def _fill(self) -> None:
        """Put every node into its group at once."""
        rooms = self.cluster.rooms
        members: dict[Group, list[tuple[int, int, int]]] = {}
        for number, points in enumerate(self._points):
            if points is None or self._closed(rooms[number]):
                continue
            group = self._group_of(number, rooms[number], points)
            if group is not None:
                cpu_milli, memory_bytes = rooms[number].cpu_milli, rooms[number].memory_bytes
                members.setdefault(group, []).append((cpu_milli, memory_bytes, number))
                self._where[number] = (cpu_milli, memory_bytes, group)
        for group, nodes in members.items():
            group.fill(nodes)
            self.born.append(group)

    def _follow(self, watch: Watch, seen: int) -> None:
        domains = set(watch.changed[seen:])
        if None in domains:
            for number in range(len(self._points)):
                self._refresh(number)
            return
        for domain in domains:
            for number in self.cluster.topology.members(watch.rule.level, domain or 0):
                self._refresh(number)

    def _refresh(self, number: int) -> None:
        points = self._points[number]
        if points is None:
            return
        room = self.cluster.rooms[number]
        group = None if self._closed(room) else self._group_of(number, room, points)
        old = self._where[number]
        cpu_milli, memory_bytes = room.cpu_milli, room.memory_bytes
        if old is not None:
            if old[2] is group and old[0] == cpu_milli and old[1] == memory_bytes:
                return
            old[2].leave(old[0], old[1], number)
        if group is None:
            self._where[number] = None
            return
        if not group.size:
            self.born.append(group)
        group.enter(cpu_milli, memory_bytes, number)
        self._where[number] = (cpu_milli, memory_bytes, group)

    def _closed(self, room: Room) -> bool:
        return not room.ready or bool(room.tenants if self.exclusive else room.exclusive)

    def _group_of(self, number: int, room: Room, points: int) -> Group | None:
        if self.watches:
            topology = self.cluster.topology
            for watch in self.watches:
                domain = topology.domain(watch.rule.level, number)
                if watch.refuses(domain):
                    return None
                points += watch.points(domain)
        thresholds = self.cluster.thresholds
        band = bisect_right(thresholds, room.cpu_milli)
        key = (self.cluster.states.of(room), band, points)
        group = self._groups.get(key)
        if group is None:
            top = thresholds[band] if band < len(thresholds) else UNLIMITED
            self._serial += 1
            group = self._groups[key] = Group(self._serial, key[0], band, points, top)
        return group
