"""Why a job waits, in words, with the nearest miss. One text serves a whole class, so none names a job's own place."""

from collections import Counter
from collections.abc import Sequence

from scheduler.ledger import Ledger
from scheduler.placement.layouts import layout_of
from scheduler.placement.misses import Misses, count_misses
from scheduler.placement.rooms import Room
from scheduler.plan import Reason
from scheduler.snapshot import WHOLE, JobClass, Node, PendingJob, Request, Role

Because = tuple[Reason, str]

_MOST_CAUSES = 3

PLAN_FULL = (Reason.BEHIND_HEAD, "this plan starts no more jobs; the next one comes to it")


class Shapes:
    """The kinds of machine in the cluster, as they are when empty: what could ever run, whatever runs now."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        kinds = Counter((node.cpu_milli, node.memory_bytes, layout_of(node), node.ready) for node in nodes)
        self._kinds = [
            (Room.unused(cpu_milli, memory_bytes, layout), ready, count)
            for (cpu_milli, memory_bytes, layout, ready), count in kinds.items()
        ]

    def why_never(self, job_class: JobClass) -> Because | None:
        """Say why no change of load could let a job of this class start, None where one could."""
        if not self._kinds:
            return Reason.NO_NODES, "the cluster has no node"
        return next((why for role in job_class.roles if (why := self._why_role_never(role))), None)

    def _why_role_never(self, role: Role) -> Because | None:
        if self._slots(role, [True]) >= role.least:
            return None
        if self._slots(role, [True, False]) < role.least:
            return Reason.NEVER_FITS, self._shortage(role)
        able = sum(count for room, ready, count in self._kinds if not ready and room.slots(role.request, 1))
        verb = "is not" if able == 1 else "are not"
        return Reason.NO_NODES, f"{_count(able, 'node')} that could hold it {verb} ready"

    def _slots(self, role: Role, ready: Sequence[bool]) -> int:
        request, most = role.request, role.least
        return sum(room.slots(request, most) * count for room, is_ready, count in self._kinds if is_ready in ready)

    def _shortage(self, role: Role) -> str:
        slots = self._slots(role, [True, False])
        if slots:
            return f"asks for {role.least} replicas; the whole cluster, if empty, has room for {slots}"
        return f"no node of the cluster could ever hold this: {self._misfit(role.request)}"

    def _misfit(self, request: Request) -> str:
        rooms = [room for room, _, _ in self._kinds]
        if request.mig_profile and not any(
            room.slots(Request(0, 0, mig_profile=request.mig_profile)) for room in rooms
        ):
            return f"none can be cut into a slice {request.mig_profile}"
        if request.gpu_milli:
            rooms = [
                room for room in rooms if room.gpus and (not request.gpu_models or room.model in request.gpu_models)
            ]
            kind = _gpu_kind(request)
            if not rooms:
                return f"none has a {kind}"
            most = max(room.whole for room in rooms)
            if most * WHOLE < request.gpu_milli:
                return f"asks for {_count(request.gpu_milli // WHOLE, kind)} a replica, the largest node has {most}"
        cpu_milli = max(room.cpu_milli for room in rooms)
        if cpu_milli < request.cpu_milli:
            return f"asks for {_cpus(request.cpu_milli)} a replica, the largest node has {_cpus(cpu_milli)}"
        memory_bytes = max(room.memory_bytes for room in rooms)
        if memory_bytes < request.memory_bytes:
            return f"asks for {_bytes(request.memory_bytes)} a replica, the largest node has {_bytes(memory_bytes)}"
        return "no single node has all that a replica asks for"


def why_nowhere(ledger: Ledger, job_class: JobClass) -> Because | None:
    """Say why no node, whatever runs, may have a job of this class, None where one may."""
    if ledger.capacity.allowed(job_class.constraints) != frozenset():
        return None
    causes = Counter(cause for cause, _ in ledger.capacity.verdicts(job_class.constraints) if cause is not None)
    ranked = sorted(causes.items(), key=lambda item: (-item[1], item[0]))
    away = ", ".join(f"{_count(nodes, 'node')} by {cause}" for cause, nodes in ranked[:_MOST_CAUSES])
    more = f", {len(ranked) - _MOST_CAUSES} more causes" if len(ranked) > _MOST_CAUSES else ""
    return Reason.NEVER_FITS, f"no node may have it; kept away: {away}{more}"


def why_no_room(ledger: Ledger, job_class: JobClass, placed: int, within: frozenset[int] | None = None) -> Because:
    """Say what is missing now for a job of this class, of whose replicas `placed` would find room `within` its reach."""
    if placed:
        return Reason.NO_ROOM, f"room for {placed} of {sum(role.least for role in job_class.roles)} replicas"
    misses = count_misses(ledger, job_class, within=within)
    request = job_class.roles[0].request
    message = _rest_short(misses, request) if misses.lacking else _gpus_short(misses, request)
    return Reason.NO_ROOM, _and_kept_away(misses, message)


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
    why = f"{_count(told, 'job')} {verb} told to end" if told else "what they leave is kept"
    return Reason.ROOM_COMING, f"room is being made{whose}: {why}"


def why_behind(position: int) -> Because:
    """Say that jobs of this queue start strictly in order; `position` is from 1."""
    return Reason.BEHIND_HEAD, f"waits behind {_count(position - 1, 'job')} of its queue"


def why_paused(queue_name: str) -> Because:
    """Say that the queue starts nothing."""
    return Reason.QUEUE_PAUSED, f"queue {queue_name!r} is paused"


def _gpus_short(misses: Misses, request: Request) -> str:
    kind = _gpu_kind(request)
    if not misses.devices:
        return ""
    if request.mig_profile:
        return f"needs a slice {request.mig_profile} of a {kind}; none is free"
    if request.gpu_milli < WHOLE:
        largest = misses.most_gpu_milli
        return f"needs {request.gpu_milli / WHOLE:g} of a {kind}; the largest free share is {largest / WHOLE:g}"
    wanted = _count(request.gpu_milli // WHOLE, kind)
    return f"needs {wanted} on one node; the best node has {misses.most_gpu_milli // WHOLE} free"


def _rest_short(misses: Misses, request: Request) -> str:
    """Compare what nodes lack of CPUs and memory; the least lack, as a part of the wish, is the nearest miss."""
    cpu_milli, memory_bytes = misses.cpu_milli_short, misses.memory_bytes_short
    nearer = misses.cpus_only and cpu_milli * request.memory_bytes < memory_bytes * request.cpu_milli
    if misses.memory_only and not nearer:
        return f"{_of_nodes(misses.memory_only, misses.ready)} but for memory: {_bytes(memory_bytes)} short"
    if misses.cpus_only:
        return f"{_of_nodes(misses.cpus_only, misses.ready)} but for CPUs: {_cpus(cpu_milli)} short"
    cpu_milli, memory_bytes = misses.both_short
    return f"no node has both CPUs and memory free: the nearest is {_cpus(cpu_milli)} and {_bytes(memory_bytes)} short"


def _and_kept_away(misses: Misses, message: str) -> str:
    """Add how many nodes room alone would not help, for the commonest cause."""
    if not misses.kept_away:
        return message or "no node is ready"
    cause, nodes = misses.kept_away[0]
    verb = "is" if nodes == 1 else "are"
    away = f"{nodes} of {_count(misses.ready, 'node')} {verb} kept away by {cause}"
    return f"{away}; {message}" if message else away


def _of_nodes(fitting: int, ready: int) -> str:
    return f"{fitting} of {_count(ready, 'node')} {'fits' if fitting == 1 else 'fit'}"


def _gpu_kind(request: Request) -> str:
    return f"{' or '.join(request.gpu_models)} GPU".lstrip()


def _count(amount: int, noun: str) -> str:
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def _cpus(milli: int) -> str:
    return "1 CPU" if milli == WHOLE else f"{milli / WHOLE:g} CPUs"


def _bytes(amount: int) -> str:
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if amount >= size:
            return f"{amount / size:.1f} {unit}"
    return f"{amount} B"
