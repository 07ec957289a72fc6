"""The capacity index: ready nodes by GPU model and free devices, so that a placement looks at one or two of them."""

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from scheduler.placement.rooms import Room
from scheduler.snapshot import WHOLE

Bucket = list[tuple[int, int]]
"""Pairs of free milli-CPUs and node number, sorted."""


class Capacity:
    """Every indexed room, by (model, whole devices free) and, where a device is partly used, by the size of the hole.

    A room is removed before it changes and added again after.
    """

    def __init__(self) -> None:
        self._buckets: dict[str, list[Bucket]] = {}
        self._holes: dict[str, list[tuple[int, int, int]]] = {}

    def add(self, number: int, room: Room) -> None:
        """Index `room` under its present amounts."""
        buckets = self._buckets.setdefault(room.model, [])
        while len(buckets) <= room.whole:
            buckets.append([])
        insort(buckets[room.whole], (room.cpu_milli, number))
        for device, milli in enumerate(room.gpus):
            if 0 < milli < WHOLE:
                insort(self._holes.setdefault(room.model, []), (milli, number, device))

    def remove(self, number: int, room: Room) -> None:
        """Forget `room`, whose amounts are those it was added with."""
        bucket = self._buckets[room.model][room.whole]
        del bucket[bisect_left(bucket, (room.cpu_milli, number))]
        for device, milli in enumerate(room.gpus):
            if 0 < milli < WHOLE:
                holes = self._holes[room.model]
                del holes[bisect_left(holes, (milli, number, device))]

    def models(self, wanted: Sequence[str]) -> list[str]:
        """Name the models that answer a request for one of `wanted`; none named: any."""
        if wanted:
            return [model for model in wanted if model in self._buckets]
        return sorted(self._buckets)

    def widest(self) -> int:
        """Return the largest number of free devices that any model has buckets for."""
        return max((len(buckets) for buckets in self._buckets.values()), default=0) - 1

    def bucket(self, model: str, whole: int) -> Bucket:
        """Return the nodes of `model` with exactly `whole` free devices."""
        buckets = self._buckets.get(model, [])
        return buckets[whole] if whole < len(buckets) else []

    def holes(self, model: str, smallest: int) -> Iterator[tuple[int, int, int]]:
        """Yield (milli, node number, device) of partly used devices with at least `smallest` left, tightest first."""
        holes = self._holes.get(model, [])
        for position in range(bisect_left(holes, (smallest,)), len(holes)):
            yield holes[position]
