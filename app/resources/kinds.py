"""Nodes by what they are: thousands of machines on a few lines."""

from dataclasses import dataclass

from sqlalchemy import func, select

from app.core.amounts import Amounts
from app.core.uow import UnitOfWork
from app.resources.models import Gpu, Node
from trellis.vocabulary import NodeState


@dataclass(frozen=True, slots=True)
class Kind:
    """Nodes with equal hardware: what each has, how many there are and are ready, and what is held of all of them."""

    gpu_model: str
    gpus: int
    cpu_milli: int
    memory_bytes: int
    nodes: int
    nodes_ready: int
    held: Amounts


def list_kinds(uow: UnitOfWork) -> list[Kind]:
    """The kinds of nodes that the actor may see, those with the most devices first."""
    devices = (
        select(Gpu.node_id, func.count().label("gpus"), func.sum(Gpu.milli_used).label("used"))
        .group_by(Gpu.node_id)
        .subquery()
    )
    gpus = func.coalesce(devices.c.gpus, 0)
    alike = (Node.gpu_model, gpus, Node.cpu_milli, Node.memory_bytes)
    statement = (
        uow.visible(Node)
        .with_only_columns(
            *alike, func.count(), func.count().filter(Node.state == NodeState.READY), func.sum(Node.cpu_milli_used),
            func.sum(Node.memory_bytes_used), func.coalesce(func.sum(devices.c.used), 0),
        )
        .outerjoin(devices, devices.c.node_id == Node.id)
        .group_by(*alike)
        .order_by(gpus.desc(), Node.gpu_model, Node.cpu_milli.desc(), Node.memory_bytes.desc())
    )  # fmt: skip
    return [
        Kind(model, count, cpu, memory, nodes, ready, Amounts(int(cpu_used), int(memory_used), int(gpu_used)))
        for model, count, cpu, memory, nodes, ready, cpu_used, memory_used, gpu_used in uow.session.execute(statement)
    ]
