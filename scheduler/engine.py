"""The scheduler's one question: who starts now, where, and why everybody else waits.

Pure: no clock, no chance, no state between calls. Equal snapshots, whatever the order of their rows, give equal plans.
"""

from collections.abc import Iterator
from math import inf

from scheduler import explain
from scheduler.backfill import Guard, Release, Reservation, ends_at, list_releases, reserve
from scheduler.config import Config
from scheduler.gang import place_gang
from scheduler.ledger import Ledger
from scheduler.order import JobClass, Line, Turns, form_lines, group_pending
from scheduler.placement.rooms import Grant
from scheduler.plan import Placement, Plan, ReplicaPlacement, Verdict
from scheduler.snapshot import PendingJob, Request, Snapshot
from scheduler.usage import Usage


def plan(snapshot: Snapshot, config: Config) -> Plan:
    """Decide for every pending job of `snapshot`.

    Rounds follow one another until one starts nothing. Planning the applied plan again is such a round, so it
    starts nothing either, and the reservations told to users are those of the cluster as the plan leaves it.
    Raises: ValueError for broken input, such as an unknown queue; "does not fit" is a verdict.
    """
    cluster = _Cluster(snapshot, config)
    current = _Round(cluster)
    while current.run() and not cluster.full:
        current = _Round(cluster)
    return Plan(tuple(cluster.placements), tuple(_give_verdicts(cluster, current)))


class _Cluster:
    """The snapshot on paper, with what the plan has started so far."""

    def __init__(self, snapshot: Snapshot, config: Config) -> None:
        usage = Usage(snapshot.nodes, snapshot.usage)
        usage.count_running(snapshot.running)
        self.snapshot = snapshot
        self.config = config
        self.ledger = Ledger(snapshot.nodes, usage)
        self.shapes = explain.Shapes(snapshot.nodes)
        self.classes = group_pending(snapshot.pending)
        self.placements: list[Placement] = []
        self._started: list[Release] = []
        self._releases: list[Release] | None = None

    @property
    def full(self) -> bool:
        """Whether the plan may start no more."""
        return len(self.placements) >= self.config.max_placements

    def releases(self) -> list[Release]:
        """Return what will become free, of what ran before and of what the plan started."""
        if self._releases is None:
            self._releases = list_releases(self.ledger, self.snapshot.running)
        return self._releases + self._started

    def start(self, job: PendingJob, grants: list[Grant], reason: str) -> None:
        """Note a start whose grants are taken."""
        replicas = (
            ReplicaPlacement(index, self.ledger.nodes[grant.number].id, grant.gpus)
            for index, grant in enumerate(grants)
        )
        self.placements.append(Placement(job.id, tuple(replicas), reason))
        self._started.append((ends_at(self.snapshot.now, job.time_limit_s), job.id, tuple(grants)))
        self.ledger.usage.count_started(job)


class _Round:
    """One pass over all lines with fresh reservations; what failed in it, and for whom."""

    def __init__(self, cluster: _Cluster) -> None:
        self.lines = form_lines(cluster.snapshot, cluster.config, cluster.classes, cluster.ledger)
        self.reservations: list[Reservation] = []
        self.queue_names: dict[str, str] = {}
        self.because: dict[JobClass, explain.Because] = {}
        self._cluster = cluster
        self._never: dict[Request, explain.Because | None] = {}

    def run(self) -> bool:
        """Serve the lines in turns until nothing more starts; tell whether anything did."""
        before = len(self._cluster.placements)
        turns = Turns((line for line in self.lines if not line.queue.paused), self._cluster.ledger)
        while not self._cluster.full and (line := turns.next()) is not None:
            # A job that cannot start costs its queue no turn.
            while (group := line.peek()) is not None and not self._try_head(line, group):
                line.skip()
                if line.blocked and not self._cluster.config.backfill:
                    break
            else:
                turns.add(line)
        return len(self._cluster.placements) > before

    def _try_head(self, line: Line, group: JobClass) -> bool:
        """Start the oldest job of a class, or learn why none of the class can start."""
        cluster, job = self._cluster, group.head
        never = self._why_never(group.request)
        if never is not None:
            self.because[group] = never
            return False
        guard = Guard(self.reservations, ends_at(cluster.snapshot.now, group.time_limit_s))
        grants = place_gang(cluster.ledger, group.request, guard)
        if len(grants) == group.request.replicas:
            cluster.start(job, grants, self._why_there(grants, line))
            line.started()
            return True
        self.because[group] = self._why_not(group.request, guard, len(grants))
        self._block(line, job)
        return False

    def _why_never(self, request: Request) -> explain.Because | None:
        if request not in self._never:
            self._never[request] = self._cluster.shapes.why_never(request)
        return self._never[request]

    def _why_there(self, grants: list[Grant], line: Line) -> str:
        nodes = self._cluster.ledger.nodes
        names = ", ".join(nodes[number].name for number in sorted({grant.number for grant in grants}))
        passing = "; delays no job ahead of it" if line.blocked else ""
        return f"least left over on {names}{passing}"

    def _why_not(self, request: Request, guard: Guard, placed: int) -> explain.Because:
        """Tell room that is missing from room that is promised."""
        ledger = self._cluster.ledger
        if guard.refused_for is not None:
            mark = ledger.mark()
            placed = len(place_gang(ledger, request, Guard((), inf)))
            ledger.rollback(mark)
            if placed == request.replicas:
                return explain.why_delayed(guard.refused_for, self.queue_names[guard.refused_for])
        return explain.why_no_room(ledger, request, placed)

    def _block(self, line: Line, job: PendingJob) -> None:
        """Reserve for the first job of a line that could start later."""
        if line.blocked:
            return
        cluster = self._cluster
        claim = reserve(job, cluster.ledger, cluster.releases(), self.reservations, cluster.snapshot.now)
        if claim is not None:
            line.blocked = True
            self.queue_names[job.id] = line.queue.name
            self.reservations.append(claim)


def _give_verdicts(cluster: _Cluster, last: _Round) -> Iterator[Verdict]:
    starts_at = {claim.job_id: claim.starts_at for claim in last.reservations if claim.starts_at < inf}
    for line in last.lines:
        paused = explain.why_paused(line.queue.name) if line.queue.paused else None
        for position, (job, group) in enumerate(line.in_order(), start=1):
            because = paused or last.because.get(group) or _why_untried(cluster, position)
            yield Verdict(job.id, because[0], because[1], position, starts_at.get(job.id))


def _why_untried(cluster: _Cluster, position: int) -> explain.Because:
    return explain.PLAN_FULL if cluster.full else explain.why_behind(position)
