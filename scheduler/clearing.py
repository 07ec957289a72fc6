"""Room is made for jobs that found none, with least harm: what is coming anyhow, then jobs that move, then borrowers
that give back, then lower priorities that end.
"""

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from math import inf
from typing import NamedTuple

from scheduler.amounts import asked
from scheduler.backfill import Claim, Guard, ends_at
from scheduler.config import Config
from scheduler.consolidation import ByMoving, gain, needs_one_place, restart_cost
from scheduler.gang import needed, place_gang
from scheduler.ledger import Ledger
from scheduler.occupants import Occupant, Occupants
from scheduler.order import Waiting
from scheduler.owed import Debts, Owed
from scheduler.placement.rooms import Grant
from scheduler.plan import Eviction, EvictionKind, ReplicaPlacement, Resize
from scheduler.preemption import ByPriority, Clearance, Cluster, Rule, Search, Steps
from scheduler.reclaim import ByPool, Lending, of_own_right
from scheduler.snapshot import WHOLE, JobClass, PendingJob

STEPS = 20_000
"""How many looks at nodes and jobs one plan spends on making room."""

MOVES = 8
"""How often a move is tried with others in place of those that have nowhere to go."""

GPU_HOUR = WHOLE * WHOLE * 3600
"""Millionths of a GPU-second in an hour of one GPU."""

State = tuple[int, int, int, float]
"""What it depends on whether anybody can be helped, claims apart."""

Added = tuple[ReplicaPlacement, ...]
Evictions = tuple[Eviction, ...]
Resizes = tuple[Resize, ...]

_NO_CLAIMS = Guard((), inf)

Within = Callable[[JobClass], Container[int] | None]
"""The nodes in reach of a class, None: all."""


@dataclass(frozen=True, slots=True)
class Told:
    """A job that must go, or the replicas at some of its places, and for whom."""

    occupant: Occupant
    places: tuple[int, ...]
    kind: EvictionKind
    job: PendingJob

    def grants(self) -> list[Grant]:
        """Return what becomes free."""
        pairs = zip(self.occupant.places, self.occupant.grants, strict=True)
        return [grant for place, grant in pairs if not self.places or place in self.places]


@dataclass(frozen=True, slots=True)
class Site:
    """Where room is made: who holds what, what is kept for whom, whose limits are met, and who lends to whom."""

    ledger: Ledger
    occupants: Occupants
    debts: Debts
    within: Within
    lending: Lending

    def domain(self, job_class: JobClass, number: int) -> int:
        """Return a key for what a node lies in, of the level that must hold all replicas; one for all where none must."""
        constraints = job_class.constraints
        return self.ledger.capacity.topology.domain(constraints.within, number) if constraints.within_required else 0

    def give_back_coming(self, now: float) -> None:
        """Give back in the books, in a what-if, what those hold who have been told to end."""
        for occupant in self.debts.leavers(now):
            self.lending.books.give(occupant.job_class, occupant.amounts)

    @contextmanager
    def leavers_gone(self, now: float) -> Iterator[None]:
        """Have limits looked at as they will be once those have ended who were told to."""
        mark = self.lending.books.mark()
        self.give_back_coming(now)
        try:
            yield
        finally:
            self.lending.books.rollback(mark)

    def admits(self, job_class: JobClass) -> bool:
        """Tell whether the limits let a job start."""
        return self.lending.books.refusal(job_class, asked(job_class)) is None


