"""To leap to where and when a blocked job may have room, or to go through all that ends until then, comes to the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from scheduler import outlook
from scheduler.config import Config
from scheduler.engine import Planner, plan
from scheduler.plan import Plan
from scheduler.snapshot import Snapshot
from tests.property.test_invariants import Case, cases
from tests.property.test_plan import snapshots
from tests.support.clusters import applied, given_back, without


@contextmanager
def leaping(many: int) -> Iterator[None]:
    """Leap where more than `many` will end."""
    usual, outlook.MANY = outlook.MANY, many
    try:
        yield
    finally:
        outlook.MANY = usual


def leapt(snapshot: Snapshot, config: Config) -> Plan:
    with leaping(-1):
        return plan(snapshot, config)


@given(cases)
def test_leaping_and_going_through_it_all_decide_the_same(case: Case) -> None:
    assert leapt(case.snapshot, case.config) == case.plan()


@given(snapshots(), st.integers(1, 3))
def test_the_same_claims_are_made_for_several_heads(snapshot: Snapshot, heads: int) -> None:
    config = Config(reserved_heads=heads)
    assert leapt(snapshot, config) == plan(snapshot, config)


@given(snapshots(), st.integers(0, 2**32))
def test_an_outlook_that_is_kept_is_as_good_as_a_new_one(snapshot: Snapshot, seed: int) -> None:
    random = Random(seed)
    with leaping(-1):
        kept = Planner(snapshot, Config())
        present = snapshot
        for _ in range(3):
            made = kept.plan(present.now)
            assert made == plan(present, Config())
            present = applied(present, made)
            gone = [job for job in present.running if random.random() < 0.4]
            for job in gone:
                kept.end(job.id)
                back = [given_back(holding) for holding in job.holdings]
                present = replace(present, nodes=tuple(without(node, back) for node in present.nodes))
            staying = tuple(job for job in present.running if job not in gone)
            present = replace(present, now=present.now + 1, running=staying)
