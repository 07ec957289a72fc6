"""The capacity index: for every class of jobs the nodes that it may use, grouped so that a placement looks at few.

What is asked for alike is kept once: jobs whose constraints come to the same nodes share a field, those with the same
request a view of it. It follows the rooms of the ledger, which says `note` of each that changes.
"""

from collections.abc import Container, Sequence
from dataclasses import replace
from typing import NamedTuple

from scheduler.placement.affinity import Presence, Rule, Watch
from scheduler.placement.fields import Cluster, Field
from scheduler.placement.filters import Terrain, Verdict, judge
from scheduler.placement.fragmentation import Fragmentation
from scheduler.placement.rooms import Grant, Room
from scheduler.placement.scoring import Gauge, gauge_of
from scheduler.placement.states import Demand, States
from scheduler.placement.tallies import Tally
from scheduler.placement.topology import Topology
from scheduler.placement.views import Ranking, View
from scheduler.snapshot import Constraints, JobClass, Node, Pool, Request, Shape, Strategy

_MOST_CHANGES = 100_000
"""After so many the index is built anew: what was kept of states that are gone goes with it."""


_MOST_CLASSES = 20_000
"""So many are known by identity."""


class Setting(NamedTuple):
    """What of a snapshot places are judged by, beside its nodes."""

    levels: tuple[str, ...] = ()
    pools: tuple[Pool, ...] = ()
    shapes: tuple[Shape, ...] = ()


NO_SETTING = Setting()


