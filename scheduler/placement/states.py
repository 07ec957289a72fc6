"""Nodes whose devices are in the same state look alike to every score: the state, not the node, is what is weighed."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from scheduler.placement.layouts import NOTHING, Layout, choose_share, choose_slice, choose_whole, cliques_of
from scheduler.placement.rooms import Room
from scheduler.snapshot import WHOLE, Request


class Demand(NamedTuple):
    """What a request asks of devices; all that ask alike are weighed once."""

    gpu_milli: int
    gpu_models: tuple[str, ...]
    mig_profile: str

    @property
    def asks(self) -> bool:
        """Whether it asks for any device."""
        return bool(self.gpu_milli or self.mig_profile)

    @classmethod
    def of(cls, request: Request) -> "Demand":
        """Return what `request` asks of devices; a model is of no matter to one that asks for none."""
        asks = request.gpu_milli or request.mig_profile
        return cls(request.gpu_milli, request.gpu_models if asks else (), request.mig_profile)


class State:
    """The devices of a node, up to which is which: `gpus` and `masks` are those of the first node seen in it.

    `whole` counts unused devices, `idle` is what is left of all, in milli; `clique` is the number of unused devices in
    the NVLink clique that has most. Compared by identity; two objects for one state cost time, not correctness.
    """

    __slots__ = ("clique", "gpus", "idle", "layout", "masks", "whole")

    def __init__(self, layout: Layout, gpus: tuple[int, ...], masks: tuple[int, ...]) -> None:
        self.layout = layout
        self.gpus = gpus
        self.masks = masks
        self.whole = sum(milli >= WHOLE for milli in gpus)
        self.idle = sum(gpus)
        counts: dict[int, int] = {}
        for link, milli in zip(layout.links, gpus, strict=True):
            counts[link] = counts.get(link, 0) + (milli >= WHOLE)
        self.clique = max(counts.values(), default=0)

    def slots(self, demand: Demand) -> int:
        """Count the replicas that the devices have room for; 0 on another model."""
        if demand.gpu_models and self.layout.model not in demand.gpu_models:
            return 0
        if demand.mig_profile:
            geometry = self.layout.geometry
            if geometry is None:
                return 0
            return sum(geometry.count(self.masks[device], demand.mig_profile) for device in self.layout.partitioned)
        if demand.gpu_milli >= WHOLE:
            return self.whole // (demand.gpu_milli // WHOLE)
        return sum(max(milli, 0) // demand.gpu_milli for milli in self.gpus)


class Outcome(NamedTuple):
    """One way to serve a demand on a node in some state: what it leaves, and what of it matters beside that.

    `hole` is what the device had that a share goes to; `cliques` is over how many NVLink cliques the devices lie;
    `lost` is the worth of the slices that can no longer be had.
    """

    after: State
    hole: int = 0
    cliques: int = 1
    lost: int = 0


class States:
    """The states that have been seen, each once."""

    def __init__(self, slice_weights: Mapping[str, int] = NOTHING) -> None:
        self.slice_weights = slice_weights
        self._by_devices: dict[tuple[int, tuple[int, ...], tuple[int, ...]], State] = {}
        self._by_pattern: dict[object, State] = {}

    def of(self, room: Room) -> State:
        """Return the state of a room's devices."""
        return self._find(room.layout, tuple(room.gpus), tuple(room.masks))

    def outcomes(self, state: State, demand: Demand) -> tuple[Outcome, ...]:
        """Return the different ways to serve `demand` on a node in `state`; none where there is no room for it."""
        layout, gpus = state.layout, state.gpus
        if demand.mig_profile:
            return self._sliced(state, demand)
        if not demand.gpu_milli:
            return (Outcome(state),)
        if demand.gpu_models and layout.model not in demand.gpu_models:
            return ()
        if demand.gpu_milli >= WHOLE:
            count = demand.gpu_milli // WHOLE
            if state.whole < count:
                return ()
            devices = choose_whole(layout, gpus, count)
            return (Outcome(self._less(state, devices, WHOLE), WHOLE, cliques_of(layout, devices)),)
        holes = sorted({milli for milli in gpus if milli >= demand.gpu_milli})
        return tuple(
            Outcome(self._less(state, (choose_share(layout, gpus, hole),), demand.gpu_milli), hole) for hole in holes
        )

    def forget(self) -> None:
        """Let go of what was seen."""
        self._by_devices.clear()
        self._by_pattern.clear()

    def _sliced(self, state: State, demand: Demand) -> tuple[Outcome, ...]:
        if demand.gpu_models and state.layout.model not in demand.gpu_models:
            return ()
        choice = choose_slice(state.layout, state.masks, demand.mig_profile, self.slice_weights)
        if choice is None:
            return ()
        lost, device, mask = choice
        masks = list(state.masks)
        masks[device] |= mask
        return (Outcome(self._find(state.layout, state.gpus, tuple(masks)), lost=lost),)

    def _less(self, state: State, devices: Iterable[int], milli: int) -> State:
        gpus = list(state.gpus)
        for device in devices:
            gpus[device] -= milli
        return self._find(state.layout, tuple(gpus), state.masks)

    def _find(self, layout: Layout, gpus: tuple[int, ...], masks: tuple[int, ...]) -> State:
        key = (id(layout), gpus, masks)
        state = self._by_devices.get(key)
        if state is None:
            state = self._by_pattern.setdefault(_pattern(layout, gpus, masks), State(layout, gpus, masks))
            self._by_devices[key] = state
        return state


def _pattern(layout: Layout, gpus: tuple[int, ...], masks: tuple[int, ...]) -> object:
    """Return what two nodes share if they differ in no more than which clique, NUMA node or device is which."""
    cells: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for device, milli in enumerate(gpus):
        place = (layout.links[device], layout.numa[device])
        cells.setdefault(place, []).append((milli, masks[device] if masks else 0))
    cliques: dict[int, list[tuple[tuple[int, int], ...]]] = {}
    for (link, _), devices in cells.items():
        cliques.setdefault(link, []).append(tuple(sorted(devices)))
    return id(layout), tuple(sorted(tuple(sorted(clique)) for clique in cliques.values()))
