"""How many replicas of one request the domains of the topology have room for, kept up to date."""

from collections.abc import Sequence

from scheduler.placement.affinity import Watch
from scheduler.placement.fields import Group
from scheduler.placement.topology import Part
from scheduler.placement.views import View


class Tally:
    """Slots by node, and summed up by domain of every level: `totals[depth][domain]`; `slots` lacks nodes without any.

    A node that the view's field does not allow has none.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._cluster = view.field.cluster
        self.slots: dict[int, int] = {}
        self.totals = [[0] * len(level.members) for level in self._cluster.topology.levels]
        self.total = 0
        view.catch_up()
        for group in view.groups():
            self._count(group)
        self._seen = len(self._cluster.changed)
        self._seen_of = [len(watch.changed) for watch in view.field.watches]

    def catch_up(self) -> None:
        """Take in what has changed since."""
        stale: set[int] = set()
        changed, watches = self._cluster.changed, self._view.field.watches
        if self._seen != len(changed):
            stale.update(changed[self._seen :])
            self._seen = len(changed)
        for place, watch in enumerate(watches):
            if self._seen_of[place] != len(watch.changed):
                for domain in set(watch.changed[self._seen_of[place] :]):
                    stale.update(self._members(watch, domain))
                self._seen_of[place] = len(watch.changed)
        if stale:
            self._view.catch_up()
            for number in stale:
                self._set(number, self._view.slots(number))

    def of(self, part: Part) -> int:
        """Return the slots of a part of the tree, as of the last `catch_up`."""
        if part.depth < 0:
            return self.total
        if part.depth == len(self.totals):
            return self.slots.get(part.number, 0)
        return self.totals[part.depth][part.number]

    def _members(self, watch: Watch, domain: int | None) -> Sequence[int]:
        if domain is None:
            return range(len(self._cluster.rooms))
        return self._cluster.topology.members(watch.rule.level, domain)

    def _count(self, group: Group) -> None:
        """Count the nodes of a group, whose devices are alike."""
        request, rooms = self._view.request, self._cluster.rooms
        by_devices = group.state.slots(self._view.demand) if self._view.demand.asks else None
        for cpu_milli, memory_bytes, number in group:
            slots = by_devices
            if request.cpu_milli:
                by_cpus = cpu_milli // request.cpu_milli
                slots = by_cpus if slots is None or by_cpus < slots else slots
            if request.memory_bytes:
                by_memory = memory_bytes // request.memory_bytes
                slots = by_memory if slots is None or by_memory < slots else slots
            self._set(number, rooms[number].slots(request) if slots is None else slots)

    def _set(self, number: int, slots: int) -> None:
        change = slots - self.slots.get(number, 0)
        if not change:
            return
        if slots:
            self.slots[number] = slots
        else:
            del self.slots[number]
        self.total += change
        for level, totals in zip(self._cluster.topology.levels, self.totals, strict=True):
            domain = level.of[number]
            if domain >= 0:
                totals[domain] += change
