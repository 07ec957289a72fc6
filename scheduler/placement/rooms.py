"""What is free on one node, and how many members of a job that holds."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scheduler.snapshot import UNLIMITED, WHOLE, Amounts, Holding, Request, Slice


class Grant(NamedTuple):
    """What one replica takes of the node with this number in the ledger; `gpus` are pairs of device index and milli.

    `role` is the number of the replica's role in its job.
    """

    number: int
    cpu_milli: int
    memory_bytes: int
    gpus: tuple[tuple[int, int], ...] = ()
    slices: tuple[Slice, ...] = ()
    role: int = 0

    @classmethod
    def of(cls, number: int, holding: Holding) -> "Grant":
        """The grant that a running replica's holding is."""
        return cls(number, holding.cpu_milli, holding.memory_bytes, holding.gpus, holding.slices, holding.role)


class Room:
    """Free amounts of one node, now or at a later time; `whole` counts the devices nobody uses.

    An amount may fall below zero: a forecast subtracts what is promised before it adds what will be released.
    """

    __slots__ = ("cpu_milli", "gpus", "memory_bytes", "model", "whole")

    def __init__(self, cpu_milli: int, memory_bytes: int, gpus: Sequence[int], model: str) -> None:
        self.cpu_milli = cpu_milli
        self.memory_bytes = memory_bytes
        self.gpus = list(gpus)
        self.model = model
        self.whole = self.gpus.count(WHOLE)

    def copy(self) -> "Room":
        """Return a room of its own with the same amounts."""
        return Room(self.cpu_milli, self.memory_bytes, self.gpus, self.model)

    def take(self, grant: Grant) -> None:
        """Subtract what `grant` holds."""
        self.cpu_milli -= grant.cpu_milli
        self.memory_bytes -= grant.memory_bytes
        for device, milli in grant.gpus:
            self._set(device, self.gpus[device] - milli)

    def give(self, grant: Grant) -> None:
        """Add what `grant` held."""
        self.cpu_milli += grant.cpu_milli
        self.memory_bytes += grant.memory_bytes
        for device, milli in grant.gpus:
            self._set(device, self.gpus[device] + milli)

    def covers(self, grant: Grant) -> bool:
        """Tell whether `grant` can be taken and leave nothing below zero."""
        return (
            self.cpu_milli >= grant.cpu_milli
            and self.memory_bytes >= grant.memory_bytes
            and all(self.gpus[device] >= milli for device, milli in grant.gpus)
        )

    def slots(self, request: Request, most: int = UNLIMITED) -> int:
        """Count the replicas of `request` that fit here side by side, up to `most`."""
        if request.gpu_milli:
            if request.gpu_models and self.model not in request.gpu_models:
                return 0
            most = min(most, self._gpu_slots(request.gpu_milli))
        if request.cpu_milli:
            most = min(most, self.cpu_milli // request.cpu_milli)
        if request.memory_bytes:
            most = min(most, self.memory_bytes // request.memory_bytes)
        return max(most, 0)

    def devices_for(self, gpu_milli: int) -> tuple[tuple[int, int], ...]:
        """Choose devices: the lowest free ones for whole GPUs, the tightest hole for a share. They must be there."""
        if gpu_milli >= WHOLE:
            free = [device for device, milli in enumerate(self.gpus) if milli == WHOLE]
            return tuple((device, WHOLE) for device in free[: gpu_milli // WHOLE])
        if gpu_milli:
            _, device = min((milli, device) for device, milli in enumerate(self.gpus) if milli >= gpu_milli)
            return ((device, gpu_milli),)
        return ()

    def _gpu_slots(self, gpu_milli: int) -> int:
        if gpu_milli >= WHOLE:
            return self.whole // (gpu_milli // WHOLE)
        return sum(max(milli, 0) // gpu_milli for milli in self.gpus)

    def _set(self, device: int, milli: int) -> None:
        self.whole += (milli == WHOLE) - (self.gpus[device] == WHOLE)
        self.gpus[device] = milli


def sum_up(grants: Iterable[Grant]) -> Amounts:
    """What is taken of nodes, added up; slices of partitioned devices are no part of their free GPUs."""
    cpu_milli = memory_bytes = gpu_milli = 0
    for grant in grants:
        cpu_milli += grant.cpu_milli
        memory_bytes += grant.memory_bytes
        for _, milli in grant.gpus:
            gpu_milli += milli
    return Amounts(cpu_milli, memory_bytes, gpu_milli)
