"""Why a job waits, in words, with the nearest miss. One text serves a whole class, so none names a job's own place."""

from scheduler.ledger import Ledger
from scheduler.placement.misses import Misses, count_misses
from scheduler.plan import Because, Reason
from scheduler.snapshot import WHOLE, JobClass, PendingJob, Request
from scheduler.words import and_away, count, cpus, gpu_kind, size

PLAN_FULL = (Reason.BEHIND_HEAD, "this plan starts no more jobs; the next one comes to it")


def why_no_room(ledger: Ledger, job_class: JobClass, placed: int, within: frozenset[int] | None = None) -> Because:
    """Say what is missing now for a job of this class, of whose replicas `placed` would find room `within` its reach."""
    if placed:
        return Reason.NO_ROOM, f"room for {placed} of {sum(role.least for role in job_class.roles)} replicas"
    misses = count_misses(ledger, job_class, within=within)
    request = job_class.roles[0].request
    message = _rest_short(misses, request) if misses.lacking else _gpus_short(misses, request)
    return Reason.NO_ROOM, _and_kept_away(misses, message) + and_away(ledger.away)


def why_delayed(owner: PendingJob, queue_name: str, job_class: JobClass) -> Because:
    """Say that a job fits, but would delay one that is owed the room; of another project's no more than that it is."""
    if owner.job_class.project_id != job_class.project_id:
        return Reason.BEHIND_HEAD, "would delay a job of another project, the head of its queue"
    return Reason.BEHIND_HEAD, f"would delay job {owner.id}, the head of queue {queue_name!r}"


def why_booked(owner: PendingJob) -> Because:
    """Say that a job fits, but might still run when the room is booked: by another project, or for maintenance."""
    if owner.job_class.project_id:
        return Reason.RESERVED, "might run into a reservation of another project"
    return Reason.RESERVED, f"might run into maintenance {owner.id}"


def why_coming(told: int, jobs: int) -> Because:
    """Say that room is being made for the first `jobs` of a class, and that `told` others there were told to end."""
    whose = "" if jobs == 1 else f" for the first {jobs}"
    verb = "was" if told == 1 else "were"
    why = f"{count(told, 'job')} {verb} told to end" if told else "what they leave is kept"
    return Reason.ROOM_COMING, f"room is being made{whose}: {why}"


def why_behind(position: int) -> Because:
    """Say that jobs of this queue start strictly in order; `position` is from 1."""
    return Reason.BEHIND_HEAD, f"waits behind {count(position - 1, 'job')} of its queue"


def why_paused(queue_name: str) -> Because:
    """Say that the queue starts nothing."""
    return Reason.QUEUE_PAUSED, f"queue {queue_name!r} is paused"


def _gpus_short(misses: Misses, request: Request) -> str:
    kind = gpu_kind(request)
    if not misses.devices:
        return ""
    if request.mig_profile:
        return f"needs a slice {request.mig_profile} of one {kind}; none is free"
    if request.gpu_milli < WHOLE:
        largest = misses.most_gpu_milli
        return f"needs {request.gpu_milli / WHOLE:g} of one {kind}; the largest free share is {largest / WHOLE:g}"
    wanted = count(request.gpu_milli // WHOLE, kind)
    return f"needs {wanted} on one node; the best node has {misses.most_gpu_milli // WHOLE} free"


def _rest_short(misses: Misses, request: Request) -> str:
    """Compare what nodes lack of CPUs and memory; the least lack, as a part of the wish, is the nearest miss."""
    cpu_milli, memory_bytes = misses.cpu_milli_short, misses.memory_bytes_short
    nearer = misses.cpus_only and cpu_milli * request.memory_bytes < memory_bytes * request.cpu_milli
    if misses.memory_only and not nearer:
        return f"{_of_nodes(misses.memory_only, misses.ready)} but for memory: {size(memory_bytes)} short"
    if misses.cpus_only:
        return f"{_of_nodes(misses.cpus_only, misses.ready)} but for CPUs: {cpus(cpu_milli)} short"
    cpu_milli, memory_bytes = misses.both_short
    return f"no node has both CPUs and memory free: the nearest is {cpus(cpu_milli)} and {size(memory_bytes)} short"


def _and_kept_away(misses: Misses, message: str) -> str:
    """Add how many nodes room alone would not help, for the commonest cause."""
    if not misses.kept_away:
        return message or "no node is ready"
    cause, nodes = misses.kept_away[0]
    verb = "is" if nodes == 1 else "are"
    away = f"{nodes} of {count(misses.ready, 'node')} {verb} kept away by {cause}"
    return f"{away}; {message}" if message else away


def _of_nodes(fitting: int, ready: int) -> str:
    return f"{fitting} of {count(ready, 'node')} {'fits' if fitting == 1 else 'fit'}"
