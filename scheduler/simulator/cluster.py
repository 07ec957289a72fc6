"""The machines of a simulated cluster."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from scheduler.snapshot import WHOLE, Labels, Node, Taint


@dataclass(frozen=True, slots=True)
class NodeGroup:
    """So many nodes that are alike; `rack_of` nodes share a rack, 0: all are in `rack`, "" where that is not known.

    The last `partitioned` of a node's devices are given in slices: nobody has one whole.
    """

    name: str
    count: int = 1
    cpu_milli: int = 0
    memory_bytes: int = 0
    gpus: int = 0
    gpu_model: str = ""
    gpus_a_link: int = 0
    rack_of: int = 0
    labels: Labels = ()
    rack: str = ""
    taints: tuple[Taint, ...] = ()
    partitioned: int = 0


LEVELS = ("rack",)
"""The topology of a simulated cluster."""


def build_nodes(groups: Iterable[NodeGroup]) -> tuple[Node, ...]:
    """Return the nodes of all groups, empty and ready. Raises ValueError for a name that comes twice."""
    nodes = tuple(node for group in groups for node in _nodes_of(group))
    if len({node.id for node in nodes}) < len(nodes):
        raise ValueError("two groups of nodes have the same name")
    return nodes


def one_machine(processors: int) -> tuple[Node, ...]:
    """The machine of a log that says nothing of nodes: one node with all processors."""
    return build_nodes([NodeGroup("machine", cpu_milli=processors * WHOLE)])


def one_node_a_processor(processors: int) -> tuple[Node, ...]:
    """The same machine, cut as small as it can be."""
    return build_nodes([NodeGroup("cpu", processors, cpu_milli=WHOLE)])


def _nodes_of(group: NodeGroup) -> Iterator[Node]:
    whole = group.gpus - group.partitioned
    for number in range(group.count):
        name = f"{group.name}-{number + 1:05}" if group.count > 1 else group.name
        links = tuple(device // group.gpus_a_link for device in range(group.gpus)) if group.gpus_a_link else ()
        yield Node(
            id=name,
            name=name,
            ready=True,
            cpu_milli=group.cpu_milli,
            memory_bytes=group.memory_bytes,
            cpu_milli_free=group.cpu_milli,
            memory_bytes_free=group.memory_bytes,
            gpu_model=group.gpu_model if group.gpus else "",
            gpu_milli_free=(WHOLE,) * whole + (0,) * group.partitioned,
            gpu_links=links,
            partitioned=tuple(range(whole, group.gpus)),
            domains=(f"{group.name}-rack-{number // group.rack_of + 1}" if group.rack_of else group.rack,),
            labels=group.labels,
            taints=group.taints,
        )
