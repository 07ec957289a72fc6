"""Who is tried next: pending jobs in classes, classes in the lines of their queues, queues by weight."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from heapq import heapify, heappop, heappush, heapreplace
from math import inf
from operator import attrgetter
from typing import Any

from scheduler.admission import Admission
from scheduler.amounts import asked
from scheduler.backfill import Claim
from scheduler.policies import Rank, by_age, rank_in_account, rank_of, stays
from scheduler.snapshot import WHOLE, JobClass, PendingJob, Queue
from scheduler.standing import Standing

AGE: Rank = attrgetter("submitted_at", "id")


class Waiting:
    """The jobs of one class that wait: where one does not fit, none does; they start oldest first, or by `rank`.

    `asked` is what each of them holds at the least. `tried_at` is the ledger's `gains`, and the pools in reach, when its
    first job last found no place; `refused_by` are the claims that were in its way, if there was room: until there is
    more, or those claims are others, none will.
    """

    __slots__ = ("_first", "_jobs", "_rank", "asked", "job_class", "refused_by", "tried_at")

    def __init__(self, job_class: JobClass, jobs: Iterable[PendingJob] = (), rank: Rank = AGE) -> None:
        self.job_class = job_class
        self.asked = asked(job_class)
        self.tried_at: tuple[int, frozenset[str] | None] = (-1, None)
        self.refused_by: tuple[Claim, ...] = ()
        self._rank = rank
        self._jobs = sorted(jobs, key=rank)
        self._first = 0

    def __len__(self) -> int:
        return len(self._jobs) - self._first

    @property
    def head(self) -> PendingJob:
        """The first job. Raises IndexError where none waits."""
        return self._jobs[self._first]

    def jobs(self) -> Sequence[PendingJob]:
        """Return those that wait, first to start first."""
        return self._jobs[self._first :] if self._first else self._jobs

    def add(self, job: PendingJob) -> None:
        """Let one more job wait."""
        insort(self._jobs, job, lo=self._first, key=self._rank)

    def remove(self, job: PendingJob) -> None:
        """Let a job wait no longer. Raises KeyError if it does not."""
        if self and self._jobs[self._first] is job:  # mostly it starts: no need to look for its place
            self._take_head()
            return
        place = bisect_left(self._jobs, self._rank(job), lo=self._first, key=self._rank)
        if place == len(self._jobs) or self._jobs[place].id != job.id:
            raise KeyError(job.id)
        if place == self._first:
            self._take_head()
        else:
            del self._jobs[place]

    def _take_head(self) -> None:
        self._first += 1
        if self._first * 2 > len(self._jobs):  # half of it is gone: moving the rest costs less than it did to get here
            del self._jobs[: self._first]
            self._first = 0

    def sort(self, rank: Rank) -> None:
        """Put the jobs in another order."""
        self._rank = rank
        self._jobs = sorted(self.jobs(), key=rank)
        self._first = 0

    @property
    def last(self) -> PendingJob:
        """The last job. Raises IndexError where none waits."""
        return self._jobs[-1]

    def count_before(self, key: tuple[Any, ...], rank: Rank) -> int:
        """Count the jobs whose key is lower than `key`."""
        return bisect_left(self._jobs, key, lo=self._first, key=rank) - self._first


_Party = list[tuple[tuple[Any, ...], Waiting]]
"""A heap of the classes of one account, which no start puts in another order."""

_Ranked = tuple[tuple[Any, ...], int, _Party]
"""The key of its first class's head, the version of the usage by which it was found, and a party."""


