"""Why a job waits, in words, with the nearest miss. One text serves a whole class, so none names a job's own place."""

from collections import Counter
from collections.abc import Sequence

from scheduler.ledger import Ledger
from scheduler.placement.rooms import Room
from scheduler.plan import Reason
from scheduler.snapshot import WHOLE, JobClass, Node, Request, Role

Because = tuple[Reason, str]

PLAN_FULL = (Reason.BEHIND_HEAD, "this plan starts no more jobs; the next one comes to it")


class Shapes:
    """The kinds of machine in the cluster, as they are when empty: what could ever run, whatever runs now."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        kinds = Counter(
            (node.cpu_milli, node.memory_bytes, len(node.gpu_milli_free), node.gpu_model, node.ready) for node in nodes
        )
        self._kinds = [
            (Room(cpu_milli, memory_bytes, [WHOLE] * devices, model), ready, count)
            for (cpu_milli, memory_bytes, devices, model, ready), count in sorted(kinds.items())
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


def why_no_room(ledger: Ledger, job_class: JobClass, placed: int) -> Because:
    """Say what is missing now for a job of this class, of whose replicas `placed` would find room."""
    if placed:
        return Reason.NO_ROOM, f"room for {placed} of {sum(role.least for role in job_class.roles)} replicas"
    request = job_class.roles[0].request
    able = _nodes_with_gpus(ledger, request)
    message = _rest_short(ledger, request, able) if able else _gpus_short(ledger, request)
    return Reason.NO_ROOM, message


def why_delayed(job_id: str, queue_name: str) -> Because:
    """Say that a job fits, but would delay one that is owed the room."""
    return Reason.BEHIND_HEAD, f"would delay job {job_id}, the head of queue {queue_name!r}"


def why_booked(reservation_id: str) -> Because:
    """Say that a job fits, but might still run when the room is booked."""
    return Reason.RESERVED, f"might run into reservation {reservation_id}"


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


def _nodes_with_gpus(ledger: Ledger, request: Request) -> list[int]:
    """Find the ready nodes where GPUs are not what is missing; for a job without GPUs, all."""
    capacity = ledger.capacity
    models = capacity.models(request.gpu_models if request.gpu_milli else ())
    fewest = -(-request.gpu_milli // WHOLE)
    numbers = {
        number
        for model in models
        for whole in range(fewest, capacity.widest() + 1)
        for _, number in capacity.bucket(model, whole)
    }
    if 0 < request.gpu_milli < WHOLE:
        numbers.update(number for model in models for _, number, _ in capacity.holes(model, request.gpu_milli))
    return sorted(numbers)


def _gpus_short(ledger: Ledger, request: Request) -> str:
    capacity, kind = ledger.capacity, _gpu_kind(request)
    models = capacity.models(request.gpu_models)
    if request.gpu_milli < WHOLE:
        largest = max((milli for model in models for milli, _, _ in capacity.holes(model, 1)), default=0)
        return f"needs {request.gpu_milli / WHOLE:g} of a {kind}; the largest free share is {largest / WHOLE:g}"
    counts = range(capacity.widest() + 1)
    most = max(whole for whole in counts if any(capacity.bucket(model, whole) for model in models))
    wanted = _count(request.gpu_milli // WHOLE, kind)
    return f"needs {wanted} on one node; the best node has {most} free"


def _rest_short(ledger: Ledger, request: Request, able: list[int]) -> str:
    """Compare what `able` nodes lack of CPUs and memory; the least lack, as a part of the wish, is the nearest miss."""
    lacks = [
        (request.cpu_milli - room.cpu_milli, request.memory_bytes - room.memory_bytes)
        for room in map(ledger.rooms.__getitem__, able)
    ]
    cpus_only = [cpu_milli for cpu_milli, memory_bytes in lacks if memory_bytes <= 0]
    memory_only = [memory_bytes for cpu_milli, memory_bytes in lacks if cpu_milli <= 0]
    ready = sum(node.ready for node in ledger.nodes)
    if memory_only and not (cpus_only and min(cpus_only) * request.memory_bytes < min(memory_only) * request.cpu_milli):
        return f"{_of_nodes(len(memory_only), ready)} but for memory: {_bytes(min(memory_only))} short"
    if cpus_only:
        return f"{_of_nodes(len(cpus_only), ready)} but for CPUs: {_cpus(min(cpus_only))} short"
    cpu_milli, memory_bytes = min(lacks)
    return f"no node has both CPUs and memory free: the nearest is {_cpus(cpu_milli)} and {_bytes(memory_bytes)} short"


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
