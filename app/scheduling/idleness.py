"""What the cluster has, what is held of it, and how much of what is idle nobody could use."""

from collections.abc import Sequence
from dataclasses import dataclass

from app.core.access import Permission
from app.core.uow import UnitOfWork
from app.resources.topology import list_levels
from app.scheduling.cluster import load_nodes
from app.scheduling.popular import popular_shapes
from scheduler.idle import Idle, measure_idle


@dataclass(frozen=True, slots=True)
class Stock:
    """So much there is, and so much of it is held."""

    capacity: int
    held: int


@dataclass(frozen=True, slots=True)
class CapacityReport:
    """Nodes, how many take work, what all of them have and give, and the idle devices of those that take work."""

    nodes: int
    nodes_ready: int
    cpu_milli: Stock
    memory_bytes: Stock
    gpus: Sequence[Idle]


def report_capacity(uow: UnitOfWork) -> CapacityReport:
    """Measure the whole cluster, in a fixed number of statements."""
    uow.require(Permission.NODE_READ)
    nodes = list(load_nodes(uow, list_levels(uow)))
    cpu_milli, memory_bytes = sum(node.cpu_milli for node in nodes), sum(node.memory_bytes for node in nodes)
    return CapacityReport(
        nodes=len(nodes),
        nodes_ready=sum(node.ready for node in nodes),
        cpu_milli=Stock(cpu_milli, cpu_milli - sum(node.cpu_milli_free for node in nodes)),
        memory_bytes=Stock(memory_bytes, memory_bytes - sum(node.memory_bytes_free for node in nodes)),
        gpus=measure_idle(nodes, popular_shapes(uow)),
    )
