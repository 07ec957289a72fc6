"""A cluster as it would be: with machines more, or with some of them gone."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from scheduler.snapshot import WHOLE, Holding, Node, PendingJob, Reservation, RunningJob, Snapshot


def with_twins(snapshot: Snapshot, model: Node, count: int) -> Snapshot:
    """Add `count` machines like `model`, empty and ready, in its pool and domains; they are called after it."""
    twins = tuple(_twin(model, number) for number in range(1, count + 1))
    return replace(snapshot, nodes=snapshot.nodes + twins)


def without_nodes(snapshot: Snapshot, node_ids: Collection[str], submitted_at: Mapping[str, float]) -> Snapshot:
    """Take nodes away, and with them all that holds something there, as if they were lost.

    Of that, the jobs that `submitted_at` names (by id) wait again, as old as it says.
    """
    gone = [job for job in snapshot.running if any(one.node_id in node_ids for one in job.holdings)]
    freed: dict[str, list[Holding]] = {}
    for job in gone:
        for one in job.holdings:
            freed.setdefault(one.node_id, []).append(one)
    again = tuple(PendingJob(job.id, submitted_at[job.id], job.job_class) for job in gone if job.id in submitted_at)
    names = {job.id for job in gone}
    return replace(
        snapshot,
        nodes=tuple(_freed(node, freed.get(node.id, ())) for node in snapshot.nodes if node.id not in node_ids),
        pending=snapshot.pending + again,
        running=tuple(job for job in snapshot.running if job.id not in names),
        reservations=tuple(_elsewhere(one, node_ids) for one in snapshot.reservations),
    )


def held_on(snapshot: Snapshot, node_ids: Collection[str]) -> list[RunningJob]:
    """Return who holds something on these nodes."""
    return [job for job in snapshot.running if any(one.node_id in node_ids for one in job.holdings)]


def _twin(model: Node, number: int) -> Node:
    devices = range(len(model.gpu_milli_free))
    return replace(
        model,
        id=f"{model.id}+{number}",
        name=f"{model.name}+{number}",
        ready=True,
        cpu_milli_free=model.cpu_milli,
        memory_bytes_free=model.memory_bytes,
        gpu_milli_free=tuple(0 if device in model.partitioned else WHOLE for device in devices),
        caches=frozenset(),
    )


def _freed(node: Node, holdings: Iterable[Holding]) -> Node:
    gpus = list(node.gpu_milli_free)
    cpu_milli, memory_bytes = node.cpu_milli_free, node.memory_bytes_free
    for one in holdings:
        cpu_milli += one.cpu_milli
        memory_bytes += one.memory_bytes
        for device, milli in one.gpus:
            gpus[device] += milli
    return replace(node, cpu_milli_free=cpu_milli, memory_bytes_free=memory_bytes, gpu_milli_free=tuple(gpus))


def _elsewhere(reservation: Reservation, node_ids: Collection[str]) -> Reservation:
    return replace(reservation, holdings=tuple(one for one in reservation.holdings if one.node_id not in node_ids))
