"""Where a replica leaves least over: fewest whole devices, then fewest CPUs, then the first node by name."""

from bisect import bisect_left
from collections.abc import Callable, Iterator

from scheduler.capacity import Bucket
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant
from scheduler.snapshot import WHOLE, Request

Permits = Callable[[Grant], bool]
"""Whether a start there is allowed besides having the room, such as by a reservation."""


def find_room(ledger: Ledger, request: Request, permits: Permits) -> Grant | None:
    """Choose node and devices for one replica, or None where no ready node has room that `permits` allows."""
    if 0 < request.gpu_milli < WHOLE:
        grant = _find_hole(ledger, request, permits)
        if grant is not None:
            return grant
    for tier in _tiers(ledger, request):
        grants = [grant for bucket in tier if (grant := _first(ledger, bucket, request, permits)) is not None]
        if grants:
            return min(grants, key=lambda grant: (ledger.rooms[grant.number].cpu_milli, grant.number))
    return None


def _find_hole(ledger: Ledger, request: Request, permits: Permits) -> Grant | None:
    """Find the tightest partly used device, so that whole ones stay whole."""
    found = []
    for model in ledger.capacity.models(request.gpu_models):
        for milli, number, device in ledger.capacity.holes(model, request.gpu_milli):
            room = ledger.rooms[number]
            if room.cpu_milli >= request.cpu_milli and room.memory_bytes >= request.memory_bytes:
                grant = Grant(number, request.cpu_milli, request.memory_bytes, ((device, request.gpu_milli),))
                if permits(grant):
                    found.append(((milli, number, device), grant))
                    break
    return min(found)[1] if found else None


def _tiers(ledger: Ledger, request: Request) -> Iterator[list[Bucket]]:
    """Yield groups of equally good buckets, those that leave least over first."""
    capacity = ledger.capacity
    models = capacity.models(request.gpu_models if request.gpu_milli else ())
    if not request.gpu_milli:
        # Nodes without devices first: a CPU job on a GPU node strands what it was bought for.
        yield [capacity.bucket("", 0)]
    fewest = -(-request.gpu_milli // WHOLE)
    for whole in range(fewest, capacity.widest() + 1):
        yield [bucket for model in models if (bucket := capacity.bucket(model, whole))]


def _first(ledger: Ledger, bucket: Bucket, request: Request, permits: Permits) -> Grant | None:
    for position in range(bisect_left(bucket, (request.cpu_milli, -1)), len(bucket)):
        number = bucket[position][1]
        room = ledger.rooms[number]
        if room.memory_bytes >= request.memory_bytes:
            share = 0 < request.gpu_milli < WHOLE
            # A share that comes here found no hole, so it opens a whole device.
            devices = ((room.gpus.index(WHOLE), request.gpu_milli),) if share else room.devices_for(request.gpu_milli)
            grant = Grant(number, request.cpu_milli, request.memory_bytes, devices)
            if permits(grant):
                return grant
    return None