class Line:
    """What waits in one queue, first by its policies in front; in a round each class is tried until it fails once.

    `blocked` counts the jobs that have failed in the round and could start later: others pass them only by backfill.
    """

    def __init__(self, queue: Queue, standing: Standing) -> None:
        if queue.weight < 1:
            raise ValueError(f"queue {queue.name!r} has weight {queue.weight}; it must be at least 1")
        self.queue = queue
        self.blocked = 0
        self._classes: dict[JobClass, Waiting] = {}
        self._standing = standing
        self._rank = rank_of(queue, standing)
        # In which order the rest of the round is tried: by rank, unless the shortest come first.
        self._order = self._rank
        self._order_in_account = rank_in_account(queue, standing)
        # Where no start puts anybody in another place, nobody's rank needs to be looked at twice.
        self._stays = stays(queue, standing)
        self._untried: list[_Ranked] = []

    def __bool__(self) -> bool:
        return bool(self._classes)

    def add(self, job: PendingJob) -> None:
        """Stand a job in line."""
        group = self._classes.get(job.job_class)
        if group is None:
            self.add_all(job.job_class, [job])
        else:
            group.add(job)

    def add_all(self, job_class: JobClass, jobs: Iterable[PendingJob]) -> None:
        """Stand all jobs of a class, so far unknown, in line at once."""
        self._classes[job_class] = Waiting(job_class, jobs, self._rank_in_class())

    def sort(self) -> None:
        """Put the jobs of each class in order anew: what is lent to them by others has changed."""
        for group in self._classes.values():
            group.sort(self._rank_in_class())

    def _rank_in_class(self) -> Rank:
        # Reading two attributes costs a third of ranking: 100,000 jobs are sorted when a planner begins.
        return AGE if by_age(self.queue, self._standing) else self._rank

    def remove(self, job: PendingJob) -> None:
        """Take a job out of the line. Raises KeyError if it does not stand there."""
        group = self._classes[job.job_class]
        group.remove(job)
        if not group:
            del self._classes[job.job_class]

    def groups(self) -> Iterable[Waiting]:
        """Return all that waits, class by class."""
        return self._classes.values()

    def jobs(self) -> list[PendingJob]:
        """Return every job, in the order in which they are to start."""
        jobs = [job for group in self._classes.values() for job in group.jobs()]
        return sorted(jobs, key=self._rank)

    def begin_round(self) -> None:
        """Have every class tried again."""
        self.blocked = 0
        parties: dict[object, _Party] = {}
        self._order = self._rank
        self._order_in_account = rank = rank_in_account(self.queue, self._standing)
        for group in self._classes.values():
            job_class = group.job_class
            account: object = group if rank is None else (job_class.project_id, job_class.user_id)
            parties.setdefault(account, []).append(((), group) if rank is None else (rank(group.head), group))
        for party in parties.values():
            heapify(party)
        version = self._standing.usage.version
        self._untried = [(self._rank(party[0][1].head), version, party) for party in parties.values()]
        heapify(self._untried)

    def shortest_first(self) -> None:
        """Have what is left of the round tried by length, then by rank."""
        rank, expects = self._rank, self._standing.config.predictions
        if self._order is rank:
            self._order = lambda job: (_length_s(job, expects=expects), *rank(job))
            self._order_in_account = None
            version = self._standing.usage.version
            groups = [group for _, _, party in self._untried for _, group in party]
            self._untried = [(self._order(group.head), version, [((), group)]) for group in groups]
            heapify(self._untried)

    def peek(self) -> Waiting | None:
        """Return the class whose head is next, None when all have been tried."""
        version = self._standing.usage.version
        while self._untried:
            key, known_at, party = self._untried[0]
            group = party[0][1]
            if self._stays or known_at == version:
                return group
            present = self._order(group.head)
            # Starting jobs lowers the rank of their project's others; keys only grow, so repairing the first is enough.
            heapreplace(self._untried, (present, version, party))
            if present == key:
                return group
        return None

    def start(self) -> None:
        """Take out of the line the head that `peek` named."""
        party = self._untried[0][2]
        group = party[0][1]
        group.remove(group.head)
        if group:
            heapreplace(party, (self._order_in_account(group.head) if self._order_in_account else (), group))
        else:
            heappop(party)
            del self._classes[group.job_class]
        self._rank_party()

    def skip(self) -> None:
        """Leave the class that `peek` named alone for the rest of this round."""
        heappop(self._untried[0][2])
        self._rank_party()

    def _rank_party(self) -> None:
        """Put the first party where its first class belongs now."""
        party = self._untried[0][2]
        if party:
            version = self._standing.usage.version
            heapreplace(self._untried, (self._order(party[0][1].head), version, party))
        else:
            heappop(self._untried)

    def in_order(self) -> Iterator[tuple[int, Waiting]]:
        """Yield every class, by its first job, with that job's place in the queue, from 1."""
        rank = self._rank
        ranked = sorted((rank(group.head), rank(group.last), group) for group in self._classes.values())
        for place, (key, _, group) in enumerate(ranked):
            # Of those whose first job goes before this one, the others' being behind it.
            before = (len(other) if last < key else other.count_before(key, rank) for _, last, other in ranked[:place])
            yield 1 + sum(before), group


def form_lines(queues: Iterable[Queue], standing: Standing) -> dict[str, Line]:
    """A line for each queue, by its id, in the order of names. Raises ValueError for an unknown policy."""
    ordered = sorted(queues, key=lambda queue: (queue.name, queue.id))
    return {queue.id: Line(queue, standing) for queue in ordered}


def _length_s(job: PendingJob, *, expects: bool) -> float:
    """Return how long a job may run, or is expected to, if that is less."""
    limit_s = job.job_class.time_limit_s
    most_s = inf if limit_s is None else limit_s
    return min(most_s, job.expected_s) if expects and job.expected_s is not None else most_s


class Turns:
    """Whose line is served next: the pool that borrows least, the queue that holds least for its weight, the oldest head.

    Counting what runs, rather than turns within one plan, keeps the weights true when each plan starts one job.
    """

    def __init__(self, lines: Iterable[Line], admission: Admission) -> None:
        self._admission = admission
        self._ranked: list[tuple[tuple[int, ...], int, float, str, str, Line]] = []
        for line in lines:
            self.add(line)

    def add(self, line: Line) -> None:
        """Let a line with a job to try take part; one without is left out."""
        group = line.peek()
        if group is not None:
            queue = line.queue
            turn = self._admission.turn(group.job_class, group.asked)
            held = self._admission.usage.of_queue(queue.id) * WHOLE // queue.weight
            heappush(self._ranked, (turn, held, group.head.submitted_at, queue.name, queue.id, line))

    def next(self) -> Line | None:
        """Take the line out that is next, None when all are through."""
        return heappop(self._ranked)[-1] if self._ranked else None


def check(job_class: JobClass) -> None:
    """Raise ValueError for a class that asks for what there cannot be."""
    for role in job_class.roles:
        request = role.request
        if min(request.cpu_milli, request.memory_bytes, request.gpu_milli) < 0 or not 1 <= role.least <= role.most:
            raise ValueError(f"{job_class} asks for a negative amount or for no replica")
        if request.gpu_milli > WHOLE and request.gpu_milli % WHOLE:
            raise ValueError(f"{job_class} asks for {request.gpu_milli} milli-GPU: neither whole nor a share")
    if not job_class.roles:
        raise ValueError(f"{job_class} has no role")
