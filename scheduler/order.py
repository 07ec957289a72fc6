"""Who is tried next: pending jobs in classes, classes in the lines of their queues, queues by weight."""

from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush
from operator import attrgetter

from scheduler.config import Config
from scheduler.ledger import Ledger
from scheduler.policies import POLICIES, Policy
from scheduler.snapshot import WHOLE, PendingJob, Queue, Request, Snapshot

_AGE = attrgetter("submitted_at", "id")
_CLASS = attrgetter(
    "queue_id", "project_id", "priority", "time_limit_s",
    "request.cpu_milli", "request.memory_bytes", "request.gpu_milli", "request.gpu_model", "request.replicas",
)  # fmt: skip


class JobClass:
    """Jobs that no rule tells apart but by age: where one does not fit, none does; they start oldest first."""

    __slots__ = ("_jobs", "_started", "queue_id", "request", "time_limit_s")

    def __init__(self, jobs: list[PendingJob]) -> None:
        self._jobs = sorted(jobs, key=_AGE)
        self._started = 0
        self.queue_id = jobs[0].queue_id
        self.request = jobs[0].request
        self.time_limit_s = jobs[0].time_limit_s

    @property
    def head(self) -> PendingJob:
        """The oldest job that has not been started."""
        return self._jobs[self._started]

    def waiting(self) -> list[PendingJob]:
        """Return the jobs that have not been started, oldest first."""
        return self._jobs[self._started :]

    @property
    def exhausted(self) -> bool:
        """Whether all have been started."""
        return self._started == len(self._jobs)

    def start_head(self) -> None:
        """Move on to the next job."""
        self._started += 1


class Line:
    """The classes of one queue, first by its policy in front; each is tried until it fails once.

    `blocked` is set once a job that could start later has failed: later jobs pass it only by backfill.
    """

    def __init__(self, queue: Queue, policy: Policy, classes: list[JobClass], ledger: Ledger) -> None:
        self.queue = queue
        self.classes = [group for group in classes if not group.exhausted]
        self.blocked = False
        self._ledger = ledger
        self._policy = policy
        self._untried = [(policy(group.head, ledger), group) for group in self.classes]
        heapify(self._untried)

    def peek(self) -> JobClass | None:
        """Return the class whose head is next, None when all have been tried."""
        while self._untried:
            key, group = self._untried[0]
            present = self._policy(group.head, self._ledger)
            if present == key:
                return group
            # Starting jobs lowers the rank of their project's others; keys only grow, so repairing the first is enough.
            heappop(self._untried)
            heappush(self._untried, (present, group))
        return None

    def started(self) -> None:
        """Note that the head that `peek` named has been started."""
        _, group = heappop(self._untried)
        group.start_head()
        if not group.exhausted:
            heappush(self._untried, (self._policy(group.head, self._ledger), group))

    def skip(self) -> None:
        """Leave the class that `peek` named alone for the rest of this round."""
        heappop(self._untried)

    def in_order(self) -> Iterator[tuple[PendingJob, JobClass]]:
        """Yield every waiting job with its class, in the order in which they are to start."""
        waiting = [(job, group) for group in self.classes for job in group.waiting()]
        if len(self.classes) > 1:
            waiting.sort(key=lambda pair: self._policy(pair[0], self._ledger))
        return iter(waiting)


def group_pending(pending: Sequence[PendingJob]) -> list[JobClass]:
    """Gather jobs into classes. Raises ValueError for a job that comes twice or asks for what there cannot be."""
    groups: dict[object, list[PendingJob]] = {}
    for job in pending:
        key = _CLASS(job)
        group = groups.get(key)
        if group is None:
            _check(job)
            groups[key] = [job]
        else:
            group.append(job)
    if len({job.id for job in pending}) < len(pending):
        raise ValueError("two pending jobs of the snapshot have the same id")
    return [JobClass(jobs) for jobs in groups.values()]


def form_lines(snapshot: Snapshot, config: Config, classes: list[JobClass], ledger: Ledger) -> list[Line]:
    """Stand the classes in the lines of their queues, by queue name. Raises ValueError for an unknown name."""
    of_queue: dict[str, list[JobClass]] = {queue.id: [] for queue in snapshot.queues}
    for group in classes:
        if group.queue_id not in of_queue:
            raise ValueError(f"jobs wait in queue {group.queue_id!r}, which the snapshot lacks")
        of_queue[group.queue_id].append(group)
    return [
        Line(queue, _policy_of(queue, config), of_queue[queue.id], ledger)
        for queue in sorted(snapshot.queues, key=lambda queue: (queue.name, queue.id))
        if of_queue[queue.id]
    ]


class Turns:
    """Whose line is served next: the queue that holds least for its weight, then the one whose head is oldest.

    Counting what runs, rather than turns within one plan, keeps the weights true when each plan starts one job.
    """

    def __init__(self, lines: Iterable[Line], ledger: Ledger) -> None:
        self._ledger = ledger
        self._ranked: list[tuple[int, float, str, str, Line]] = []
        for line in lines:
            self.add(line)

    def add(self, line: Line) -> None:
        """Let a line with a job to try take part; one without is left out."""
        group = line.peek()
        if group is not None:
            queue = line.queue
            held = self._ledger.usage.of_queue(queue.id) * WHOLE // queue.weight
            heappush(self._ranked, (held, group.head.submitted_at, queue.name, queue.id, line))

    def next(self) -> Line | None:
        """Take the line out that is next, None when all are through."""
        return heappop(self._ranked)[-1] if self._ranked else None


def _policy_of(queue: Queue, config: Config) -> Policy:
    name = queue.policy or config.policy
    if name not in POLICIES:
        raise ValueError(f"queue {queue.name!r} asks for policy {name!r}; there are {', '.join(sorted(POLICIES))}")
    if queue.weight < 1:
        raise ValueError(f"queue {queue.name!r} has weight {queue.weight}; it must be at least 1")
    return POLICIES[name]


def _check(job: PendingJob) -> None:
    request: Request = job.request
    if min(request.cpu_milli, request.memory_bytes, request.gpu_milli) < 0 or request.replicas < 1:
        raise ValueError(f"job {job.id} asks for a negative amount or for no replica")
    if request.gpu_milli > WHOLE and request.gpu_milli % WHOLE:
        raise ValueError(f"job {job.id} asks for {request.gpu_milli} milli-GPU: neither whole nor a share")
