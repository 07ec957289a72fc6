"""What lies idle, and how much of that nobody could use: the fragmentation of a cluster."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from scheduler.placement.fragmentation import UNIT, Fragmentation
from scheduler.placement.rooms import Room
from scheduler.placement.states import States
from scheduler.snapshot import WHOLE, Node, Shape


@dataclass(frozen=True, slots=True)
class Idle:
    """What is idle of one model's devices, on nodes that are ready; those that are cut into slices are left out.

    `whole` are devices of which nothing is held, `most_on_one_node` the most of them that any node has. `useless_milli` is
    what of the idle share a task drawn from the popular shapes could not be given, summed over the nodes; None where no
    shapes are known. Source: Weng et al., "Beware of Fragmentation", USENIX ATC 2023 (the cluster's F).
    """

    model: str
    nodes: int
    devices: int
    idle_milli: int
    whole: int
    most_on_one_node: int
    useless_milli: int | None


def measure_idle(nodes: Iterable[Node], shapes: Sequence[Shape]) -> tuple[Idle, ...]:
    """Measure by model, in the order of their names. Raises: ValueError for a shape of negative weight."""
    by_model: dict[str, list[Room]] = {}
    for node in nodes:
        if node.ready and node.gpu_model:
            by_model.setdefault(node.gpu_model, []).append(Room.of(node))
    fragmentation = Fragmentation(shapes)
    return tuple(_measure(model, by_model[model], fragmentation if shapes else None) for model in sorted(by_model))


def _measure(model: str, rooms: Sequence[Room], fragmentation: Fragmentation | None) -> Idle:
    states = States()
    useless = None
    if fragmentation is not None:
        lost = (fragmentation.of(states.of(room), fragmentation.band(room.cpu_milli)) for room in rooms)
        useless = (sum(lost) + UNIT // 2) // UNIT
    return Idle(
        model=model,
        nodes=len(rooms),
        devices=sum(len(room.gpus) - len(room.layout.partitioned) for room in rooms),
        idle_milli=sum(max(milli, 0) for room in rooms for milli in room.gpus),
        whole=sum(milli >= WHOLE for room in rooms for milli in room.gpus),
        most_on_one_node=max(room.whole for room in rooms),
        useless_milli=useless,
    )
