"""What could ever start, whatever runs now: the cluster as it is when it is empty, and who may go where in it."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import NamedTuple

from scheduler.ledger import Ledger
from scheduler.placement.filters import Cause, holds
from scheduler.placement.layouts import Layout, layout_of
from scheduler.placement.rooms import Room
from scheduler.placement.topology import NODE
from scheduler.plan import Because, Reason
from scheduler.snapshot import WHOLE, JobClass, Node, Request, Role
from scheduler.words import and_away, count, cpus, gpu_kind, size

_MOST_CAUSES = 3
_MOST_VALUES = 5
_MOST_SETS = 1000
_ELSEWHERE = "being in pools that its queue does not reach"


class Kind(NamedTuple):
    """A machine as it is when empty, and whether it is ready."""

    room: Room
    ready: bool


class Shapes:
    """How many there are of each kind of machine among some nodes: what could ever run there."""

    def __init__(self, kinds: Iterable[tuple[Kind, int]]) -> None:
        self._kinds = [(room, ready, many) for (room, ready), many in kinds]
        self.size = sum(many for _, _, many in self._kinds)

    def lacking(self, job_class: JobClass) -> Role | None:
        """Return the first role that could not have its fewest replicas if all were empty and ready."""
        return next((role for role in job_class.roles if self.slots(role) < role.least), None)

    def away(self, job_class: JobClass) -> int:
        """Count the nodes that could hold a replica that lacks ready ones; 0 where enough are ready."""
        for role in job_class.roles:
            if self.slots(role, [True]) < role.least:
                return sum(many for room, ready, many in self._kinds if not ready and room.slots(role.request, 1))
        return 0

    def slots(self, role: Role, ready: Collection[bool] = (True, False)) -> int:
        """Count the replicas of a role that fit side by side on empty nodes, each node counted up to the fewest."""
        request, most = role.request, role.least
        return sum(room.slots(request, most) * many for room, is_ready, many in self._kinds if is_ready in ready)

    def misfit(self, request: Request) -> str:
        """Say why no node here could hold one replica, with how near the nearest comes."""
        rooms = [room for room, _, _ in self._kinds]
        if request.mig_profile and not any(
            room.slots(Request(0, 0, mig_profile=request.mig_profile)) for room in rooms
        ):
            known = ", ".join(sorted({name for room in rooms for name in _profiles(room.layout)}))
            return f"none can be cut into a slice {request.mig_profile}{f'; there are {known}' if known else ''}"
        if request.gpu_milli or request.mig_profile:
            rooms = [
                room for room in rooms if room.gpus and (not request.gpu_models or room.model in request.gpu_models)
            ]
            kind = gpu_kind(request)
            if not rooms:
                return f"none has any {kind}"
            most = max(room.whole for room in rooms)
            if most * WHOLE < request.gpu_milli:
                return f"asks for {count(request.gpu_milli // WHOLE, kind)} a replica, the largest node has {most}"
        cpu_milli = max(room.cpu_milli for room in rooms)
        if cpu_milli < request.cpu_milli:
            return f"asks for {cpus(request.cpu_milli)} a replica, the largest node has {cpus(cpu_milli)}"
        memory_bytes = max(room.memory_bytes for room in rooms)
        if memory_bytes < request.memory_bytes:
            return f"asks for {size(request.memory_bytes)} a replica, the largest node has {size(memory_bytes)}"
        return "no single node has all that a replica asks for"


class Prospects:
    """Tells who could never start on the nodes of a ledger. Nothing here changes with what runs, so it is asked once a class."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._kinds, self._kind_of = _sort_out(ledger.nodes)
        self._all = self._shapes(range(len(ledger.nodes)))
        self._among: dict[frozenset[int], Shapes] = {}

    def why_never(self, job_class: JobClass, within: frozenset[int] | None = None) -> Because | None:
        """Say why no change of load could let a job of this class start on nodes `within` its reach, None where one could.

        From the widest to the narrowest: no such machine at all, none that it may have, none of those that is large
        enough, no domain that is; and if all there are, none of them ready.
        """
        if not self._all.size:
            return Reason.NO_NODES, "the cluster has no node"
        lacking = self._all.lacking(job_class)
        if lacking is not None:
            return Reason.NEVER_FITS, _shortage(self._all, lacking, "no node of the cluster", "the whole cluster has")
        allowed = self._ledger.capacity.allowed(job_class.constraints, within)
        shapes = self._all if allowed is None else self._shapes_of(allowed)
        if not shapes.size:
            return Reason.NEVER_FITS, f"no node may have it; kept away: {self._kept_away(job_class, within)}"
        lacking = shapes.lacking(job_class)
        if lacking is not None:
            those = (
                "the one node that may have it has"
                if shapes.size == 1
                else f"{shapes.size} nodes that may have it have"
            )
            why = _shortage(shapes, lacking, f"no node of {shapes.size} that may have it", those)
            return Reason.NEVER_FITS, f"{why}; kept away: {self._kept_away(job_class, within)}"
        return self._why_in_no_domain(job_class, allowed) or _why_away(shapes, job_class, self._ledger)

    def _why_in_no_domain(self, job_class: JobClass, allowed: frozenset[int] | None) -> Because | None:
        """Say that what must lie in one domain is too much for each."""
        constraints = job_class.constraints
        level = constraints.within
        if not constraints.within_required or sum(role.least for role in job_class.roles) == 1:
            return None
        domains = [self._shapes(numbers) for numbers in self._domains(level, allowed)]
        open_to_it = [shapes for shapes in domains if shapes.lacking(job_class) is None]
        if open_to_it:
            away = [_why_away(shapes, job_class, self._ledger) for shapes in open_to_it]
            return None if None in away else away[0]
        role = max(job_class.roles, key=lambda role: role.least - max(shapes.slots(role) for shapes in domains))
        most = max(shapes.slots(role) for shapes in domains)
        return Reason.NEVER_FITS, (
            f"asks for {count(role.least, 'replica')} in one {level}; the largest has room for {most} if empty"
        )

    def _domains(self, level: str, allowed: frozenset[int] | None) -> Iterator[Iterable[int]]:
        topology = self._ledger.capacity.topology
        numbers = range(topology.size) if allowed is None else sorted(allowed)
        domains: dict[int, list[int]] = {}
        for number in numbers:
            domains.setdefault(number if level == NODE else topology.domain(level, number), []).append(number)
        yield from domains.values()

    def _shapes_of(self, numbers: frozenset[int]) -> Shapes:
        shapes = self._among.get(numbers)
        if shapes is None:
            if len(self._among) >= _MOST_SETS:
                self._among.clear()
            shapes = self._among[numbers] = self._shapes(numbers)
        return shapes

    def _shapes(self, numbers: Iterable[int]) -> Shapes:
        counts = Counter(map(self._kind_of.__getitem__, numbers))
        return Shapes((self._kinds[kind], counts[kind]) for kind in sorted(counts))

    def _kept_away(self, job_class: JobClass, within: frozenset[int] | None) -> str:
        """Count the nodes that are out, by cause, the commonest first; of a label what values there are."""
        causes: Counter[Cause] = Counter()
        for number, (cause, _) in enumerate(self._ledger.capacity.verdicts(job_class.constraints)):
            if cause is not None:
                causes[cause] += 1
            elif within is not None and number not in within:
                causes[_ELSEWHERE] += 1
        ranked = sorted(causes.items(), key=lambda item: (-item[1], item[0]))
        away = ", ".join(f"{count(nodes, 'node')} by {cause}" for cause, nodes in ranked[:_MOST_CAUSES])
        more = f", {len(ranked) - _MOST_CAUSES} more causes" if len(ranked) > _MOST_CAUSES else ""
        return f"{away}{more}{''.join(self._labels(job_class))}"

    def _labels(self, job_class: JobClass) -> Iterator[str]:
        """Yield, for each label that is asked for and that no node has so, how it is instead."""
        terrain = self._ledger.capacity.terrain
        for term in job_class.constraints.selector:
            column = terrain.column(term.key)
            if not any(holds(term, value) for value in column):
                values = sorted({value for value in column if value is not None})
                shown = ", ".join(values[:_MOST_VALUES]) + (", ..." if len(values) > _MOST_VALUES else "")
                yield f"; {term.key} is {shown}" if values else f"; no node has a label {term.key}"


