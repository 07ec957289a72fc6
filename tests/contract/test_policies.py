"""What every policy owes the engine, whoever wrote it."""

from collections.abc import Callable
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.amounts import asked
from scheduler.ledger import Ledger
from scheduler.policies import POLICIES
from scheduler.snapshot import Account, PendingJob, Queue
from scheduler.usage import Usage
from tests.support.clusters import a_job, a_node, a_request, a_snapshot, started

NODES = [a_node(cpus=64, gpus=8)]

jobs = st.lists(
    st.builds(
        a_job,
        st.uuids().map(str),
        st.builds(a_request, cpus=st.integers(0, 4), gpu_milli=st.sampled_from([0, 500, 1000])),
        at=st.sampled_from([0.0, 1.5, 9.0]),
        priority=st.integers(-2, 2),
        project=st.sampled_from("abc"),
    ),
    max_size=12,
    unique_by=lambda job: job.id,
)
usages = st.dictionaries(st.sampled_from("abc"), st.floats(0, 1), max_size=3)
every_policy = pytest.mark.parametrize("name", sorted(POLICIES))


def key_by(name: str, usage: dict[str, float]) -> Callable[[PendingJob], tuple[object, ...]]:
    ledger = Ledger(NODES, Usage(NODES, [Account(project, used=used) for project, used in usage.items()]))
    return lambda job: POLICIES[name](job, ledger)


@every_policy
@given(jobs=jobs, usage=usages)
def test_a_policy_gives_equal_keys_for_equal_input(name: str, jobs: list[PendingJob], usage: dict[str, float]) -> None:
    assert list(map(key_by(name, usage), jobs)) == list(map(key_by(name, usage), jobs))


@every_policy
@given(jobs=jobs, usage=usages)
def test_a_policy_orders_totally(name: str, jobs: list[PendingJob], usage: dict[str, float]) -> None:
    keys = sorted(map(key_by(name, usage), jobs))
    assert all(first < second for first, second in pairwise(keys))


@every_policy
@given(jobs=jobs, usage=usages, reshuffled=st.randoms())
def test_a_policy_does_not_look_at_the_order_of_rows(
    name: str, jobs: list[PendingJob], usage: dict[str, float], reshuffled: Random
) -> None:
    shuffled = list(jobs)
    reshuffled.shuffle(shuffled)
    assert sorted(jobs, key=key_by(name, usage)) == sorted(shuffled, key=key_by(name, usage))


@every_policy
@given(jobs=jobs, usage=usages)
def test_starting_jobs_never_improves_a_rank(name: str, jobs: list[PendingJob], usage: dict[str, float]) -> None:
    ledger = Ledger(NODES, Usage(NODES, [Account(project, used=used) for project, used in usage.items()]))
    before = [POLICIES[name](job, ledger) for job in jobs]
    for job in jobs:
        ledger.usage.charge(job.job_class, asked(job.job_class))
    assert all(now >= then for now, then in zip((POLICIES[name](job, ledger) for job in jobs), before, strict=True))


@every_policy
def test_of_equal_jobs_the_older_goes_first(name: str) -> None:
    snapshot = a_snapshot(
        [a_node(cpus=1)], [a_job("a", at=2), a_job("b", at=1)], queues=[Queue("q", "default", policy=name)]
    )
    assert started(snapshot) == ["b"]


def test_more_past_use_never_raises_a_project() -> None:
    queues = [Queue("q", "default", policy="fair_share")]
    jobs = [a_job("theirs", project="a", at=1), a_job("ours", project="b", at=2)]
    for use, first in ((0.0, "theirs"), (0.1, "ours"), (0.9, "ours")):
        snapshot = a_snapshot([a_node(cpus=1)], jobs, queues=queues, usage={"a": use})
        assert started(snapshot) == [first]
