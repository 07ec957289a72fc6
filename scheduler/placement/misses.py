"""What keeps a replica off every node: how many nodes for which cause, and how near the nearest ones come."""

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass

from scheduler.ledger import Ledger
from scheduler.placement.fields import Group
from scheduler.placement.filters import Cause
from scheduler.placement.views import View
from scheduler.snapshot import WHOLE, JobClass, Request


@dataclass(frozen=True, slots=True)
class Misses:
    """Every ready node under the first thing that keeps a replica of one role away from it.

    `kept_away` are causes that no amount of room would cure, commonest first: what labels, taints, pools say, what
    other jobs want. Then come those with too few devices; `most_gpu_milli` is the most that any has of what is asked
    (whole devices, or in one piece for a share). Of the rest `cpus_only` and `memory_only` lack nothing else, by at
    least so much; of those that lack `both`, (CPUs, memory) is the nearest. `fits` have room.
    """

    ready: int
    kept_away: tuple[tuple[Cause, int], ...] = ()
    devices: int = 0
    most_gpu_milli: int = 0
    cpus_only: int = 0
    cpu_milli_short: int = 0
    memory_only: int = 0
    memory_bytes_short: int = 0
    both: int = 0
    both_short: tuple[int, int] = (0, 0)
    fits: int = 0

    @property
    def lacking(self) -> bool:
        """Whether any node lacks no more than CPUs or memory."""
        return bool(self.cpus_only or self.memory_only or self.both)


def count_misses(ledger: Ledger, job_class: JobClass, role: int = 0, within: frozenset[int] | None = None) -> Misses:
    """Count, for one replica of a role, every ready node under what it lacks; those not `within` reach are kept away.

    Costs a step for each amount of free CPUs in each group, and a node kept away.
    """
    view = ledger.capacity.views(job_class, within)[role]
    view.catch_up()
    request = view.request
    near = _Near(request)
    devices = most_gpu_milli = 0
    for group in view.field.groups():
        most_gpu_milli = max(most_gpu_milli, _most_gpu_milli(group, request))
        if view.demand.asks and not group.state.slots(view.demand):
            devices += group.size
        else:
            near.count(group)
    return Misses(
        ready=ledger.ready,
        kept_away=_kept_away(ledger, job_class, view, within),
        devices=devices,
        most_gpu_milli=most_gpu_milli,
        cpus_only=near.cpus_only,
        cpu_milli_short=min(near.cpus_lacking, default=0),
        memory_only=near.memory_only,
        memory_bytes_short=min(near.memory_lacking, default=0),
        both=near.both,
        both_short=min(near.both_lacking, default=(0, 0)),
        fits=near.fits,
    )


class _Near:
    """The nodes whose devices suffice, by what else they lack; the least of each that any node of a tier lacks."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.cpus_only = self.memory_only = self.both = self.fits = 0
        self.cpus_lacking: list[int] = []
        self.memory_lacking: list[int] = []
        self.both_lacking: list[tuple[int, int]] = []

    def count(self, group: Group) -> None:
        """Count the nodes of a group."""
        for cpu_milli, tier in zip(group.cpus, group.tiers, strict=True):
            short = bisect_left(tier, (self._request.memory_bytes,))
            memory_lacking = self._request.memory_bytes - tier[short - 1][0] if short else 0
            cpus_lacking = self._request.cpu_milli - cpu_milli
            if cpus_lacking <= 0:
                self.fits += len(tier) - short
                self.memory_only += short
                self.memory_lacking += [memory_lacking] * bool(short)
            else:
                self.cpus_only += len(tier) - short
                self.cpus_lacking += [cpus_lacking] * (len(tier) > short)
                self.both += short
                self.both_lacking += [(cpus_lacking, memory_lacking)] * bool(short)


def _most_gpu_milli(group: Group, request: Request) -> int:
    state = group.state
    if not request.gpu_milli or (request.gpu_models and state.layout.model not in request.gpu_models):
        return 0
    return state.whole * WHOLE if request.gpu_milli >= WHOLE else max(state.gpus, default=0)


def _kept_away(
    ledger: Ledger, job_class: JobClass, view: View, within: frozenset[int] | None
) -> tuple[tuple[Cause, int], ...]:
    constraints, field = job_class.constraints, view.field
    if field.size == ledger.ready:
        return ()
    verdicts = ledger.capacity.verdicts(constraints, by_gpu=view.demand.asks)
    causes: Counter[Cause] = Counter()
    for number, room in enumerate(ledger.rooms):
        if room.ready and not field.allows(number):
            cause = verdicts[number][0]
            if cause is None and within is not None and number not in within:
                cause = "being in another pool"
            elif cause is None:
                crowded = room.tenants if constraints.exclusive else room.exclusive
                cause = _CROWDED[constraints.exclusive] if crowded else "what it has to be near to or apart from"
            causes[cause] += 1
    return tuple(sorted(causes.items(), key=lambda item: (-item[1], item[0])))


_CROWDED = {True: "jobs that run there, where it wants to be alone", False: "a job that is there alone"}
