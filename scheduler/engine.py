"""The scheduler's one question: who starts now, where, and why everybody else waits.

Pure: no clock and no chance. Equal states give equal plans, whatever the order of rows and whatever came before.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from math import inf

from scheduler import explain
from scheduler.admission import Admission
from scheduler.amounts import asked, held
from scheduler.backfill import Claim, Guard, Release, binding, ends_at
from scheduler.capacity import Setting
from scheduler.clearing import Clearing, Site, Told
from scheduler.config import BackfillOrder, Config
from scheduler.conservative import Agenda
from scheduler.elastic import grow
from scheduler.forecast import claim
from scheduler.gang import needed, place_gang
from scheduler.inheritance import inherit
from scheduler.ledger import Ledger
from scheduler.occupants import Occupant, Occupants
from scheduler.order import Line, Turns, Waiting, check, form_lines
from scheduler.owed import Debts, Owed
from scheduler.placement.rooms import Grant, sum_up
from scheduler.plan import Because, Placement, Plan, Promise, ReplicaPlacement, Verdict
from scheduler.prospects import Prospects
from scheduler.reclaim import Lending, Pools
from scheduler.reservations import Bookings
from scheduler.snapshot import Amounts, BlockedJob, Holding, JobClass, PendingJob, Reservation, RunningJob, Snapshot
from scheduler.standing import Standing

_MOST_REMEMBERED = 100_000


def plan(snapshot: Snapshot, config: Config) -> Plan:
    """Decide for every pending job of `snapshot`.

    Raises: ValueError for broken input, such as an unknown queue; "does not fit" is a verdict.
    """
    return Planner(snapshot, config).plan(snapshot.now)


class Planner:
    """A cluster on paper that is kept from plan to plan: told what happened since, it need not be read anew.

    What a plan starts counts as running from then on; where that could not be done, say `end` and `submit`.
    """

    def __init__(self, snapshot: Snapshot, config: Config) -> None:
        self.config = config
        self.admission = Admission(snapshot.nodes, snapshot.queues, snapshot.pools, snapshot.accounts)
        self.ledger = Ledger(snapshot.nodes, Setting(snapshot.levels, snapshot.pools, snapshot.shapes))
        self._prospects = Prospects(self.ledger)
        self._pending: dict[str, PendingJob] = {}
        self._standing = Standing(self.admission.usage, config)
        self.lines = form_lines(snapshot.queues, self._standing)
        self.occupants = Occupants([node.gpu_model for node in self.ledger.nodes])
        self.debts = Debts(self.ledger, self.occupants, config.preemption.grace_s)
        self._site = self._survey(snapshot)
        self._clearing = Clearing(self._site, config)
        self._within: dict[frozenset[str], frozenset[int]] = {}
        self._agenda: Agenda | None = None
        self._never: dict[JobClass, Because | None] = {}
        self.bookings = Bookings(snapshot.reservations, self.ledger)
        self._last: _Round | None = None
        self._add_pending(snapshot.pending)
        self._add_running(snapshot.running)
        self.admission.settle()
        if snapshot.blocked:
            self.block(snapshot.blocked)

    # What happened

    def block(self, blocked: Sequence[BlockedJob]) -> None:
        """These are all that wait for others now. Raises ValueError for broken input."""
        lifts = inherit(blocked, self._pending)
        if lifts != self._standing.lifts:
            self._standing.lifts = lifts
            for line in self.lines.values():
                line.sort()

    def submit(self, job: PendingJob) -> None:
        """A job waits. Raises ValueError for broken input."""
        self._note_pending(job)
        check(job.job_class)
        self._line(job.job_class).add(job)

    def hold(self, job: RunningJob) -> None:
        """A job runs that no plan of ours started, and holds what is still free here.

        Raises ValueError if it runs already, or if what it holds is not free.
        """
        occupant = self._occupant(job)
        for grant in occupant.grants:
            self.ledger.take(grant)
        self._hold(occupant)
        self._owe(PendingJob(job.id, job.started_at, job.job_class), job.owed)
        self._agenda = None
        self.ledger.settle()
        self.admission.settle()

    def book(self, reservations: Iterable[Reservation]) -> None:
        """These are all the reservations now."""
        self.bookings = Bookings(reservations, self.ledger)

    def withdraw(self, job_id: str) -> None:
        """A job waits no longer. Raises KeyError for one that does not."""
        job = self._pending.pop(job_id)
        self.debts.settle(job_id)
        self._line(job.job_class).remove(job)
        if self._agenda is not None:
            self._agenda.withdraw(job_id)

    def end(self, job_id: str) -> None:
        """A running job is gone, and what it held is free. Raises KeyError for one that does not run."""
        gone = self.occupants.remove(job_id)
        for grant in gone.grants:
            self.ledger.give(grant)
        if self._agenda is not None:
            self._agenda.free(gone.release)
        self.admission.give(gone.job_class, gone.amounts)
        self.ledger.settle()
        self.admission.settle()

    def evicting(self, job_id: str, releasing_at: float, places: Sequence[int] = ()) -> None:
        """A running job, or the replicas at these places in its holdings, have been told to end by then.

        What a plan itself evicts need not be told. Raises KeyError for a job that does not run.
        """
        self.occupants.tell(self.occupants.by_id[job_id], releasing_at, places)
        self._agenda = None

    def give_up(self, job_id: str, places: Sequence[int]) -> None:
        """Replicas of a running job are gone, those at these places in its holdings; the others keep their order.

        Raises KeyError for a job that does not run.
        """
        occupant = self.occupants.by_id[job_id]
        gone = self.occupants.shorten(occupant, places)
        for grant in gone:
            self.ledger.give(grant)
        self._agenda = None
        self.admission.give(occupant.job_class, sum_up(gone), 0)
        self.ledger.settle()
        self.admission.settle()

    def find_pending(self, job_id: str) -> PendingJob | None:
        """The job of that id, if it is known to wait."""
        return self._pending.get(job_id)

    def find_release(self, job_id: str) -> Release | None:
        """What the job of that id frees, if it is known to run."""
        known = self.occupants.by_id.get(job_id)
        return None if known is None else known.release

    # What follows

    def plan(self, now: float) -> Plan:
        """Decide for every job that waits, and say of those left why."""
        made = self.decide(now)
        return Plan(made.placements, tuple(self.verdicts()), made.promises, made.evictions, made.resizes)

    def decide(self, now: float) -> Plan:
        """Decide what happens now, without a word about those left: `verdicts` has them, until something changes.

        Rounds follow one another until one starts nothing. Planning the applied plan again is such a round, so it
        starts nothing either, and the claims told to users are those of the cluster as the plan leaves it.
        """
        placements: list[Placement] = []
        told: list[Told] = []
        grown: dict[str, int] = {}
        if self.config.reserved_heads is None:
            current = _Round(self, now, placements)
            current.keep_promises(self._agenda_at(now))
        else:
            current = self._start_all(now, placements)
            while not current.full and (
                self._make_room(current, now, told, grown)
                or self._clearing.spare(now, told)
                or self._grow(current, placements, now, grown)
            ):
                current = self._start_all(now, placements)
        evictions, resizes = self._clearing.orders(now, told, self._growth(placements, grown))
        self._last = current
        promises = tuple(self._promise(one) for one in current.claims if not one.booked)
        return Plan(tuple(placements), (), promises, evictions, resizes)

    def verdicts(self) -> Iterator[Verdict]:
        """Say of every class that waits why, as things stand after the last `decide`."""
        if self._last is None:
            raise ValueError("nothing has been decided yet")
        return self._last.verdicts()

    # Used by the round

    def claims(self, now: float) -> list[Claim]:
        """What is reserved and what is owed, as it binds those who start now."""
        booked = self.booked(now)
        self.debts.review(now, self._wanted, lambda job_class: self.guard(booked, job_class, now))
        return self.debts.claims(booked, now)

    def booked(self, now: float) -> list[Claim]:
        """What is reserved, as it binds those who start now."""
        return self.bookings.claims(self.releases(), self._used_on, now)

    def _used_on(self, project_id: str, number: int) -> Amounts:
        """What the running jobs of a project hold on a node."""
        of_project = (
            one.occupant for one in self.occupants.on(number) if one.occupant.job_class.project_id == project_id
        )
        return sum_up(grant for job in of_project for grant in job.grants if grant.number == number)

    def _agenda_at(self, now: float) -> Agenda:
        if self._agenda is None:
            self._agenda = Agenda(self.ledger, self.releases(), now)
        return self._agenda

    def releases(self) -> Sequence[Release]:
        """What will become free, soonest first."""
        return self.occupants.releases

    def reach(self, job_class: JobClass) -> frozenset[int] | None:
        """The numbers of the nodes where jobs of a class may be; None stands for all."""
        return self.within(self.admission.reach(job_class, asked(job_class)))

    def within(self, reach: frozenset[str] | None) -> frozenset[int] | None:
        """The numbers of the nodes that lie in these pools; None stands for all."""
        if reach is None:
            return None
        if reach not in self._within:
            numbers = (number for number, node in enumerate(self.ledger.nodes) if node.pool_id in reach)
            self._within[reach] = frozenset(numbers)
        return self._within[reach]

    def start(self, job: PendingJob, grants: Sequence[Grant], now: float) -> None:
        """Note a start whose grants are taken."""
        del self._pending[job.id]
        self.debts.settle(job.id)
        self._hold(Occupant.of_start(job, grants, asked(job.job_class), now))

    def _make_room(self, current: "_Round", now: float, told: list[Told], grown: Mapping[str, int]) -> bool:
        """Have others go; what was to grow only now just does not."""
        if not self._clearing.make_room(current.heads(), current.claims, now, told):
            return False
        for job_id, size in grown.items():
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
        return True

    def _grow(self, current: "_Round", placements: Sequence[Placement], now: float, grown: dict[str, int]) -> bool:
        """Have jobs use what nobody waits for; `grown` gets the sizes before. Tell whether any does."""
        more = grow(self._site, current.claims, self.config, now)
        begun = {placement.job_id for placement in placements} if more else ()
        for one in more:
            grown.setdefault(one.occupant.id, 0 if one.occupant.id in begun else one.occupant.size)
            self.occupants.extend(one.occupant, one.grants)
        self.ledger.settle()
        self.admission.settle()
        return bool(more)

    def _growth(self, placements: list[Placement], grown: Mapping[str, int]) -> dict[str, tuple[ReplicaPlacement, ...]]:
        """Return what is added to running jobs; those that start now have it from the first."""
        begun = {placement.job_id: index for index, placement in enumerate(placements)}
        added = {}
        for job_id, size in grown.items():
            more = self._replicas(self.occupants.by_id[job_id].grants_from(size), size)
            if job_id in begun:
                placements[begun[job_id]] = replace(placements[begun[job_id]], replicas=more)
            elif more:
                added[job_id] = more
        return added

    def _replicas(self, grants: Iterable[Grant], first: int = 0) -> tuple[ReplicaPlacement, ...]:
        return tuple(
            ReplicaPlacement(index, self.ledger.nodes[grant.number].id, grant.gpus, grant.slices, grant.role)
            for index, grant in enumerate(grants, first)
        )

    def placement(self, job: PendingJob, grants: Sequence[Grant], reason: str) -> Placement:
        """Put a start in the plan's words."""
        return Placement(job.id, self._replicas(grants), reason)

    def why_never(self, job_class: JobClass) -> Because | None:
        """Say why no change of load could let a job of this class start, None where one could."""
        if job_class not in self._never:
            if len(self._never) >= _MOST_REMEMBERED:
                self._never.clear()
            within = self.within(self.admission.widest_reach(job_class))
            self._never[job_class] = self._prospects.why_never(job_class, within)
        return self._never[job_class]

    def _start_all(self, now: float, placements: list[Placement]) -> "_Round":
        """Start what can start, those first who are owed their room; return the round that started nothing more."""
        self.admission.forgive()
        for owed in self.debts.in_order():
            if len(placements) < self.config.max_placements:
                self._start_owed(owed, now, placements)
        current = _Round(self, now, placements)
        while current.run() and not current.full:
            current = _Round(self, now, placements)
        return current

    def owe_quotas(self) -> None:
        """Keep for those to whom room is owed what their limits leave as well."""
        for owed in self.debts.in_order():
            if owed.job.id in self._pending:
                self.admission.owe(owed.job.job_class, asked(owed.job.job_class))

    def _start_owed(self, owed: Owed, now: float, placements: list[Placement]) -> None:
        """Start a job where room was made for it, if all of that is free by now."""
        job = self._pending.get(owed.job.id)
        mark = self.ledger.mark()
        if job is None or not self.debts.take(owed, self.guard(self.booked(now), job.job_class, now)):
            return
        if self.admission.refusal(job.job_class, asked(job.job_class)) is not None:
            self.ledger.rollback(mark)  # its limits were cut since: others may have the room
            self.debts.settle(job.id)
            return
        self._line(job.job_class).remove(job)
        placements.append(self.placement(job, owed.grants, "where room was made for it"))
        self.start(job, owed.grants, now)
        self.ledger.settle()
        self.admission.settle()

    def guard(self, claims: Sequence[Claim], job_class: JobClass, now: float) -> Guard:
        """Keep a class that starts now off what is claimed, and on nodes in its reach."""
        return Guard(binding(claims, job_class), ends_at(now, job_class), self.reach(job_class))

    def _wanted(self, owed: Owed) -> bool:
        """Tell whether a job still waits for what it is owed, or will when it has ended where it is."""
        if owed.job.id in self._pending:
            return not self._line(owed.job.job_class).queue.paused
        return owed.job.id in self.occupants.releasing

    def _survey(self, snapshot: Snapshot) -> Site:
        pools = Pools(snapshot.pools, {queue.id: queue.pool_id for queue in snapshot.queues})
        lending = Lending(self.admission, pools)
        return Site(self.ledger, self.occupants, self.debts, self.reach, lending)

    def _hold(self, occupant: Occupant) -> None:
        self.occupants.add(occupant)
        self.admission.take(occupant.job_class, occupant.amounts)

    def _occupant(self, job: RunningJob) -> Occupant:
        return Occupant.of_running(job, self.ledger.number_of, held(job.holdings))

    def _add_running(self, running: Iterable[RunningJob]) -> None:
        self.occupants.add_all(map(self._occupant, running))
        for job in running:
            occupant = self.occupants.by_id[job.id]
            for grant in occupant.grants:
                self.ledger.seat(grant)
            self.admission.take(job.job_class, occupant.amounts)
            if job.owed:
                self._owe(PendingJob(job.id, job.started_at, job.job_class), job.owed)

    def release_of(self, job: RunningJob) -> Release:
        """When a running job is due to end, and what that frees."""
        return self._occupant(job).release

    def _owe(self, job: PendingJob, holdings: Sequence[Holding]) -> None:
        """Keep what an earlier plan promised, if there still are such nodes."""
        numbers = self.ledger.number_of
        if holdings and all(one.node_id in numbers for one in holdings):
            self.debts.keep(job, [Grant.of(numbers[one.node_id], one, job.job_class) for one in holdings])

    def _add_pending(self, pending: Iterable[PendingJob]) -> None:
        by_identity: dict[int, list[PendingJob]] = {}
        for job in pending:
            self._note_pending(job)
            by_identity.setdefault(id(job.job_class), []).append(job)
        classes: dict[JobClass, list[PendingJob]] = {}
        for jobs in by_identity.values():
            classes.setdefault(jobs[0].job_class, []).extend(jobs)
        for job_class, jobs in classes.items():
            check(job_class)
            self._line(job_class).add_all(job_class, jobs)

    def _note_pending(self, job: PendingJob) -> None:
        if job.id in self._pending:
            raise ValueError(f"two pending jobs have the id {job.id}")
        self._pending[job.id] = job
        if job.owed:
            self._owe(job, job.owed)

    def _line(self, job_class: JobClass) -> Line:
        line = self.lines.get(job_class.queue_id)
        if line is None:
            raise ValueError(f"jobs wait in queue {job_class.queue_id!r}, which the snapshot lacks")
        return line

    def _promise(self, owed: Claim) -> Promise:
        nodes = self.ledger.nodes
        kept = owed.grants if owed.job.id in self.debts else ()
        holdings = tuple(
            Holding(nodes[one.number].id, one.cpu_milli, one.memory_bytes, one.gpus, one.slices, one.role)
            for one in kept
        )
        starts_at = self.debts.due_at.get(owed.job.id, owed.starts_at)
        return Promise(owed.job.id, starts_at, tuple(nodes[number].id for number in owed.counts), holdings)