class Capacity:
    """Finds places. Kept from plan to plan; what it answers depends on how things stand, not on how they came to."""

    def __init__(self, nodes: Sequence[Node], rooms: Sequence[Room], setting: Setting = NO_SETTING) -> None:
        self.terrain = Terrain(nodes, setting.levels, setting.pools)
        self.topology = Topology(nodes, setting.levels)
        self.presence = Presence(self.topology)
        self.fragmentation = Fragmentation(setting.shapes)
        self._cluster = Cluster(
            rooms,
            States(_slice_weights(setting.shapes)),
            self.topology,
            self.fragmentation.thresholds,
            max((max(node.cpu_milli, node.cpu_milli_free) for node in nodes), default=0),
            [],
        )
        self._gauges: dict[Strategy, Gauge] = {}
        self._judged: dict[tuple[int, bool], tuple[Sequence[Verdict], Constraints]] = {}
        self._verdicts: dict[tuple[Constraints, bool], list[Verdict]] = {}
        self._alike: dict[tuple[int | None, ...], int] = {}
        self._points: dict[tuple[int, object], tuple[int, tuple[int | None, ...], object, object]] = {}
        self._fields: dict[tuple[int, tuple[Rule, ...], bool], Field] = {}
        self._views: dict[int, tuple[JobClass, Container[int] | None, int, tuple[View, ...]]] = {}
        self._allowed: dict[tuple[int, int], tuple[frozenset[int] | None, object, object]] = {}
        self._shared: dict[tuple[Field, Request, Strategy], View] = {}
        self._rankings: dict[tuple[Field, Demand, Strategy], Ranking] = {}
        self._tallies: dict[View, Tally] = {}

    def note(self, number: int) -> None:
        """Room `number` has changed."""
        self._cluster.changed.append(number)

    def came(self, grant: Grant, replicas: int) -> bool:
        """So many replicas of what a grant is for came to its node (or left it: less than 0).

        Tell whether others may run there because of it: those that must be near it.
        """
        self._cluster.changed.append(grant.number)
        return grant.job_class is not None and self.presence.note(grant.number, grant.job_class, replicas)

    def allowed(self, constraints: Constraints, within: Container[int] | None = None) -> frozenset[int] | None:
        """Return the nodes that labels, taints and pools allow, of those `within` reach; None for all there are."""
        verdicts = self.verdicts(constraints)
        known = self._allowed.get((id(verdicts), id(within)))
        if known is None:
            numbers = frozenset(
                number
                for number, (cause, _) in enumerate(verdicts)
                if cause is None and (within is None or number in within)
            )
            known = (None if len(numbers) == len(verdicts) else numbers, verdicts, within)
            self._allowed[id(verdicts), id(within)] = known
        return known[0]

    def views(self, job_class: JobClass, within: Container[int] | None = None) -> tuple[View, ...]:
        """Return, for each role of a class, where its replicas may go, on nodes `within` its reach (None: on all).

        Not to be kept: ask again for the next job.
        """
        if len(self._cluster.changed) > _MOST_CHANGES:
            self._begin_anew()
        known = self._views.get(id(job_class))
        if known is not None and known[1] is within and known[2] == self.presence.version:
            return known[3]
        watches = self.presence.watches(job_class)
        fields = {
            by_gpu: self._field(job_class.constraints, watches, within, by_gpu=by_gpu)
            for by_gpu in {_by_gpu(role.request) for role in job_class.roles}
        }
        strategy = job_class.constraints.strategy
        views = tuple(self._view(fields[_by_gpu(role.request)], role.request, strategy) for role in job_class.roles)
        if len(self._views) > _MOST_CLASSES:
            self._views.clear()
        # By identity, which is what equal classes are meant to have; the class is kept, so that the identity stays its.
        self._views[id(job_class)] = (job_class, within, self.presence.version, views)
        return views

    def tally(self, view: View) -> Tally:
        """Return how many replicas the domains of the topology have room for, as a view sees it."""
        tally = self._tallies.get(view)
        if tally is None:
            tally = self._tallies[view] = Tally(view)
        else:
            tally.catch_up()
        return tally

    def verdicts(self, constraints: Constraints, *, by_gpu: bool = False) -> Sequence[Verdict]:
        """Return of every node, by number, why its labels, taints, pool or price keep such jobs away, if they do.

        `by_gpu` compares prices for a GPU rather than for a CPU.
        """
        known = self._judged.get((id(constraints), by_gpu))
        if known is None:
            # Kept by identity, and with it what the identity is of.
            known = (self._judge(constraints, by_gpu=by_gpu), constraints)
            self._judged[id(constraints), by_gpu] = known
        return known[0]

    def _judge(self, constraints: Constraints, *, by_gpu: bool) -> Sequence[Verdict]:
        """Judge every node for constraints, once for all that differ in no more than what changes as jobs come and go.

        The lists are kept, so each is one object as long as the index lasts.
        """
        cheap = constraints.strategy is Strategy.CHEAP
        lasting = replace(
            constraints,
            affinities=(),
            exclusive=False,
            within=constraints.within if constraints.within_required else "",
            strategy=Strategy.CHEAP if cheap else Strategy.FIT,
        )
        key = (lasting, cheap and by_gpu)
        verdicts = self._verdicts.get(key)
        if verdicts is None:
            verdicts = self._verdicts[key] = judge(self.terrain, lasting, by_gpu=by_gpu)
        return verdicts

    def _view(self, field: Field, request: Request, strategy: Strategy) -> View:
        key = (field, request, strategy)
        view = self._shared.get(key)
        if view is None:
            demand = Demand.of(request)
            ranking = self._rankings.get((field, demand, strategy))
            if ranking is None:
                ranking = Ranking(field, demand, self._gauge(strategy))
                self._rankings[field, demand, strategy] = ranking
            view = self._shared[key] = View(field, request, ranking)
        return view

    def _field(
        self, constraints: Constraints, watches: tuple[Watch, ...], within: Container[int] | None, *, by_gpu: bool
    ) -> Field:
        verdicts = self.verdicts(constraints, by_gpu=by_gpu)
        # A set is known by what is in it: callers may make the same one again.
        reach = within if isinstance(within, frozenset) else id(within)
        known = self._points.get((id(verdicts), reach))
        if known is None:
            points = tuple([None if cause is not None else points for cause, points in verdicts])
            if within is not None:
                points = tuple([each if number in within else None for number, each in enumerate(points)])
            # Constraints that come to the same share what is kept of it. What is known by identity is kept as well.
            alike = self._alike.setdefault(points, len(self._alike))
            known = self._points[id(verdicts), reach] = (alike, points, verdicts, within)
        alike, points = known[:2]
        key = (alike, tuple(watch.rule for watch in watches), constraints.exclusive)
        field = self._fields.get(key)
        if field is None:
            field = Field(self._cluster, points, watches, exclusive=constraints.exclusive)
            self._fields[key] = field
        return field

    def _gauge(self, strategy: Strategy) -> Gauge:
        if strategy not in self._gauges:
            self._gauges[strategy] = gauge_of(strategy, self.fragmentation, self.terrain.nodes)
        return self._gauges[strategy]

    def _begin_anew(self) -> None:
        self._cluster.changed.clear()
        self._cluster.states.forget()
        self.fragmentation.forget()
        self.presence.forget_watches()
        self._fields.clear()
        self._views.clear()
        self._shared.clear()
        self._rankings.clear()
        self._tallies.clear()
        self._alike.clear()
        self._points.clear()
        self._allowed.clear()
        self._verdicts.clear()
        self._judged.clear()


def _by_gpu(request: Request) -> bool:
    return bool(request.gpu_milli or request.mig_profile)


def _slice_weights(shapes: Sequence[Shape]) -> dict[str, int]:
    """Return how popular each profile of slices is, in millionths of all."""
    total = sum(shape.weight for shape in shapes) or 1
    weights: dict[str, int] = {}
    for shape in shapes:
        profile = shape.request.mig_profile
        if profile:
            weights[profile] = weights.get(profile, 0) + round(shape.weight * 1_000_000 / total)
    return weights