def _sort_out(nodes: Sequence[Node]) -> tuple[list[Kind], list[int]]:
    """Return the kinds of machine that there are, and of each node the number of its kind."""
    numbers: dict[tuple[int, int, Layout, bool], int] = {}
    kind_of = [
        numbers.setdefault((node.cpu_milli, node.memory_bytes, layout_of(node), node.ready), len(numbers))
        for node in nodes
    ]
    kinds = [
        Kind(Room.unused(cpu_milli, memory_bytes, layout), ready) for cpu_milli, memory_bytes, layout, ready in numbers
    ]
    return kinds, kind_of


def _shortage(shapes: Shapes, role: Role, none: str, they: str) -> str:
    slots = shapes.slots(role)
    if slots:
        return f"asks for {role.least} replicas; {they} room for {slots} if empty"
    return f"{none} could ever hold this: {shapes.misfit(role.request)}"


def _why_away(shapes: Shapes, job_class: JobClass, ledger: Ledger) -> Because | None:
    away = shapes.away(job_class)
    if not away:
        return None
    waits_for = f"{count(away, 'node')} that could hold it {'is not' if away == 1 else 'are not'} ready"
    return Reason.NO_NODES, waits_for + and_away(ledger.away)


def _profiles(layout: Layout) -> Iterable[str]:
    return layout.geometry.masks if layout.geometry and layout.partitioned else ()
