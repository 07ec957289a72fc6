"""What holds over time, for every load: starts equal the textbook's, promises are kept, nobody starves."""

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.config import Config
from scheduler.plan import Plan
from scheduler.simulator.cluster import NodeGroup, build_nodes, one_machine, one_node_a_processor
from scheduler.simulator.run import LAST, Scenario, Simulation
from tests.support import oracle
from tests.support.oracle import Asked
from tests.support.simulations import CONSERVATIVE, DEFAULT, EASY, FIFO, SJBF, run, starts, works

SIZE = 8
UNEQUAL = build_nodes([NodeGroup("small", 2, cpu_milli=1000), NodeGroup("wide", 2, cpu_milli=3000)])
CONFIGS = ["fifo", "easy", "easy-sjbf", "conservative", "default"]

asked = st.builds(
    lambda submitted_at, processors, limit_s, early_s: Asked(
        submitted_at, processors, limit_s, max(1, limit_s - early_s)
    ),
    st.integers(0, 60),
    st.integers(1, SIZE),
    st.integers(1, 40),
    st.sampled_from([0, 0, 1, 5, 30]),
)
loads = st.lists(asked, min_size=1, max_size=25)
exact_loads = st.lists(asked.map(lambda job: job._replace(run_s=job.limit_s)), min_size=1, max_size=25)


@given(loads)
def test_fifo_starts_as_in_the_textbook(jobs: list[Asked]) -> None:
    assert starts(run(jobs, SIZE, FIFO)) == oracle.fifo(jobs, SIZE)


@given(loads)
def test_easy_starts_as_in_the_textbook(jobs: list[Asked]) -> None:
    assert starts(run(jobs, SIZE, EASY)) == oracle.easy(jobs, SIZE)


@given(loads)
def test_shortest_first_backfill_starts_as_in_the_textbook(jobs: list[Asked]) -> None:
    assert starts(run(jobs, SIZE, SJBF)) == oracle.easy(jobs, SIZE, shortest=True)


@given(loads)
def test_conservative_backfill_starts_as_in_the_textbook(jobs: list[Asked]) -> None:
    assert starts(run(jobs, SIZE, CONSERVATIVE)) == oracle.conservative(jobs, SIZE)


@pytest.mark.parametrize("config", [FIFO, EASY, SJBF, DEFAULT], ids=["fifo", "easy", "easy-sjbf", "default"])
@given(jobs=loads)
@settings(max_examples=50)
def test_nodes_of_one_processor_start_jobs_as_one_machine_does(config: Config, jobs: list[Asked]) -> None:
    assert starts(run(jobs, SIZE, config, nodes=one_node_a_processor(SIZE))) == starts(run(jobs, SIZE, config))


@given(exact_loads)
def test_with_exact_limits_no_head_starts_later_than_it_was_first_promised(jobs: list[Asked]) -> None:
    promised = Promises()
    history = run(jobs, SIZE, EASY, watch=promised)
    assert promised.broken(starts(history)) == {}


@given(loads)
def test_under_conservative_backfill_nobody_starts_later_than_first_promised(jobs: list[Asked]) -> None:
    promised = Promises()
    history = run(jobs, SIZE, CONSERVATIVE, watch=promised)
    assert promised.broken(starts(history)) == {}


@given(loads)
def test_on_many_nodes_too_conservative_promises_are_kept(jobs: list[Asked]) -> None:
    promised = Promises()
    history = run(jobs, SIZE, CONSERVATIVE, nodes=UNEQUAL, watch=promised)
    assert promised.broken(starts(history)) == {}


@given(exact_loads, st.integers(1, 4))
def test_heads_that_are_reserved_for_start_by_their_first_promise(jobs: list[Asked], heads: int) -> None:
    promised = Promises(only_first=True)
    history = run(jobs, SIZE, replace(EASY, reserved_heads=heads), nodes=UNEQUAL, watch=promised)
    assert promised.broken(starts(history)) == {}


class Promises:
    """Remembers the first start that each job is promised; `only_first`: of each plan only the first promise."""

    def __init__(self, *, only_first: bool = False) -> None:
        self._first: dict[str, float] = {}
        self._only_first = only_first

    def __call__(self, now: float, made: Plan) -> None:
        for promise in made.promises[:1] if self._only_first else made.promises:
            self._first.setdefault(promise.job_id, promise.starts_at)

    def broken(self, started: list[int]) -> dict[str, float]:
        """The promises that were not kept."""
        return {job_id: at for job_id, at in self._first.items() if started[int(job_id)] > at}


@pytest.mark.parametrize("config", [FIFO, EASY, SJBF, CONSERVATIVE, DEFAULT], ids=CONFIGS)
@given(jobs=loads)
@settings(max_examples=30)
def test_deciding_again_in_the_same_moment_starts_nothing(config: Config, jobs: list[Asked]) -> None:
    repeated: list[Plan] = []
    simulation = Simulation(
        Scenario(one_machine(SIZE), works(jobs)),
        config,
        watch=lambda now, made: repeated.append(simulation._planner.decide(now)),
    )
    simulation.run()
    assert [again.placements for again in repeated if again.placements] == []


@pytest.mark.parametrize("config", [FIFO, EASY, SJBF, CONSERVATIVE, DEFAULT], ids=CONFIGS)
@given(jobs=loads)
@settings(max_examples=30)
def test_every_job_of_a_finite_load_starts_and_ends(config: Config, jobs: list[Asked]) -> None:
    history = run(jobs, SIZE, config, nodes=UNEQUAL)
    assert sorted(span.work.id for span in history.spans if span.outcome in LAST) == [
        f"{number:04}" for number in range(len(jobs))
    ]


@pytest.mark.parametrize("config", [FIFO, EASY, SJBF, CONSERVATIVE, DEFAULT], ids=CONFIGS)
@given(jobs=loads)
@settings(max_examples=30)
def test_no_processor_is_held_twice_at_any_time(config: Config, jobs: list[Asked]) -> None:
    history = run(jobs, SIZE, config, nodes=UNEQUAL)
    for moment in {span.started_at for span in history.spans}:
        held: Counter[str] = Counter()
        for span in history.spans:
            if span.started_at <= moment < span.ended_at:
                held.update(replica.node_id for replica in span.replicas)
        assert all(count * 1000 <= node.cpu_milli for node in UNEQUAL for count in [held[node.id]])