class Clearing:
    """Makes room; remembers for whom it tried in vain, as long as nothing has changed."""

    def __init__(self, site: Site, config: Config) -> None:
        self._site = site
        self._config = config
        self._in_vain: set[JobClass] = set()
        self._state: State | None = None
        self._steps = Steps(STEPS)

    def begin(self) -> None:
        """Another plan begins, which may spend as many steps as any."""
        self._steps = Steps(STEPS)

    def make_room(self, blocked: Sequence[Waiting], claims: Sequence[Claim], now: float, told: list[Told]) -> bool:
        """Have others go for jobs that found no room, the highest priority first, ties in the order given.

        `claims` are those of the round that failed; who must go is added to `told`. Tells whether anything was changed:
        that somebody must go, or that room is kept for one who had none.
        """
        site, config = self._site, self._config
        if not (config.preemption.enabled or config.reclaim or config.consolidate) or not site.occupants.by_id:
            return False
        if self._is_quiet(blocked, claims):
            return False
        before = site.debts.changes
        state = _state(site, now, config.preemption.min_run_s)
        if state != self._state:
            self._in_vain.clear()
            self._state = state
        ranked = sorted(blocked, key=lambda group: -group.job_class.priority)
        mark = site.lending.books.mark()
        with site.ledger.what_if():
            _Pass(site, Terms(config, now, self._steps), claims, told).run(ranked, self._in_vain)
        site.lending.books.rollback(mark)
        return site.debts.changes > before

    def _is_quiet(self, blocked: Sequence[Waiting], claims: Sequence[Claim]) -> bool:
        """Tell whether at a glance nobody goes, and nobody could be made to go, to move or to wait for any job."""
        occupants, config = self._site.occupants, self._config
        if occupants.releasing or self._site.debts or (config.reclaim and self._site.lending.pools.names):
            return False
        if config.consolidate and occupants.movable:
            return False
        highest = max((group.job_class.priority for group in blocked), default=0)
        if any(one.job.job_class.priority < highest for one in claims):
            return False
        rule = ByPriority(highest, config.preemption, 0.0, shrinking=bool(occupants.elastic))
        return not blocked or not config.preemption.enabled or occupants.lowest() > rule.most_priority

    def spare(self, now: float, told: list[Told]) -> bool:
        """Let those stay, last chosen first, whom nobody needs to go any more; tell whether there were any.

        A job that was to have their room may have started elsewhere since, or a higher one taken it over.
        """
        site, kept = self._site, len(told)
        with site.ledger.what_if():
            site.debts.release_coming(now)
            for owed in site.debts.in_order():
                site.debts.take(owed, _NO_CLAIMS)
            for one in reversed(told.copy()):
                # A borrower goes for the books too, which have no nodes.
                if one.kind is not EvictionKind.RECLAIM and self._may_stay(one):
                    told.remove(one)
                    site.occupants.tell(one.occupant, None, one.places)
                    site.debts.settle(one.occupant.id)
        return len(told) < kept

    def _may_stay(self, one: Told) -> bool:
        """Take again what somebody was to give up, if all of it is there beside those who are owed room."""
        ledger, occupant, job_class = self._site.ledger, one.occupant, one.occupant.job_class
        field = ledger.capacity.views(job_class)[0].field
        field.catch_up()
        mark, grants = ledger.mark(), one.grants()
        if any(field.parts(grant.number) for grant in grants) or not ledger.take_all(grants):
            return False
        stays = [*grants, *(occupant.grants[index] for index in occupant.staying() if one.places)]
        for number in {grant.number for grant in grants}:
            room, own = ledger.rooms[number], sum(grant.number == number for grant in stays)
            if room.exclusive and not (job_class.constraints.exclusive and room.tenants <= own):
                ledger.rollback(mark)
                return False
        return True

    def orders(self, now: float, told: Sequence[Told], added: Mapping[str, Added]) -> tuple[Evictions, Resizes]:
        """Put what was decided in the plan's words, for those who in the end need it; some jobs get replicas `added`."""
        grace_s = self._config.preemption.grace_s
        evictions: list[Eviction] = []
        resizes = {
            job_id: Resize(job_id, more, reason="grows into room that nobody waits for")
            for job_id, more in added.items()
        }
        for one in told:
            job, occupant = self._needy(one), one.occupant
            if one.places:
                before = resizes.get(occupant.id) or Resize(occupant.id)
                removed = tuple(sorted((*before.removed, *one.places)))
                why = f"gives up what it can do without, for job {job.id}"
                resizes[occupant.id] = replace(before, removed=removed, grace_s=grace_s, for_job_id=job.id, reason=why)
            else:
                checkpoint = occupant.job_class.checkpointable
                why = _why(replace(one, job=job), now)
                evictions.append(Eviction(occupant.id, one.kind, job.id, grace_s, checkpoint, why))
        return tuple(evictions), tuple(resizes.values())

    def _needy(self, told: Told) -> PendingJob:
        """Return the job that gets the room: the one it was chosen for, or who has taken that over."""
        debts = self._site.debts
        if told.job.id in debts:
            return told.job
        numbers = {grant.number for grant in told.grants()}
        heirs = (owed.job for owed in debts.in_order() if any(grant.number in numbers for grant in owed.grants))
        return next(heirs, told.job)


def _state(site: Site, now: float, min_run_s: float) -> State:
    ripens_at = site.occupants.ripens_at(now, min_run_s)
    return site.ledger.gains, site.occupants.version, site.debts.changes, ripens_at


