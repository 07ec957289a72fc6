"""Whether a job could ever start: the scheduler's own answer, on the cluster as if nothing ran there."""

from dataclasses import replace
from typing import Any

from app.core.uow import UnitOfWork
from app.scheduling.classes import job_class_of
from app.scheduling.cluster import load_empty
from app.scheduling.policy import load_policy
from scheduler.engine import plan
from scheduler.snapshot import WHOLE, JobClass, Node, PendingJob


def why_never(uow: UnitOfWork, row: Any) -> str:
    """Why a job with such a row could not start even if nothing else ran; "" where it could."""
    empty = load_empty(uow)
    wish = PendingJob("wish", empty.now, _by_itself(job_class_of(row)))
    nodes = tuple(map(_emptied, empty.nodes))
    made = plan(replace(empty, nodes=nodes, pending=(wish,)), load_policy(uow))
    return "" if made.placements else made.verdicts[0].message


def _by_itself(job_class: JobClass) -> JobClass:
    """Without the wish to be near to others: they may come."""
    apart = tuple(one for one in job_class.constraints.affinities if one.apart)
    return replace(job_class, constraints=replace(job_class.constraints, affinities=apart))


def _emptied(node: Node) -> Node:
    """The node with nothing on it; one that takes nothing now may take something later."""
    gpus = tuple(0 if device in node.partitioned else WHOLE for device in range(len(node.gpu_milli_free)))
    return replace(
        node, ready=True, cpu_milli_free=node.cpu_milli, memory_bytes_free=node.memory_bytes, gpu_milli_free=gpus
    )
