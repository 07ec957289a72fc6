"""The cluster on paper: who waits, who holds what, and what is kept for whom; told of every change, never read anew."""

from collections.abc import Iterable, Sequence

from scheduler.admission import Admission
from scheduler.amounts import asked, held
from scheduler.backfill import Claim, Guard, Release, binding, ends_at
from scheduler.capacity import Setting
from scheduler.clearing import Site
from scheduler.config import Config
from scheduler.conservative import Agenda
from scheduler.inheritance import inherit
from scheduler.ledger import Ledger
from scheduler.occupants import Occupant, Occupants
from scheduler.order import Line, check, form_lines
from scheduler.outlook import Forecasts
from scheduler.owed import Debts, Owed
from scheduler.placement.rooms import Grant, sum_up
from scheduler.plan import Because, Placement, ReplicaPlacement
from scheduler.prospects import Prospects
from scheduler.reclaim import Lending, Pools
from scheduler.reservations import Bookings
from scheduler.snapshot import Amounts, BlockedJob, Holding, JobClass, PendingJob, Reservation, RunningJob, Snapshot
from scheduler.standing import Standing

_MOST_REMEMBERED = 100_000


class Paper:
    """A cluster on paper that is kept from plan to plan: told what happened since, it need not be read anew.

    Raises: ValueError for broken input, such as an unknown queue.
    """

    def __init__(self, snapshot: Snapshot, config: Config) -> None:
        self.config = config
        self.admission = Admission(snapshot.nodes, snapshot.queues, snapshot.pools, snapshot.accounts)
        self.ledger = Ledger(snapshot.nodes, Setting(snapshot.levels, snapshot.pools, snapshot.shapes))
        self._prospects = Prospects(self.ledger)
        self.pending: dict[str, PendingJob] = {}
        self._standing = Standing(self.admission.usage, config)
        self.lines = form_lines(snapshot.queues, self._standing)
        self.occupants = Occupants([node.gpu_model for node in self.ledger.nodes])
        self.forecasts = Forecasts(self.ledger, self.occupants)
        self.debts = Debts(self.ledger, self.occupants, config.preemption.grace_s, self.admission)
        pools = Pools(snapshot.pools, {queue.id: queue.pool_id for queue in snapshot.queues})
        self.site = Site(self.ledger, self.occupants, self.debts, self.reach, Lending(self.admission, pools))
        self._within: dict[frozenset[str], frozenset[int]] = {}
        self._agenda: Agenda | None = None
        self._never: dict[JobClass, Because | None] = {}
        self.bookings = Bookings(snapshot.reservations, self.ledger)
        self._add_pending(snapshot.pending)
        self._add_running(snapshot.running)
        self.admission.settle()
        if snapshot.blocked:
            self.block(snapshot.blocked)

    # What happened

    def block(self, blocked: Sequence[BlockedJob]) -> None:
        """These are all that wait for others now. Raises ValueError for broken input."""
        lifts = inherit(blocked, self.pending)
        if lifts != self._standing.lifts:
            self._standing.lifts = lifts
            for line in self.lines.values():
                line.sort()

    def submit(self, job: PendingJob) -> None:
        """A job waits. Raises ValueError for broken input."""
        self._note_pending(job)
        check(job.job_class)
        self.line_of(job.job_class).add(job)

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
        job = self.pending.pop(job_id)
        self.debts.settle(job_id)
        self.line_of(job.job_class).remove(job)
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
        self.admission.give(occupant.job_class, held(gone), 0)
        self.ledger.settle()
        self.admission.settle()

    def find_pending(self, job_id: str) -> PendingJob | None:
        """The job of that id, if it is known to wait."""
        return self.pending.get(job_id)

    def find_release(self, job_id: str) -> Release | None:
        """What the job of that id frees, if it is known to run."""
        known = self.occupants.by_id.get(job_id)
        return None if known is None else known.release

    def release_of(self, job: RunningJob) -> Release:
        """When a running job is due to end, and what that frees."""
        return self._occupant(job).release

    # How things stand

    def claims(self, now: float) -> list[Claim]:
        """What is reserved and what is owed, as it binds those who start now."""
        return self.debts.claims(self.review(now), now)

    def review(self, now: float) -> list[Claim]:
        """Forget what can or need be owed no more, and return what is booked."""
        booked = self.booked(now)
        if self.debts:
            with self.site.leavers_gone(now):
                wanted = {owed.job.id for owed in self.debts.in_order() if self._wants(owed)}
            self.debts.review(now, wanted, lambda job_class: self.guard(booked, job_class, now))
        return booked

    def booked(self, now: float) -> list[Claim]:
        """What is reserved, as it binds those who start now."""
        return self.bookings.claims(self.releases(), self._used_on, now)

    def _used_on(self, project_id: str, number: int) -> Amounts:
        """What the running jobs of a project hold on a node."""
        of_project = (
            one.occupant for one in self.occupants.on(number) if one.occupant.job_class.project_id == project_id
        )
        return sum_up(grant for job in of_project for grant in job.grants if grant.number == number)

    def agenda_at(self, now: float) -> Agenda:
        """Return who was promised to start when, kept from plan to plan."""
        if self._agenda is None:
            self._agenda = Agenda(self.ledger, self.releases, now)
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

    def guard(self, claims: Sequence[Claim], job_class: JobClass, now: float) -> Guard:
        """Keep a class that starts now off what is claimed, and on nodes in its reach."""
        return Guard(binding(claims, job_class), ends_at(now, job_class), self.reach(job_class))

    def why_never(self, job_class: JobClass) -> Because | None:
        """Say why no change of load could let a job of this class start, None where one could."""
        if job_class not in self._never:
            if len(self._never) >= _MOST_REMEMBERED:
                self._never.clear()
            within = self.within(self.admission.widest_reach(job_class))
            self._never[job_class] = self._prospects.why_never(job_class, within)
        return self._never[job_class]

    def start(self, job: PendingJob, grants: Sequence[Grant], now: float) -> None:
        """Note a start whose grants are taken."""
        del self.pending[job.id]
        self.debts.settle(job.id)
        self._hold(Occupant.of_start(job, grants, asked(job.job_class), now))

    def replicas(self, grants: Iterable[Grant], first: int = 0) -> tuple[ReplicaPlacement, ...]:
        """Put what replicas hold in the plan's words; `first` is the place of the first."""
        nodes = self.ledger.nodes
        return tuple([
            ReplicaPlacement(index, nodes[grant.number].id, grant.gpus, grant.slices, grant.role)
            for index, grant in enumerate(grants, first)
        ])  # fmt: skip

    def placement(self, job: PendingJob, grants: Sequence[Grant], reason: str) -> Placement:
        """Put a start in the plan's words."""
        return Placement(job.id, self.replicas(grants), reason)

    def owe_quotas(self) -> None:
        """Keep for those to whom room is owed what their limits leave as well."""
        for owed in self.debts.in_order():
            if owed.job.id in self.pending:
                self.admission.owe(owed.job.job_class, asked(owed.job.job_class))

    def _wants(self, owed: Owed) -> bool:
        """Tell whether a job still waits for what it is owed, and may have it; or will when it has ended where it is."""
        if owed.job.id in self.pending:
            job_class = owed.job.job_class
            return not self.line_of(job_class).queue.paused and self.site.admits(job_class)
        return owed.job.id in self.occupants.releasing

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
            self.line_of(job_class).add_all(job_class, jobs)

    def _note_pending(self, job: PendingJob) -> None:
        if job.id in self.pending:
            raise ValueError(f"two pending jobs have the id {job.id}")
        self.pending[job.id] = job
        if job.owed:
            self._owe(job, job.owed)

    def line_of(self, job_class: JobClass) -> Line:
        """Return where jobs of a class wait. Raises ValueError for an unknown queue."""
        line = self.lines.get(job_class.queue_id)
        if line is None:
            raise ValueError(f"jobs wait in queue {job_class.queue_id!r}, which the snapshot lacks")
        return line