def _apart(claim: Claim) -> Claim:
    """Return a claim that may be changed, on the nodes that it was found on."""
    if claim.begun:
        return claim
    return replace(claim, spare=None, rooms={number: room.copy() for number, room in claim.rooms.items()})


class Terms(NamedTuple):
    """How room is made: by which rules, when, and with how many steps left."""

    config: Config
    now: float
    steps: Steps


class _Pass:
    """One look at all who found no room, on the ledger as it will be once those have gone who were told to."""

    def __init__(self, site: Site, terms: Terms, claims: Sequence[Claim], told: list[Told]) -> None:
        self._site = site
        self._config = terms.config
        self._claims = [_apart(claim) for claim in claims if claim.job.id not in site.debts]
        self._now = terms.now
        self._told = told
        self._books = site.lending.books
        self._refused = False
        self._cluster = Cluster(site.ledger, site.occupants, site.domain, terms.steps)

    def run(self, blocked: Sequence[Waiting], in_vain: set[JobClass]) -> None:
        """Serve the first jobs of each class; what is owed to others is held when their turn comes, so that only a higher one gets it.

        Those that found nobody are added to `in_vain`, unless it was for the claims of others.
        """
        debts, most = self._site.debts, self._config.preemption.most_heads - len({one.job.id for one in self._told})
        self._expect_coming()
        owed = debts.in_order()[::-1]
        for group in blocked:
            if group.job_class in in_vain:
                continue
            while owed and debts.rank(owed[-1]) >= group.job_class.priority:
                self._hold(owed.pop())
            for job in islice(group.jobs(), self._config.preemption.most_heads):
                if most <= 0 or self._cluster.steps.left <= 0:
                    break
                if job.id in debts:
                    continue
                if not self._help(job):
                    if not self._refused and self._cluster.steps.left > 0:
                        in_vain.add(group.job_class)
                    break
                most -= 1
        while owed:
            self._hold(owed.pop())

    def _expect_coming(self) -> None:
        self._site.debts.release_coming(self._now)
        self._site.give_back_coming(self._now)

    def _hold(self, owed: Owed) -> None:
        debts = self._site.debts
        # Claims were made around what is owed: they do not count on it, and need not be asked.
        if not debts.take(owed, _NO_CLAIMS) and not debts.renew(owed, self._guard_all(owed.job.job_class)):
            debts.settle(owed.job.id)  # a higher priority has it; it may ask anew

    # One job

    def _help(self, job: PendingJob) -> bool:
        """Find room for a job at one place, with least harm; tell whether it is owed some now."""
        self._refused = False
        job_class, ledger = job.job_class, self._site.ledger
        if self._allowed(job_class):
            guard = self._guard(job)
            grants = place_gang(ledger, job_class, guard)
            if len(grants) == needed(job_class):
                self._owe(job, grants)
                return True
            self._refused |= guard.refused_for is not None
            if self._config.consolidate and needs_one_place(job_class) and self._move(job):
                return True
        return any(self._send_away(job, rule) for rule in self._rules(job_class))

    def _rules(self, job_class: JobClass) -> Iterator[Rule]:
        config, lending = self._config, self._site.lending
        if config.reclaim and lending.pools.side(job_class):
            yield ByPool(job_class, lending, config.preemption, self._now)
            yield ByPool(job_class, lending, config.preemption, self._now, initial=True)
        priority = job_class.priority
        if config.preemption.enabled and self._allowed(job_class):
            elastic, spared = bool(self._site.occupants.elastic), of_own_right(lending, job_class)
            rule = ByPriority(priority, config.preemption, self._now, shrinking=elastic, spared=spared)
            if self._site.occupants.lowest() <= rule.most_priority:
                yield rule

    def _send_away(self, job: PendingJob, rule: Rule) -> bool:
        guard = self._guard(job)
        search = Search(self._cluster, job.job_class, rule, guard)
        found = search.find()
        self._refused |= guard.refused_for is not None
        if found is None:
            return False
        if not self._within_bounds(found):
            self._refused = True
            search.undo(found)
            return False
        self._order(job, found, rule)
        self._owe(job, found.grants)
        return True

    def _within_bounds(self, found: Clearance) -> bool:
        """Tell whether a plan may have so many go; its first job may have as many as it needs."""
        told = sum(not one.places for one in self._told)
        return not told or told + len(found.evicted) <= self._config.preemption.most_evictions

    def _allowed(self, job_class: JobClass) -> bool:
        return self._books.refusal(job_class, asked(job_class)) is None

    def _guard(self, job: PendingJob) -> Guard:
        """Keep the claims of those ahead in the same queue, and of those elsewhere that are not less important.

        Whoever may send away what runs for a lower priority need not wait for what is claimed for one.
        """
        job_class = job.job_class
        level = job_class.priority - max(1, self._config.preemption.priority_threshold)
        binding = []
        ahead = True
        for claim in self._claims:
            other = claim.job.job_class
            if claim.job.id == job.id:
                ahead = False
            elif claim.booked:
                binding += [claim] * (other.project_id != job_class.project_id or not other.project_id)
            elif other.queue_id == job_class.queue_id:
                binding += [claim] * ahead
            elif other.priority > level:
                binding.append(claim)
        until = ends_at(self._now + self._config.preemption.grace_s, job_class)
        return Guard(binding, until, self._site.within(job_class))

    def _guard_all(self, job_class: JobClass) -> Guard:
        """Keep all claims: nobody who waits shall wait longer for one who only moves."""
        return Guard(self._claims, ends_at(self._now, job_class), self._site.within(job_class))

    def _owe(self, job: PendingJob, grants: Sequence[Grant]) -> None:
        self._site.debts.keep(job, grants)
        self._claims = [claim for claim in self._claims if claim.job.id != job.id]
        if job.id not in self._site.occupants.by_id:  # who only moves is in the books already
            self._books.take(job.job_class, asked(job.job_class))

    # Moving

    def _move(self, job: PendingJob) -> bool:
        """Have jobs go on elsewhere so that this one fits, if each of them has a place and it is worth the restarts."""
        fixed: set[str] = set()
        for _ in range(MOVES if self._site.occupants.movable else 0):
            guard = self._guard(job)
            rule = ByMoving(job.job_class.priority, self._config, self._now, fixed)
            search = Search(self._cluster, job.job_class, rule, guard)
            found = search.find()
            self._refused |= guard.refused_for is not None
            if found is None:
                return False
            cost = sum(restart_cost(one, self._config) for one in found.evicted)
            if gain(job) <= cost or not self._within_bounds(found):
                search.undo(found)
                return False
            places = self._new_places(found.evicted, fixed)
            if places is not None:
                self._order(job, found, rule)
                self._owe(job, found.grants)
                for occupant, grants in places:
                    self._owe(PendingJob(occupant.id, occupant.started_at, occupant.job_class), grants)
                return True
            search.undo(found)
        return False

    def _new_places(self, movers: Sequence[Occupant], fixed: set[str]) -> list[tuple[Occupant, list[Grant]]] | None:
        """Place all that are to move, the largest first; None, and noted as fixed, where one has nowhere to go."""
        found: list[tuple[Occupant, list[Grant]]] = []
        guards: list[Guard] = []
        for occupant in sorted(movers, key=lambda one: (-one.worth, one.id)):
            guards.append(self._guard_all(occupant.job_class))
            grants = place_gang(self._site.ledger, occupant.job_class, guards[-1])
            if len(grants) < needed(occupant.job_class):
                fixed.add(occupant.id)
                for (_, held), guard in zip(found, guards, strict=False):
                    for grant in held:
                        guard.release(grant)
                return None
            found.append((occupant, grants))
        return found

    def _order(self, job: PendingJob, found: Clearance, rule: Rule) -> None:
        """Tell those who go, and those who give up replicas."""
        ends = {occupant.id for occupant in found.evicted}
        self._told[:] = [one for one in self._told if one.occupant.id not in ends]
        by = self._now + self._config.preemption.grace_s
        going = [(occupant, ()) for occupant in found.evicted]
        giving = [
            (piece.occupant, tuple(piece.occupant.places[one] for one in piece.indexes)) for piece in found.shrunk
        ]
        for occupant, places in (*going, *giving):
            self._told.append(Told(occupant, places, rule.kind, job))
            self._site.occupants.tell(occupant, by, places)


def _why(told: Told, now: float) -> str:
    occupant, job = told.occupant, told.job
    again = f"{occupant.lost(now) / GPU_HOUR:.3g} GPU-hours to do again"
    if told.kind is EvictionKind.CONSOLIDATE:
        return f"goes on elsewhere, so that job {job.id} fits at one place"
    if told.kind is EvictionKind.RECLAIM:
        return f"its pool borrowed what job {job.id} needs and may take back; {again}"
    priorities = f"priority {occupant.job_class.priority} below {job.job_class.priority}"
    return f"makes room for job {job.id}: {priorities}; {again}, the least that was found"
