"""What is free on one node, and how many members of a job that holds."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache, reduce
from operator import or_
from typing import NamedTuple

from scheduler.placement.layouts import (
    NOTHING,
    Devices,
    Layout,
    choose_share,
    choose_slice,
    choose_whole,
    layout_of,
    plain_layout,
)
from scheduler.placement.mig import start_of
from scheduler.snapshot import UNLIMITED, WHOLE, Amounts, Holding, JobClass, Node, Request, Slice

Pieces = tuple[Slice, ...]


class Grant(NamedTuple):
    """What one replica takes of the node with this number in the ledger; `gpus` are pairs of device index and milli.

    `role` is the number of the replica's role in its job, `job_class` whose it is, None where that is nobody's concern.
    """

    number: int
    cpu_milli: int
    memory_bytes: int
    gpus: Devices = ()
    slices: Pieces = ()
    role: int = 0
    job_class: JobClass | None = None

    @classmethod
    def of(cls, number: int, holding: Holding, job_class: JobClass | None = None) -> "Grant":
        """The grant that a running replica's holding is."""
        return cls(
            number, holding.cpu_milli, holding.memory_bytes, holding.gpus, holding.slices, holding.role, job_class
        )


class Room:
    """Free amounts of one node, now or at a later time; `whole` counts the devices with all of one to give.

    `masks[i]` are the memory slots that slices have taken of device i. `tenants` counts the replicas on the node,
    `exclusive` those that suffer no other job beside them. Only a `ready` one takes new ones. An amount may fall below zero: a forecast subtracts what is
    promised before it adds what will be released.
    """

    __slots__ = (
        "_cuts",
        "cpu_milli",
        "exclusive",
        "gpus",
        "layout",
        "masks",
        "memory_bytes",
        "ready",
        "tenants",
        "whole",
    )

    def __init__(
        self, cpu_milli: int, memory_bytes: int, gpus: Sequence[int], model: str, layout: Layout | None = None
    ) -> None:
        self.cpu_milli = cpu_milli
        self.memory_bytes = memory_bytes
        self.gpus = list(gpus)
        self.layout = layout or plain_layout(model, len(self.gpus))
        self.masks = [0] * len(self.gpus) if self.layout.partitioned else []
        # Every slice by itself: a forecast may take what overlaps, and each must be put back exactly.
        self._cuts: list[list[int]] = [[] for _ in self.masks]
        self.whole = sum(milli >= WHOLE for milli in self.gpus)
        self.ready = True
        self.tenants = 0
        self.exclusive = 0

    @classmethod
    def of(cls, node: Node) -> "Room":
        """Return what is free on `node`; who is on it, and its slices, are told by `seat`."""
        room = cls(node.cpu_milli_free, node.memory_bytes_free, node.gpu_milli_free, node.gpu_model, layout_of(node))
        room.ready = node.ready
        return room

    @classmethod
    def unused(cls, cpu_milli: int, memory_bytes: int, layout: Layout) -> "Room":
        """Return the room that a node is when nobody is on it."""
        gpus = [0 if device in layout.partitioned else WHOLE for device in range(len(layout.links))]
        return cls(cpu_milli, memory_bytes, gpus, layout.model, layout)

    @property
    def model(self) -> str:
        """What its devices are."""
        return self.layout.model

    def copy(self) -> "Room":
        """Return a room of its own with the same amounts."""
        twin = Room(self.cpu_milli, self.memory_bytes, self.gpus, "", self.layout)
        twin.masks = list(self.masks)
        twin._cuts = [list(cuts) for cuts in self._cuts]
        twin.ready = self.ready
        twin.tenants = self.tenants
        twin.exclusive = self.exclusive
        return twin

    def take(self, grant: Grant) -> None:
        """Subtract what `grant` holds."""
        self.cpu_milli -= grant.cpu_milli
        self.memory_bytes -= grant.memory_bytes
        for device, milli in grant.gpus:
            self._set(device, self.gpus[device] - milli)
        self.seat(grant)

    def give(self, grant: Grant) -> None:
        """Add what `grant` held."""
        self.cpu_milli += grant.cpu_milli
        self.memory_bytes += grant.memory_bytes
        for device, milli in grant.gpus:
            self._set(device, self.gpus[device] + milli)
        for device, mask in self._masks_of(grant):
            self._cuts[device].remove(mask)
            self.masks[device] = reduce(or_, self._cuts[device], 0)
        self.tenants -= 1
        self.exclusive -= _exclusive(grant)

    def seat(self, grant: Grant) -> None:
        """Note who is here and which slices they have: of what runs already the free amounts do not say it."""
        for device, mask in self._masks_of(grant):
            self._cuts[device].append(mask)
            self.masks[device] |= mask
        self.tenants += 1
        self.exclusive += _exclusive(grant)

    def covers(self, grant: Grant) -> bool:
        """Tell whether `grant` can be taken and leave nothing that it asks for below zero."""
        return (
            (self.cpu_milli >= grant.cpu_milli or not grant.cpu_milli)
            and (self.memory_bytes >= grant.memory_bytes or not grant.memory_bytes)
            and all(self.gpus[device] >= milli for device, milli in grant.gpus)
            and not any(self.masks[device] & mask for device, mask in self._masks_of(grant))
        )

    def slots(self, request: Request, most: int = UNLIMITED) -> int:
        """Count the replicas of `request` that fit here side by side, up to `most`."""
        if request.gpu_milli or request.mig_profile:
            if request.gpu_models and self.layout.model not in request.gpu_models:
                return 0
            most = min(most, self.device_slots(request))
        if request.cpu_milli:
            most = min(most, self.cpu_milli // request.cpu_milli)
        if request.memory_bytes:
            most = min(most, self.memory_bytes // request.memory_bytes)
        return max(most, 0)

    def device_slots(self, request: Request) -> int:
        """Count the replicas of `request` that the devices alone have room for."""
        if request.mig_profile:
            geometry = self.layout.geometry
            if geometry is None:
                return 0
            return sum(geometry.count(self.masks[device], request.mig_profile) for device in self.layout.partitioned)
        if request.gpu_milli >= WHOLE:
            return self.whole // (request.gpu_milli // WHOLE)
        return sum(max(milli, 0) // request.gpu_milli for milli in self.gpus)

    def grant(self, number: int, request: Request, role: int = 0, job_class: JobClass | None = None) -> Grant:
        """Return what one replica would take here. There must be room for it."""
        gpus, slices = self.choose(request)
        return Grant(number, request.cpu_milli, request.memory_bytes, gpus, slices, role, job_class)

    def choose(self, request: Request, weights: Mapping[str, int] = NOTHING) -> tuple[Devices, Pieces]:
        """Choose the devices, or the slice, for one replica: the tightest hole for a share. They must be there."""
        if request.mig_profile:
            choice = choose_slice(self.layout, self.masks, request.mig_profile, weights)
            if choice is None:
                raise ValueError(f"no device has a slice {request.mig_profile} left")
            return (), (Slice(choice[1], request.mig_profile, start_of(choice[2])),)
        return self.devices_for(request.gpu_milli), ()

    def devices_for(self, gpu_milli: int) -> Devices:
        """Choose devices: unused ones near to each other for whole GPUs, the tightest hole for a share."""
        if gpu_milli >= WHOLE:
            return _all_of(choose_whole(self.layout, self.gpus, gpu_milli // WHOLE))
        if gpu_milli:
            tightest = min(milli for milli in self.gpus if milli >= gpu_milli)
            return ((choose_share(self.layout, self.gpus, tightest), gpu_milli),)
        return ()

    def _masks_of(self, grant: Grant) -> list[tuple[int, int]]:
        """Return pairs of device and mask; none where it is not known how devices are cut: such are never given."""
        geometry = self.layout.geometry
        return [(piece.device, geometry.mask_of(piece)) for piece in grant.slices] if geometry and grant.slices else []

    def _set(self, device: int, milli: int) -> None:
        self.whole += (milli >= WHOLE) - (self.gpus[device] >= WHOLE)
        self.gpus[device] = milli


@cache
def _all_of(devices: tuple[int, ...]) -> Devices:
    """These devices, whole: kept, as a plan hands out the same few sets of them thousands of times."""
    return tuple((device, WHOLE) for device in devices)


def sum_up(grants: Iterable[Grant]) -> Amounts:
    """What is taken of nodes, added up; slices of partitioned devices are no part of their free GPUs."""
    cpu_milli = memory_bytes = gpu_milli = 0
    for grant in grants:
        cpu_milli += grant.cpu_milli
        memory_bytes += grant.memory_bytes
        for _, milli in grant.gpus:
            gpu_milli += milli
    return Amounts(cpu_milli, memory_bytes, gpu_milli)


def _exclusive(grant: Grant) -> bool:
    return grant.job_class is not None and grant.job_class.constraints.exclusive
