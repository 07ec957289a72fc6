"""A clock around the scheduler: the same `Planner` as everywhere else, told what happens when it happens."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from scheduler.config import Config
from scheduler.engine import Planner
from scheduler.gang import needed
from scheduler.plan import Eviction, Placement, Plan, ReplicaPlacement, Resize
from scheduler.predictions import Predictions
from scheduler.simulator.events import Calendar, Event, Kind
from scheduler.simulator.workload import QUEUE_ID, Outage, Work, Workload
from scheduler.snapshot import (
    UNLIMITED,
    Account,
    Holding,
    JobClass,
    Node,
    PendingJob,
    Pool,
    Queue,
    Request,
    Role,
    RunningJob,
    Snapshot,
)

BATCH = Queue(QUEUE_ID, "batch")
_REPAIR = JobClass("", QUEUE_ID, (Role(Request(0, 0)),), priority=UNLIMITED, preemptible=False)


class Outcome(StrEnum):
    """How a stay on the cluster ended."""

    FINISHED = "finished"
    OUT_OF_TIME = "out_of_time"
    FAILED = "failed"
    EVICTED = "evicted"
    NODE_LOST = "node_lost"
    RESIZED = "resized"
    STILL_RUNNING = "still_running"


LAST = frozenset({Outcome.FINISHED, Outcome.OUT_OF_TIME})
"""What a job does not come back from."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A cluster, whole and empty, and what is asked of it; nothing is looked at after `until`."""

    nodes: tuple[Node, ...]
    workload: Workload
    queues: tuple[Queue, ...] = (BATCH,)
    accounts: tuple[Account, ...] = ()
    pools: tuple[Pool, ...] = ()
    levels: tuple[str, ...] = ()
    outages: tuple[Outage, ...] = ()
    until: float = inf


@dataclass(frozen=True, slots=True)
class Span:
    """A stay of one job on the cluster, on the same replicas throughout."""

    work: Work
    started_at: float
    ended_at: float
    replicas: tuple[ReplicaPlacement, ...]
    outcome: Outcome


@dataclass(slots=True)
class History:
    """What happened, in the order in which it ended."""

    scenario: Scenario
    spans: list[Span] = field(default_factory=list)
    evictions: int = 0
    plans: int = 0
    ended_at: float = 0.0


@dataclass(slots=True)
class _Stay:
    """A job that runs; `number` tells the end that is in the calendar from one that no longer holds."""

    work: Work
    started_at: float
    replicas: tuple[ReplicaPlacement, ...]
    outcome: Outcome
    ends_at: float
    limit_at: float
    number: int


@dataclass(slots=True)
class _Course:
    """What is known of a job across its stays: the seconds of work that count, the attempts, the evictions behind it."""

    done_s: float = 0
    attempts: int = 0
    restarting: bool = False


Watch = Callable[[float, Plan], None]
Progress = Callable[[int], None]


