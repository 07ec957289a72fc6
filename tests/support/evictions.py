"""Clusters in which somebody must go, and what must hold for everyone who is told to."""

from collections.abc import Sequence
from dataclasses import replace

from scheduler.plan import Plan
from scheduler.snapshot import Holding, JobClass, Node, PendingJob, Request, Role, RunningJob
from tests.support.clusters import GIB, a_class, a_request


def whole(*devices: int) -> tuple[tuple[int, int], ...]:
    """Return these devices, each held whole."""
    return tuple((device, 1000) for device in devices)


def runs(
    job_id: str,
    *places: tuple[str, Sequence[int]],
    priority: int = 0,
    since: float = 0.0,
    queue: str = "q",
    least: int | None = None,
    checkpointable: bool = False,
) -> RunningJob:
    """Return a running job with a replica for each place: a node's name and the devices it holds there whole.

    Each has a CPU and a GiB; as many replicas as it has are the most it may have, and `least` the fewest.
    """
    request = a_request(gpu_milli=1000 * len(places[0][1]))
    role = Role(request, len(places) if least is None else least, len(places))
    job_class = replace(a_class(queue=queue), roles=(role,), priority=priority, checkpointable=checkpointable)
    holdings = tuple(Holding(f"id-{node}", 1000, GIB, whole(*devices)) for node, devices in places)
    return RunningJob(job_id, job_class, holdings, started_at=since)


def wants(
    job_id: str,
    gpus: int,
    *,
    replicas: int = 1,
    priority: int = 10,
    at: float = 0.0,
    queue: str = "q",
    limit: int | None = None,
) -> PendingJob:
    """Return a pending job of some importance."""
    request = a_request(gpu_milli=1000 * gpus)
    job_class = a_class(request, replicas=replicas, queue=queue)
    return PendingJob(job_id, at, replace(job_class, priority=priority, time_limit_s=limit))


def victims(made: Plan) -> set[str]:
    """Return who is told to end."""
    return {eviction.job_id for eviction in made.evictions}


def a_role_class(*roles: tuple[Request, int], priority: int = 10, queue: str = "q") -> JobClass:
    """Return a class with several roles."""
    return JobClass("p", queue, tuple(Role(request, count, count) for request, count in roles), priority=priority)


def in_domain(node: Node, *domains: str) -> Node:
    """Return the node as part of these."""
    return replace(node, domains=domains)
