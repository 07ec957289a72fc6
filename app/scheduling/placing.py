"""Where parts that somebody asks for outside the queues had best be: the scheduler's own choice, on what is free."""

from collections.abc import Mapping, Sequence
from uuid import UUID

from app.resources.candidates import Part
from app.resources.maintenance import whole
from app.resources.models import Node
from app.resources.reservations import Claimed
from app.resources.windows import WHOLE, Free
from scheduler import snapshot as plain
from scheduler.config import Config
from scheduler.engine import plan
from trellis.errors import CapacityTaken


def choose_places(nodes: Sequence[Node], free: Mapping[UUID, Free], part: Part, count: int) -> list[Claimed]:
    """Places for `count` such parts. Raises CapacityTaken that says how much is free."""
    chosen = _whole_nodes(nodes, free, part, count) if part.exclusive else _shares(nodes, free, part, count)
    if len(chosen) < count:
        raise CapacityTaken(_shortage(nodes, free, part, count))
    return chosen


def _whole_nodes(nodes: Sequence[Node], free: Mapping[UUID, Free], part: Part, count: int) -> list[Claimed]:
    """The smallest nodes that have enough, and nothing else on them."""
    empty = [node for node in nodes if _is_empty(node, free[node.id]) and _has(free[node.id], part)]
    empty.sort(key=lambda node: (len(free[node.id].gpus), node.memory_bytes, node.cpu_milli, node.name))
    return [whole(node, len(free[node.id].gpus)) for node in empty[:count]]


def _shares(nodes: Sequence[Node], free: Mapping[UUID, Free], part: Part, count: int) -> list[Claimed]:
    amounts, by_id = part.amounts, {str(node.id): node for node in nodes}
    models = (part.gpu_type,) if part.gpu_type else ()
    request = plain.Request(amounts.cpu_milli, amounts.memory_bytes, amounts.gpu_milli, models)
    together = plain.JobClass(project_id="", queue_id="", roles=(plain.Role(request, count, count),))
    offered = tuple(_offer(node, free[node.id]) for node in nodes)
    wish = plain.PendingJob("wish", 0.0, together)
    made = plan(plain.Snapshot(0.0, offered, (plain.Queue("", ""),), (wish,)), Config())
    return [
        Claimed(by_id[seat.node_id], amounts.cpu_milli, amounts.memory_bytes, seat.gpus)
        for placement in made.placements
        for seat in placement.replicas
    ]


def _offer(node: Node, free: Free) -> plain.Node:
    return plain.Node(
        id=str(node.id), name=node.name, ready=True, cpu_milli=node.cpu_milli, memory_bytes=node.memory_bytes,
        cpu_milli_free=max(0, free.cpu_milli), memory_bytes_free=max(0, free.memory_bytes), gpu_model=node.gpu_model,
        gpu_milli_free=tuple(max(0, milli) for milli in free.gpus),
    )  # fmt: skip


def _is_empty(node: Node, free: Free) -> bool:
    return (free.cpu_milli, free.memory_bytes) == (node.cpu_milli, node.memory_bytes) and set(free.gpus) <= {WHOLE}


def _has(free: Free, part: Part) -> bool:
    amounts = part.amounts
    return (
        free.cpu_milli >= amounts.cpu_milli
        and free.memory_bytes >= amounts.memory_bytes
        and sum(free.gpus) >= amounts.gpu_milli
    )


def _shortage(nodes: Sequence[Node], free: Mapping[UUID, Free], part: Part, count: int) -> str:
    if not nodes:
        return "no node matches"
    if part.exclusive:
        empty = sum(_is_empty(node, free[node.id]) and _has(free[node.id], part) for node in nodes)
        return f"{empty} of {count} such nodes {'is' if empty == 1 else 'are'} free; {len(nodes)} match"
    gpus = sum(max(0, milli) for node in nodes for milli in free[node.id].gpus)
    cpus = sum(max(0, free[node.id].cpu_milli) for node in nodes)
    where = f"on the {len(nodes)} {'node that matches' if len(nodes) == 1 else 'nodes that match'}"
    return f"there is no room for {count} such; free {where}: {cpus / WHOLE:g} CPUs, {gpus / WHOLE:g} GPUs"