class Simulation:
    """One run of a scenario. `watch` sees every plan when it is made, `progress` how many jobs have left."""

    def __init__(
        self, scenario: Scenario, config: Config, *, watch: Watch | None = None, progress: Progress | None = None
    ) -> None:
        self._scenario = scenario
        self._config = config
        self._watch = watch
        self._progress = progress
        start = Snapshot(
            now=0.0,
            nodes=scenario.nodes,
            queues=scenario.queues,
            pending=(),
            pools=scenario.pools,
            accounts=scenario.accounts,
            levels=scenario.levels,
        )
        self._planner = Planner(start, config)
        self._predictions = Predictions()
        self._calendar: Calendar[tuple[Work, int] | Outage] = Calendar()
        self._waiting: dict[str, Work] = {}
        self._stays: dict[str, _Stay] = {}
        self._courses: dict[str, _Course] = {}
        self._nodes = {node.id: node for node in scenario.nodes}
        self._due = inf
        self._left = 0
        self._stays_begun = 0
        self.history = History(scenario)

    def run(self) -> History:
        """Let everything happen until nothing is left or the scenario's time is over."""
        for work in self._scenario.workload.works:
            self._calendar.enter(work.submitted_at, Kind.ARRIVAL, (work, 0))
        for outage in self._scenario.outages:
            self._calendar.enter(outage.starts_at, Kind.NODE_DOWN, outage)
        while self._calendar or self._due < inf:
            # A promise may fall due when nothing happens, such as when a reservation ends.
            now, events = self._calendar.next_instant() if self._calendar.first_at <= self._due else (self._due, [])
            if now > self._scenario.until:
                break
            for event in events:
                self._happen(event, now)
            self._due = inf
            if self._waiting:
                self._plan(now)
            self.history.ended_at = now
        self._break_off()
        return self.history

    def _happen(self, event: Event[tuple[Work, int] | Outage], now: float) -> None:
        if isinstance(event.subject, Outage):
            self._break_down(event.subject, now)
            return
        work, number = event.subject
        if event.kind is Kind.ARRIVAL:
            self._submit(work)
        elif (stay := self._stays.get(work.id)) is not None and stay.number == number:
            self._end(stay, now)

    def _break_down(self, outage: Outage, now: float) -> None:
        """Let a node hold itself until it is repaired: nothing else can be on it meanwhile."""
        if now >= outage.ends_at:
            self._planner.end(f"repair of {outage.node_id}")
            return
        lost = [stay for stay in self._stays.values() if outage.node_id in {one.node_id for one in stay.replicas}]
        for stay in sorted(lost, key=lambda stay: stay.number):
            stay.outcome = Outcome.NODE_LOST
            self._end(stay, now)
        node = self._nodes[outage.node_id]
        gpus = tuple((device, milli) for device, milli in enumerate(node.gpu_milli_free) if milli)
        whole = Holding(node.id, node.cpu_milli_free, node.memory_bytes_free, gpus)
        self._planner.hold(RunningJob(f"repair of {node.id}", _REPAIR, (whole,), started_at=now))
        self._calendar.enter(outage.ends_at, Kind.NODE_UP, outage)

    def _submit(self, work: Work) -> None:
        self._waiting[work.id] = work
        limit_s = work.job_class.time_limit_s
        self._planner.submit(
            PendingJob(
                id=work.id,
                submitted_at=work.submitted_at,
                job_class=work.job_class,
                deadline=work.deadline,
                expected_s=self._predictions.expect(work.owner, limit_s),
            )
        )

    def _plan(self, now: float) -> None:
        while True:
            made = self._planner.decide(now)
            self.history.plans += 1
            if self._watch is not None:
                self._watch(now, made)
            for eviction in made.evictions:
                self._evict(eviction, now)
            for resize in made.resizes:
                self._resize(resize, now)
            for placement in made.placements:
                self._start(placement, now)
            if len(made.placements) < self._config.max_placements:
                self._due = min((one.starts_at for one in made.promises if one.starts_at > now), default=inf)
                return

    def _start(self, placement: Placement, now: float) -> None:
        work = self._waiting.pop(placement.job_id)
        course = self._courses.setdefault(work.id, _Course())
        limit_s = work.job_class.time_limit_s
        limit_at = inf if limit_s is None else now + limit_s
        self._begin(work, course, placement.replicas, now, limit_at)

    def _begin(
        self, work: Work, course: _Course, replicas: tuple[ReplicaPlacement, ...], now: float, limit_at: float
    ) -> None:
        """Enter the end of a stay: of the work, of an attempt that fails, or of the time allowed."""
        run_s = work.run_s - course.done_s
        outcome = Outcome.FINISHED
        if course.restarting:
            run_s += self._config.restart_s
        if course.attempts < len(work.failures) and work.failures[course.attempts] < run_s:
            run_s, outcome = work.failures[course.attempts], Outcome.FAILED
        rate = len(replicas) / needed(work.job_class)
        ends_at = now + (run_s if rate == 1.0 else run_s / rate)
        if ends_at > limit_at:
            ends_at, outcome = limit_at, Outcome.OUT_OF_TIME
        self._stays_begun += 1
        self._stays[work.id] = _Stay(work, now, replicas, outcome, ends_at, limit_at, self._stays_begun)
        self._calendar.enter(ends_at, Kind.END, (work, self._stays_begun))

    def _end(self, stay: _Stay, now: float) -> None:
        work, outcome = stay.work, stay.outcome
        del self._stays[work.id]
        self._planner.end(work.id)
        self.history.spans.append(Span(work, stay.started_at, now, stay.replicas, outcome))
        course = self._courses[work.id]
        if outcome in LAST:
            del self._courses[work.id]
            self._predictions.learn(work.owner, now - stay.started_at)
            self._left += 1
            if self._progress is not None:
                self._progress(self._left)
            return
        if outcome is Outcome.FAILED:
            course.attempts += 1
        self._submit(work)

    def _evict(self, eviction: Eviction, now: float) -> None:
        """Let a job end within its grace, which it uses if it saves its state; what it saved counts when it returns."""
        stay = self._stays[eviction.job_id]
        course = self._courses[eviction.job_id]
        self.history.evictions += 1
        ends_at = now + eviction.grace_s if eviction.checkpoint else now
        if eviction.checkpoint:
            course.done_s += self._done_s(stay, course, ends_at)
        course.restarting = eviction.checkpoint
        stay.outcome = Outcome.EVICTED
        stay.ends_at = min(ends_at, stay.ends_at)
        self._stays_begun += 1
        stay.number = self._stays_begun
        self._calendar.enter(stay.ends_at, Kind.END, (stay.work, stay.number))

    def _resize(self, resize: Resize, now: float) -> None:
        """Go on with more replicas or with fewer, in proportion faster or slower."""
        stay = self._stays.pop(resize.job_id)
        course = self._courses[resize.job_id]
        course.done_s += self._done_s(stay, course, now)
        course.restarting = False
        self.history.spans.append(Span(stay.work, stay.started_at, now, stay.replicas, Outcome.RESIZED))
        kept = tuple(one for place, one in enumerate(stay.replicas) if place not in resize.removed)
        self._begin(stay.work, course, kept + resize.added, now, stay.limit_at)

    def _done_s(self, stay: _Stay, course: _Course, until: float) -> float:
        """How much of its work a job has got done in this stay."""
        elapsed = (until - stay.started_at) * len(stay.replicas) / needed(stay.work.job_class)
        overhead = self._config.restart_s if course.restarting else 0.0
        return min(max(elapsed - overhead, 0.0), stay.work.run_s - course.done_s)

    def _break_off(self) -> None:
        """Note the stays that the end of the scenario cut short."""
        until = self._scenario.until
        for stay in self._stays.values():
            self.history.spans.append(Span(stay.work, stay.started_at, until, stay.replicas, Outcome.STILL_RUNNING))
        if until < inf:
            self.history.ended_at = until


def simulate(
    scenario: Scenario, config: Config, *, watch: Watch | None = None, progress: Progress | None = None
) -> History:
    """Run a scenario from an empty cluster to its end."""
    return Simulation(scenario, config, watch=watch, progress=progress).run()
