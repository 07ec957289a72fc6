"""The life of a cluster, at random: a planner that is kept is never wrong, and plans as one that reads all anew."""

from dataclasses import replace
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from scheduler.engine import Planner, plan
from scheduler.snapshot import Holding, JobClass, PendingJob, RunningJob, Snapshot
from tests.support.clusters import applied, given_back, without
from tests.support.floors import Floor
from tests.support.judge import Judge
from tests.support.landscapes import (
    a_blocked_job,
    a_booking,
    a_config,
    a_kind_of_job,
    a_landscape,
    a_pool,
    a_queue,
    a_running_job,
    some_accounts,
)

seeds = st.integers(0, 2**32)
MOST_WAITING = 10


class Life(RuleBasedStateMachine):
    """Whatever is told to the planner is done to the snapshot as well; a plan is made of both, judged, and applied."""

    planner: Planner
    present: Snapshot
    kinds: list[JobClass]
    come = 0

    @initialize(seed=seeds, nodes=st.integers(1, 4))
    def begin(self, seed: int, nodes: int) -> None:
        random = Random(seed)
        config = a_config(random)
        # Conservative promises are made in the order of arrival, which a snapshot does not tell.
        self.config = replace(config, reserved_heads=config.reserved_heads or 1)
        self.present = a_landscape(random, nodes, 5, 3)
        self.kinds = [a_kind_of_job(random) for _ in range(4)]
        self.planner = Planner(self.present, self.config)

    # What users do

    @precondition(lambda self: len(self.present.pending) < MOST_WAITING)
    @rule(seed=seeds)
    def submit(self, seed: int) -> None:
        random = Random(seed)
        self._submit(
            PendingJob(
                self._name("s"), self.present.now, random.choice(self.kinds), expected_s=random.choice((None, 40.0))
            )
        )

    @precondition(lambda self: self.present.pending)
    @rule(seed=seeds)
    def withdraw(self, seed: int) -> None:
        gone = Random(seed).choice(self.present.pending)
        self.planner.withdraw(gone.id)
        self.present = replace(self.present, pending=tuple(job for job in self.present.pending if job is not gone))

    @precondition(lambda self: any(job.releasing_at is None for job in self.present.running))
    @rule(seed=seeds)
    def cancel(self, seed: int) -> None:
        told = Random(seed).choice([job for job in self.present.running if job.releasing_at is None])
        by = self.present.now + 10
        self.planner.evicting(told.id, by)
        self._change(told, replace(told, releasing_at=by))

    @rule(seed=seeds)
    def depend(self, seed: int) -> None:
        random = Random(seed)
        blocked = tuple(a_blocked_job(random, self.present.pending, number) for number in range(random.randint(0, 2)))
        self.planner.block(blocked)
        self.present = replace(self.present, blocked=blocked)

    # What nodes do

    @precondition(lambda self: self.present.running)
    @rule(seed=seeds, again=st.booleans())
    def end(self, seed: int, again: bool) -> None:
        """A job ends, perhaps to wait again: where it is to go on, if it was promised that."""
        gone = Random(seed).choice(self.present.running)
        self.planner.end(gone.id)
        self._free(gone.holdings)
        self.present = replace(self.present, running=tuple(job for job in self.present.running if job is not gone))
        if again:
            self._submit(PendingJob(gone.id, gone.started_at, gone.job_class, owed=gone.owed))

    @precondition(lambda self: self._shrinking())
    @rule(seed=seeds)
    def give_up(self, seed: int) -> None:
        """Replicas that were told to end have done so."""
        job = Random(seed).choice(self._shrinking())
        places = [place for place, one in enumerate(job.holdings) if one.releasing_at is not None]
        self.planner.give_up(job.id, places)
        self._free(tuple(job.holdings[place] for place in places))
        self._change(job, replace(job, holdings=tuple(one for one in job.holdings if one.releasing_at is None)))

    @precondition(lambda self: len(self.present.running) < MOST_WAITING)
    @rule(seed=seeds)
    def hold(self, seed: int) -> None:
        """Somebody holds something that no plan gave."""
        random, floors = Random(seed), self._floors()
        job = a_running_job(random, floors, self._name("h"), random.choice(self.kinds))
        if job is not None:
            self.planner.hold(job)
            nodes = tuple(floors[node.id].left(node) for node in self.present.nodes)
            self.present = replace(self.present, nodes=nodes, running=(*self.present.running, job))

    # What operators do

    @rule(seed=seeds)
    def book(self, seed: int) -> None:
        random = Random(seed)
        count = random.randint(0, 2)
        booked = tuple(a_booking(random, self.present.nodes, number, self.present.now) for number in range(count))
        self.planner.book(booked)
        self.present = replace(self.present, reservations=booked)

    @rule(seed=seeds, what=st.sampled_from(["drain", "limits", "policy"]))
    def change(self, seed: int, what: str) -> None:
        """What a planner cannot be told: it is made anew."""
        random = Random(seed)
        if what == "drain":
            nodes = tuple(replace(node, ready=random.random() < 0.7) for node in self.present.nodes)
            self.present = replace(self.present, nodes=nodes)
        elif what == "limits":
            pools = tuple(a_pool(random, pool.id) for pool in self.present.pools)
            queues = tuple(a_queue(random, number) for number in range(3))
            self.present = replace(self.present, pools=pools, queues=queues, accounts=some_accounts(random))
        else:
            self.config = replace(a_config(random), reserved_heads=random.choice((1, 2)))
        self.planner = Planner(self.present, self.config)

    @rule(seconds=st.sampled_from([0, 1, 30, 61, 400]))
    def plan(self, seconds: int) -> None:
        self.present = replace(self.present, now=self.present.now + seconds)
        made = plan(self.present, self.config)
        assert list(Judge(self.present, made, self.config).faults()) == []
        assert self.planner.plan(self.present.now) == made
        self.present = applied(self.present, made)

    def _name(self, letter: str) -> str:
        self.come += 1
        return f"{letter}{self.come:03}"

    def _submit(self, job: PendingJob) -> None:
        self.planner.submit(job)
        self.present = replace(self.present, pending=(*self.present.pending, job))

    def _change(self, job: RunningJob, changed: RunningJob) -> None:
        running = tuple(changed if one is job else one for one in self.present.running)
        self.present = replace(self.present, running=running)

    def _free(self, holdings: tuple[Holding, ...]) -> None:
        back = [given_back(holding) for holding in holdings]
        self.present = replace(self.present, nodes=tuple(without(node, back) for node in self.present.nodes))

    def _shrinking(self) -> list[RunningJob]:
        return [
            job
            for job in self.present.running
            if any(one.releasing_at is not None for one in job.holdings)
            and any(one.releasing_at is None for one in job.holdings)
        ]

    def _floors(self) -> dict[str, Floor]:
        floors = {node.id: Floor(node) for node in self.present.nodes}
        for job in self.present.running:
            for one in job.holdings:
                floors[one.node_id].lay(one.slices)
        return floors


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=max(10, settings().max_examples // 4), stateful_step_count=30)
