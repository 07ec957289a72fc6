"""Snapshots for tests: valid by default, small numbers (one CPU, one GiB a replica)."""

from dataclasses import replace

from scheduler.config import Config
from scheduler.engine import plan
from scheduler.plan import Plan, ReplicaPlacement, Verdict
from scheduler.snapshot import (
    Account,
    Holding,
    JobClass,
    Node,
    PendingJob,
    Queue,
    Request,
    Role,
    RunningJob,
    Snapshot,
)

GIB = 2**30
NOW = 1000.0
DEFAULT = Queue("q", "default")


def a_node(name: str = "n1", *, cpus: int = 8, gib: int = 32, gpus: int = 0, model: str = "h100") -> Node:
    """Return a ready, empty node; its id is not its name."""
    return Node(
        id=f"id-{name}",
        name=name,
        ready=True,
        cpu_milli=cpus * 1000,
        memory_bytes=gib * GIB,
        cpu_milli_free=cpus * 1000,
        memory_bytes_free=gib * GIB,
        gpu_model=model if gpus else "",
        gpu_milli_free=(1000,) * gpus,
    )


def a_request(*, cpus: int = 1, gib: int = 1, gpu_milli: int = 0, model: str = "") -> Request:
    """Return a request of whole CPUs and GiB."""
    return Request(cpus * 1000, gib * GIB, gpu_milli, (model,) if model else ())


def a_class(request: Request | None = None, *, replicas: int = 1, queue: str = "q", project: str = "p") -> JobClass:
    """Return a class of jobs with one role."""
    return JobClass(project, queue, (Role(request or a_request(), replicas, replicas),))


def a_job(
    job_id: str = "j1",
    request: Request | None = None,
    *,
    at: float = 0.0,
    limit: int | None = None,
    priority: int = 0,
    replicas: int = 1,
    queue: str = "q",
    project: str = "p",
) -> PendingJob:
    """Return a pending job."""
    job_class = a_class(request, replicas=replicas, queue=queue, project=project)
    return PendingJob(job_id, at, replace(job_class, priority=priority, time_limit_s=limit))


def a_snapshot(
    nodes: list[Node],
    pending: list[PendingJob],
    *,
    running: list[RunningJob] | None = None,
    queues: list[Queue] | None = None,
    usage: dict[str, float] | None = None,
) -> Snapshot:
    """Return a snapshot whose nodes lack what `running` holds."""
    running = running or []
    held = [holding for job in running for holding in job.holdings]
    return Snapshot(
        NOW,
        tuple(without(node, held) for node in nodes),
        tuple(queues or [DEFAULT]),
        tuple(pending),
        tuple(running),
        accounts=tuple(Account(project, used=used) for project, used in (usage or {}).items()),
    )


def a_holding(node: str, *, cpus: int = 1, gib: int = 1, gpus: tuple[tuple[int, int], ...] = ()) -> Holding:
    """Return what a replica holds on the node of that name."""
    return Holding(f"id-{node}", cpus * 1000, gib * GIB, gpus)


def a_running(
    job_id: str, *holdings: Holding, ends_by: float | None = None, queue: str = "q", project: str = "p"
) -> RunningJob:
    """Return a running job."""
    return RunningJob(job_id, a_class(queue=queue, project=project), holdings, ends_by=ends_by)


def without(node: Node, holdings: list[Holding]) -> Node:
    """Return `node` with the holdings on it subtracted; below zero is a double use and fails."""
    gpus = list(node.gpu_milli_free)
    cpu_milli, memory_bytes = node.cpu_milli_free, node.memory_bytes_free
    for holding in holdings:
        if holding.node_id == node.id:
            cpu_milli -= holding.cpu_milli
            memory_bytes -= holding.memory_bytes
            for device, milli in holding.gpus:
                gpus[device] -= milli
    assert min([cpu_milli, memory_bytes, *gpus]) >= 0, f"node {node.name} is used beyond what it has"
    return replace(node, cpu_milli_free=cpu_milli, memory_bytes_free=memory_bytes, gpu_milli_free=tuple(gpus))


