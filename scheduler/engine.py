"""The scheduler's one question: who starts now, where, and why everybody else waits.

Pure: no clock and no chance. Equal states give equal plans, whatever the order of rows and whatever came before.
"""

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from scheduler.amounts import asked
from scheduler.backfill import Claim
from scheduler.clearing import Clearing, Told
from scheduler.config import Config
from scheduler.elastic import grow
from scheduler.owed import Owed
from scheduler.paper import Paper
from scheduler.plan import Placement, Plan, Promise, ReplicaPlacement, Verdict
from scheduler.rounds import Round
from scheduler.snapshot import Holding, Snapshot

_MOST_PASSES = 32
"""So often one plan makes room and starts what that let start; what is left to do, the next one does."""


def plan(snapshot: Snapshot, config: Config) -> Plan:
    """Decide for every pending job of `snapshot`.

    Raises: ValueError for broken input, such as an unknown queue; "does not fit" is a verdict.
    """
    return Planner(snapshot, config).plan(snapshot.now)


@dataclass(slots=True)
class Growing:
    """Jobs that have got replicas more in a plan: their sizes before, and who had to give some up again.

    Those do not get any another time, or it would never end.
    """

    sizes: dict[str, int] = field(default_factory=dict)
    over: set[str] = field(default_factory=set)


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """Keep Python from looking for circles among what a plan makes: there are none.

    It would go through all that is known of a large cluster again and again, a third of the time of a plan that starts
    tens of thousands.
    """
    works = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if works:
            gc.enable()


class Planner(Paper):
    """The cluster on paper, and what follows from it.

    What a plan starts counts as running from then on; where that could not be done, say `end` and `submit`.
    """

    def __init__(self, snapshot: Snapshot, config: Config) -> None:
        super().__init__(snapshot, config)
        self._clearing = Clearing(self.site, config)
        self._last: Round | None = None

    def plan(self, now: float) -> Plan:
        """Decide for every job that waits, and say of those left why."""
        with _collector_at_rest():
            made = self.decide(now)
            return Plan(made.placements, tuple(self.verdicts()), made.promises, made.evictions, made.resizes)

    def decide(self, now: float) -> Plan:
        """Decide what happens now, without a word about those left: `verdicts` has them, until something changes.

        Rounds follow one another until one starts nothing. Planning the applied plan again is such a round, so it
        starts nothing either, and the claims told to users are those of the cluster as the plan leaves it.
        """
        placements: list[Placement] = []
        told: list[Told] = []
        growth = Growing()
        self._clearing.begin()
        if self.config.reserved_heads is None:
            current = self._keep_promises(now, placements)
        else:
            current = self._start_all(now, placements)
            for _ in range(_MOST_PASSES):
                if current.full or not (
                    self._make_room(current, now, told, growth)
                    or self._clearing.spare(now, told)
                    or self._grow(current, placements, now, growth)
                ):
                    break
                current = self._start_all(now, placements)
        evictions, resizes = self._clearing.orders(now, told, self._growth(placements, growth.sizes))
        self._last = current
        promises = tuple(self._promise(one) for one in current.claims if not one.booked)
        return Plan(tuple(placements), (), promises, evictions, resizes)

    def verdicts(self) -> Iterator[Verdict]:
        """Say of every class that waits why, as things stand after the last `decide`."""
        if self._last is None:
            raise ValueError("nothing has been decided yet")
        return self._last.verdicts()

    def _make_room(self, current: Round, now: float, told: list[Told], growth: Growing) -> bool:
        """Have others go; what was to grow only now just does not."""
        if not self._clearing.make_room(current.blocked, current.claims, now, told):
            return False
        for job_id, size in growth.sizes.items():
            occupant = self.occupants.by_id[job_id]
            mine = [one for one in told if one.occupant is occupant and (not one.places or min(one.places) >= size)]
            if mine:
                new = range(size, occupant.size)
                places = sorted({place for one in mine for place in one.places or new})
                for one in mine:
                    if one.places:
                        told.remove(one)
                        self.occupants.tell(occupant, None, one.places)
                self.give_up(job_id, places)
                growth.over.add(job_id)
        return True

    def _grow(self, current: Round, placements: Sequence[Placement], now: float, growth: Growing) -> bool:
        """Have jobs use what nobody waits for. Tell whether any does."""
        more = grow(self.site, current.claims, self.config, now, growth.over)
        begun = {placement.job_id for placement in placements} if more else ()
        for one in more:
            growth.sizes.setdefault(one.occupant.id, 0 if one.occupant.id in begun else one.occupant.size)
            self.occupants.extend(one.occupant, one.grants)
        self.ledger.settle()
        self.admission.settle()
        return bool(more)

    def _growth(self, placements: list[Placement], grown: Mapping[str, int]) -> dict[str, tuple[ReplicaPlacement, ...]]:
        """Return what is added to running jobs; those that start now have it from the first."""
        begun = {placement.job_id: index for index, placement in enumerate(placements)}
        added = {}
        for job_id, size in grown.items():
            more = self.replicas(self.occupants.by_id[job_id].grants_from(size), size)
            if job_id in begun:
                placements[begun[job_id]] = replace(placements[begun[job_id]], replicas=more)
            elif more:
                added[job_id] = more
        return added

    def _keep_promises(self, now: float, placements: list[Placement]) -> Round:
        """Start who was promised to start by now; again where one who starts has used up what was booked for it."""
        self._start_owing(now, placements)
        while True:
            before = len(placements)
            current = Round(self, now, placements)
            current.keep_promises(self.agenda_at(now))
            if current.full or len(placements) == before or not any(one.booked for one in current.claims):
                return current
            self._agenda = None

    def _start_all(self, now: float, placements: list[Placement]) -> Round:
        """Start what can start, those first who are owed their room; return the round that started nothing more."""
        self._start_owing(now, placements)
        current = Round(self, now, placements)
        while current.run() and not current.full:
            current = Round(self, now, placements)
        return current

    def _start_owing(self, now: float, placements: list[Placement]) -> None:
        """Start those for whom room was made, as far as it is free by now."""
        self.admission.forgive()
        self.review(now)
        for owed in self.debts.in_order():
            if len(placements) < self.config.max_placements:
                self._start_owed(owed, now, placements)

    def _start_owed(self, owed: Owed, now: float, placements: list[Placement]) -> None:
        """Start a job where room was made for it, if all of that is free by now."""
        job = self.pending.get(owed.job.id)
        mark = self.ledger.mark()
        guard = self.guard(self.booked(now), owed.job.job_class, now)
        if job is None or not self.debts.take(owed, guard):
            return
        if self.admission.refusal(job.job_class, asked(job.job_class)) is not None:
            self.ledger.rollback(mark)
            return
        self.line_of(job.job_class).remove(job)
        self._agenda = None
        placements.append(self.placement(job, owed.grants, "where room was made for it"))
        self.start(job, owed.grants, now)
        self.ledger.settle()
        self.admission.settle()

    def _promise(self, owed: Claim) -> Promise:
        nodes = self.ledger.nodes
        kept = owed.grants if owed.job.id in self.debts else ()
        holdings = tuple(
            Holding(nodes[one.number].id, one.cpu_milli, one.memory_bytes, one.gpus, one.slices, one.role)
            for one in kept
        )
        starts_at = self.debts.due_at.get(owed.job.id, owed.starts_at)
        return Promise(owed.job.id, starts_at, tuple(nodes[number].id for number in owed.counts), holdings)