class _Round:
    """One pass over all lines with fresh claims; what failed in it, and for whom."""

    def __init__(self, planner: Planner, now: float, placements: list[Placement]) -> None:
        self.claims = planner.claims(now)
        self._planner = planner
        self._config = planner.config
        self._ledger = planner.ledger
        self._now = now
        self._placements = placements
        self._failed: set[Waiting] = set()
        self._blocked: list[Waiting] = []
        self._owing: set[Line] = set()
        self._alone = False
        self._why_never = planner.why_never

    @property
    def full(self) -> bool:
        """Whether the plan may start no more."""
        return len(self._placements) >= self._config.max_placements

    def run(self) -> bool:
        """Serve the lines in turns until nothing more starts; tell whether anything did."""
        before = len(self._placements)
        self._planner.admission.forgive()
        self._planner.owe_quotas()
        open_lines = [line for line in self._planner.lines.values() if not line.queue.paused]
        for line in open_lines:
            line.begin_round()
        self._alone = self._config.reserved_heads == 1 and sum(map(bool, open_lines)) == 1
        turns = Turns(open_lines, self._planner.admission)
        while not self.full and (served := turns.next()) is not None:
            if self._serve(served):
                turns.add(served)
        return len(self._placements) > before

    def keep_promises(self, agenda: Agenda) -> None:
        """Start whoever was promised to start by now, and promise a start to everybody else."""
        agenda.begin(self.claims, self._now)
        for line in self._planner.lines.values():
            for job in () if line.queue.paused else line.jobs():
                if self.full:
                    return
                if self._admits(job.job_class):
                    grants = agenda.attend(job, self._within(job.job_class))
                    if grants:
                        line.remove(job)
                        self._place(line, job, grants)
            self._failed.update(line.groups())
        agenda.conclude()
        self.claims = [*self.claims, *agenda.claims]

    def _admits(self, job_class: JobClass) -> bool:
        refusal = self._why_never(job_class) or self._planner.admission.refusal(job_class, asked(job_class))
        return refusal is None

    def _serve(self, line: Line) -> bool:
        """Start the first job of a line that can; one that cannot costs its queue no turn."""
        while (group := line.peek()) is not None:
            if self._try_head(line, group):
                return True
            line.skip()
            if line.blocked and not self._config.backfill:
                return False
            if self._config.backfill_order is BackfillOrder.SHORTEST and line.blocked == self._config.reserved_heads:
                line.shortest_first()
        return False

    def _try_head(self, line: Line, group: Waiting) -> bool:
        """Start the oldest job of a class, or learn that none of the class can start."""
        job_class = group.job_class
        if self._why_never(job_class) is not None:
            self._failed.add(group)
            return False
        if self._planner.admission.refusal(job_class, group.asked) is not None:
            self._failed.add(group)
            self._blocked.append(group)
            self._owe(line, group)
            return False
        tried_at = self._ledger.gains, self._planner.admission.reach(job_class, group.asked)
        if group.tried_at != tried_at:
            guard = self._guard(job_class, self._claims_of_others(group.head))
            grants = place_gang(self._ledger, job_class, guard)
            if len(grants) == needed(job_class):
                self._place(line, group.head, grants)
                line.start()
                return True
            if guard.refused_for is None:
                group.tried_at = tried_at
        self._failed.add(group)
        self._blocked.append(group)
        self._block(line, group.head)
        return False

    def heads(self) -> Iterator[PendingJob]:
        """Yield the first jobs of each class that found no room, in the order in which they were tried."""
        for group in self._blocked:
            yield from islice(group.jobs(), self._config.preemption.most_heads)

    def _claims_of_others(self, job: PendingJob) -> Sequence[Claim]:
        if job.id not in self._planner.debts:
            return self.claims
        return [claim for claim in self.claims if claim.job.id != job.id]

    def _owe(self, line: Line, group: Waiting) -> None:
        """Keep what is left of its quota for the first of a line that has waited for it too long."""
        if line in self._owing or self._now - group.head.submitted_at <= self._config.patience_s:
            return
        if self._planner.admission.owe(group.job_class, group.asked):
            self._owing.add(line)

    def _guard(self, job_class: JobClass, claims: Sequence[Claim]) -> Guard:
        return self._planner.guard(claims, job_class, self._now)

    def _within(self, job_class: JobClass) -> frozenset[int] | None:
        return self._planner.reach(job_class)

    def _place(self, line: Line, job: PendingJob, grants: Sequence[Grant]) -> None:
        """Note a start whose grants are taken."""
        self._placements.append(self._planner.placement(job, grants, self._why_there(grants, line)))
        self._planner.start(job, grants, self._now)
        self._ledger.settle()
        self._planner.admission.settle()

    def _block(self, line: Line, job: PendingJob) -> None:
        """Claim room for the first jobs of a line that could start later."""
        if job.id in self._planner.debts:
            line.blocked += 1
            return
        most = self._config.reserved_heads
        if most is not None and line.blocked >= most:
            return
        within = self._ledger.capacity.allowed(job.job_class.constraints, self._within(job.job_class))
        releases = self._planner.releases()
        claims = binding(self.claims, job.job_class)
        owed = claim(job, self._ledger, releases, claims, self._now, within=within, alone=self._alone)
        if owed is not None:
            line.blocked += 1
            self.claims.append(owed)

    # In words

    def verdicts(self) -> Iterator[Verdict]:
        """Yield a verdict for every class that waits."""
        starts_at = {owed.job.id: owed.starts_at for owed in self.claims if owed.starts_at < inf}
        starts_at |= self._planner.debts.due_at
        coming = self._coming()
        for line in self._planner.lines.values():
            for position, group in line.in_order():
                reason, message = coming.get(group.job_class) or self._why_waiting(line, group, position)
                ids = tuple(job.id for job in group.jobs())
                yield Verdict(group.job_class, ids, reason, message, position, starts_at.get(ids[0]))

    def _why_waiting(self, line: Line, group: Waiting, position: int) -> Because:
        if line.queue.paused:
            return explain.why_paused(line.queue.name)
        if group not in self._failed:
            return explain.PLAN_FULL if self.full else explain.why_behind(position)
        job_class = group.job_class
        refuse = self._planner.admission.refusal
        return self._why_never(job_class) or refuse(job_class, asked(job_class)) or self._why_not(job_class)

    def _coming(self) -> dict[JobClass, Because]:
        """Say of each class for whose jobs room is being made what is under way."""
        debts = self._planner.debts
        owed = debts.by_class().items()
        return {job_class: explain.why_coming(debts.told_for(jobs), len(jobs)) for job_class, jobs in owed}

    def _why_not(self, job_class: JobClass) -> Because:
        """Tell room that is missing from room that is promised."""
        mark = self._ledger.mark()
        guard = self._guard(job_class, self.claims)
        placed = len(place_gang(self._ledger, job_class, guard))
        if guard.refused_for is not None:
            placed = len(place_gang(self._ledger, job_class, self._guard(job_class, ())))
        self._ledger.rollback(mark)
        if placed == needed(job_class) and guard.refused_for is not None:
            owner = guard.refused_for
            if owner.job_class.queue_id not in self._planner.lines:
                return explain.why_booked(owner)
            return explain.why_delayed(owner, self._planner.lines[owner.job_class.queue_id].queue.name, job_class)
        return explain.why_no_room(self._ledger, job_class, placed, self._within(job_class))

    def _why_there(self, grants: Sequence[Grant], line: Line) -> str:
        nodes = self._ledger.nodes
        names = ", ".join(nodes[number].name for number in sorted({grant.number for grant in grants}))
        return f"least left over on {names}{'; delays no job ahead of it' if line.blocked else ''}"