def applied(snapshot: Snapshot, made: Plan) -> Snapshot:
    """Return the snapshot as it is once the plan's jobs run, and those told to end know it."""
    jobs = {job.id: job for job in snapshot.pending}
    owed = {promise.job_id: promise.holdings for promise in made.promises}
    begun = []
    for placement in made.placements:
        job = jobs.pop(placement.job_id)
        limit = job.job_class.time_limit_s
        ends_by = None if limit is None else snapshot.now + limit
        expected_by = None if job.expected_s is None else snapshot.now + job.expected_s
        holdings = _holdings(job.job_class, placement.replicas)
        begun.append(RunningJob(job.id, job.job_class, holdings, snapshot.now, ends_by, expected_by))
    told = {eviction.job_id: snapshot.now + eviction.grace_s for eviction in made.evictions}
    running = [
        replace(job, releasing_at=told.get(job.id, job.releasing_at), owed=owed.get(job.id, ()))
        for job in snapshot.running
    ]
    by_id = {job.id: job for job in running}
    taken = [holding for job in begun for holding in job.holdings]
    for resize in made.resizes:
        job_before = by_id[resize.job_id]
        added = _holdings(job_before.job_class, resize.added)
        taken += added
        kept = tuple(
            replace(one, releasing_at=snapshot.now + resize.grace_s) if place in resize.removed else one
            for place, one in enumerate(job_before.holdings)
        )
        by_id[resize.job_id] = replace(job_before, holdings=kept + added)
    return replace(
        snapshot,
        nodes=tuple(without(node, taken) for node in snapshot.nodes),
        pending=tuple(replace(job, owed=owed.get(job.id, ())) for job in jobs.values()),
        running=(*by_id.values(), *begun),
    )


def _holdings(job_class: JobClass, replicas: tuple[ReplicaPlacement, ...]) -> tuple[Holding, ...]:
    requests = [job_class.roles[one.role].request for one in replicas]
    return tuple(
        Holding(one.node_id, request.cpu_milli, request.memory_bytes, one.gpus, one.slices, one.role)
        for one, request in zip(replicas, requests, strict=True)
    )


def ended(snapshot: Snapshot, *job_ids: str) -> Snapshot:
    """Return the snapshot as it is once these running jobs, and the replicas told to, are gone."""
    gone = [holding for job in snapshot.running if job.id in job_ids for holding in job.holdings]
    return replace(
        snapshot,
        nodes=tuple(without(node, [given_back(one) for one in gone]) for node in snapshot.nodes),
        running=tuple(job for job in snapshot.running if job.id not in job_ids),
    )


def given_back(holding: Holding) -> Holding:
    """Return the holding that undoes this one."""
    gpus = tuple((index, -milli) for index, milli in holding.gpus)
    return Holding(holding.node_id, -holding.cpu_milli, -holding.memory_bytes, gpus)


def started(snapshot: Snapshot, config: Config | None = None) -> list[str]:
    """Plan and return the ids of the jobs that start, in order."""
    return [placement.job_id for placement in plan(snapshot, config or Config()).placements]


def places(snapshot: Snapshot) -> dict[str, list[tuple[str, tuple[tuple[int, int], ...]]]]:
    """Plan and return node name and devices of each replica by job id."""
    names = {node.id: node.name for node in snapshot.nodes}
    return {
        placement.job_id: [(names[one.node_id], one.gpus) for one in placement.replicas]
        for placement in plan(snapshot, Config()).placements
    }


def verdicts(snapshot: Snapshot, config: Config | None = None) -> dict[str, Verdict]:
    """Plan and return by job id the verdict of its class."""
    return {job_id: one for one in plan(snapshot, config or Config()).verdicts for job_id in one.job_ids}
