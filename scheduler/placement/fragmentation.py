"""How much of what is idle nobody could use: the fragmentation gradient.

The measure of a node is the idle GPU share that a task, drawn from the popular shapes, could not be given there; a
replica goes where that grows least. Source: Weng et al., "Beware of Fragmentation: Scheduling GPU-Sharing Workloads
with Fragmentation Gradient Descent", USENIX ATC 2023. Beyond the paper a shape that finds enough unused devices, but
in no one NVLink clique, counts as half served.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple

from scheduler.placement.layouts import Layout
from scheduler.placement.states import Demand, State
from scheduler.snapshot import WHOLE, Shape

UNIT = 1 << 20
"""The weights of all shapes together: they are integers, so that no sum depends on its order."""


class _Popular(NamedTuple):
    """A demand on devices: `weights[band]` is how popular it is among the shapes whose CPUs a node of `band` has."""

    demand: Demand
    weights: tuple[int, ...]


class Fragmentation:
    """What popular shapes make of a node's state; a node's free CPUs matter only by the shapes that they suffice for.

    `thresholds` are the CPUs that shapes ask for; a node whose free CPUs reach the first n of them is in band n.
    """

    def __init__(self, shapes: Sequence[Shape]) -> None:
        # A shape without GPUs can use none of what is idle, wherever: it weighs, but the same on all nodes.
        self._shapes = [(shape, weight) for shape, weight in _weighed(shapes) if shape.request.gpu_milli]
        self.thresholds = sorted({shape.request.cpu_milli for shape, _ in self._shapes})
        self._of_model: dict[str, tuple[_Popular, ...]] = {}
        self._known: dict[tuple[State, int], int] = {}

    def band(self, cpu_milli: int) -> int:
        """Return the number of thresholds that so many free CPUs reach."""
        return bisect_right(self.thresholds, cpu_milli)

    def of(self, state: State, band: int) -> int:
        """Return the idle milli-GPU that a drawn task could not use on such a node, in `UNIT` parts."""
        key = (state, band)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._measure(state, band)
        return known

    def forget(self) -> None:
        """Let go of what was measured."""
        self._known.clear()

    def _measure(self, state: State, band: int) -> int:
        idle, layout = state.idle, state.layout
        popular = self._of_model.get(layout.model)
        if popular is None:
            popular = self._of_model[layout.model] = self._popular_on(layout.model)
        lost = idle * UNIT
        for demand, weights in popular:
            if weights[band]:
                lost -= weights[band] * (idle - _useless(state, demand, layout))
        return lost

    def _popular_on(self, model: str) -> tuple[_Popular, ...]:
        """Gather the demands that a node of `model` may serve."""
        gathered: dict[Demand, list[int]] = {}
        for shape, weight in self._shapes:
            request = shape.request
            if not request.gpu_models or model in request.gpu_models:
                weights = gathered.setdefault(Demand(request.gpu_milli, (), ""), [0] * (len(self.thresholds) + 1))
                for band in range(self.band(request.cpu_milli), len(weights)):
                    weights[band] += weight
        return tuple(_Popular(demand, tuple(weights)) for demand, weights in gathered.items())


def _useless(state: State, demand: Demand, layout: Layout) -> int:
    """Return the idle milli that `demand` cannot use on a node in `state`, CPUs aside."""
    gpu_milli = demand.gpu_milli
    if gpu_milli < WHOLE:
        small = sum(milli for milli in state.gpus if milli < gpu_milli)
        return small
    count = gpu_milli // WHOLE
    if state.whole < count:
        return state.idle
    small = sum(milli for milli in state.gpus if milli < WHOLE)
    if state.clique < count <= layout.largest_clique:
        return small + gpu_milli // 2
    return small


def _weighed(shapes: Sequence[Shape]) -> list[tuple[Shape, int]]:
    """Turn weights into integers that add up to `UNIT`, but for rounding."""
    total = sum(shape.weight for shape in shapes)
    if min((shape.weight for shape in shapes), default=0) < 0:
        raise ValueError("a shape has a negative weight")
    return [(shape, round(shape.weight * UNIT / total)) for shape in shapes] if total else []
