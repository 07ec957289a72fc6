from dataclasses import replace

import pytest

from scheduler.placement.filters import Terrain, holds, in_words, judge, price, tolerates
from scheduler.snapshot import (
    Constraints,
    Effect,
    Node,
    Operator,
    Pool,
    Preference,
    Strategy,
    Taint,
    Term,
    Toleration,
)
from tests.support.clusters import a_node

LEVELS = ("zone", "rack")
RESERVED, SLOW = Taint("gpu", "reserved"), Taint("disk", "slow", Effect.AVOID)


def judged(node: Node, constraints: Constraints, pools: tuple[Pool, ...] = ()) -> tuple[str | None, int]:
    (verdict,) = judge(Terrain([node], LEVELS, pools), constraints, by_gpu=True)
    return verdict


@pytest.mark.parametrize(
    ("term", "value", "expected"),
    [
        (Term("k", Operator.IN, ("a", "b")), "b", True),
        (Term("k", Operator.IN, ("a", "b")), "c", False),
        (Term("k", Operator.IN, ("a",)), None, False),
        (Term("k", Operator.NOT_IN, ("a",)), "b", True),
        (Term("k", Operator.NOT_IN, ("a",)), "a", False),
        (Term("k", Operator.NOT_IN, ("a",)), None, True),
        (Term("k", Operator.EXISTS), "", True),
        (Term("k", Operator.EXISTS), None, False),
        (Term("k", Operator.ABSENT), None, True),
        (Term("k", Operator.ABSENT), "x", False),
        (Term("k", Operator.ABOVE, ("9",)), "10", True),
        (Term("k", Operator.ABOVE, ("10",)), "10", False),
        (Term("k", Operator.BELOW, ("10",)), "9.5", True),
        (Term("k", Operator.ABOVE, ("9",)), "ten", False),
        (Term("k", Operator.ABOVE, ("nine",)), "10", False),
        (Term("k", Operator.ABOVE, ()), "10", False),
        (Term("k", Operator.BELOW, ("9",)), None, False),
    ],
)
def test_a_term_holds_or_not(term: Term, value: str | None, expected: bool) -> None:
    assert holds(term, value) is expected


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "n1"), ("pool", "p"), ("gpu_model", "h100"), ("zone", "z1"), ("rack", "r1"), ("team", "blue")],
)
def test_what_is_known_of_every_node_is_a_label_too(key: str, value: str) -> None:
    node = replace(a_node(gpus=1), pool_id="p", domains=("z1", "r1"), labels=(("team", "blue"),))
    assert judged(node, Constraints(selector=(Term(key, Operator.IN, (value,)),))) == (None, 0)
    cause, _ = judged(node, Constraints(selector=(Term(key, Operator.IN, ("else",)),)))
    assert cause == f"selector {key}=else"


def test_what_a_node_does_not_say_is_absent() -> None:
    constraints = Constraints(selector=tuple(Term(key, Operator.ABSENT) for key in ("pool", "gpu_model", "zone", "x")))
    assert judged(a_node(), constraints) == (None, 0)


def test_a_taint_refuses_whoever_does_not_tolerate_it() -> None:
    node = replace(a_node(), taints=(SLOW, RESERVED))
    assert judged(node, Constraints()) == ("taint gpu=reserved", 0)
    assert judged(node, Constraints(tolerations=(Toleration("gpu"),))) == (None, 100)
    assert judged(node, Constraints(tolerations=(Toleration(),))) == (None, 0)


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        (Toleration(), True),
        (Toleration("gpu"), True),
        (Toleration("gpu", "reserved"), True),
        (Toleration("", "reserved"), True),
        (Toleration("gpu", "broken"), False),
        (Toleration("cpu"), False),
    ],
)
def test_a_toleration_names_key_and_value_or_leaves_them_open(toleration: Toleration, expected: bool) -> None:
    assert tolerates([toleration], RESERVED) is expected


def test_a_pool_means_its_nodes_and_those_of_pools_below_it() -> None:
    pools = (Pool("all", "all"), Pool("a", "a", parent_id="all"), Pool("b", "b", parent_id="a"), Pool("c", "c"))
    verdicts = {
        pool: judged(replace(a_node(), pool_id=pool), Constraints(pool_id="a"), pools)[0]
        for pool in ("a", "b", "all", "c", "")
    }
    assert verdicts == {"a": None, "b": None} | dict.fromkeys(["all", "c", ""], "not being in pool 'a'")


def test_spot_nodes_and_weak_isolation_can_be_ruled_out() -> None:
    spot = replace(a_node(), spot=True, isolation=1)
    assert judged(spot, Constraints())[0] is None
    assert judged(spot, Constraints(spot=False))[0] == "being spot nodes"
    assert judged(spot, Constraints(min_isolation=2))[0] == "isolation below 2"


def test_what_is_preferred_counts_for_a_node_and_what_is_avoided_against_it() -> None:
    node = replace(a_node(), labels=(("disk", "ssd"),), taints=(SLOW,), caches=frozenset({"x", "y"}))
    wishes = (
        Preference(30, Term("disk", Operator.IN, ("ssd",))),
        Preference(5, Term("name", Operator.IN, ("n1",))),
        Preference(70, Term("disk", Operator.IN, ("tape",))),
    )
    assert judged(node, Constraints(prefers=wishes, data=("x", "z")))[1] == 100 - 30 - 5 - 50


def test_the_cheapest_is_asked_for_by_the_gpu_or_by_the_cpu_after_all_wishes() -> None:
    node = replace(a_node(gpus=4, cpus=8), usd_micros_hour=8_000_000)
    assert (price(node, by_gpu=True), price(node, by_gpu=False)) == (2_000_000, 1_000_000)
    cheap, liked = a_node("cheap"), replace(a_node("liked"), usd_micros_hour=9_000_000)
    constraints = Constraints(strategy=Strategy.CHEAP, prefers=(Preference(1, Term("name", Operator.IN, ("liked",))),))
    assert judged(liked, constraints)[1] < judged(cheap, constraints)[1]


def test_a_required_level_that_there_is_not_keeps_everybody_away() -> None:
    cause, _ = judged(a_node(), Constraints(within="room", within_required=True))
    assert cause == "level 'room', which the cluster has not"
    assert judged(a_node(), Constraints(within="room"))[0] is None
    assert judged(a_node(), Constraints(within="rack", within_required=True))[0] == "having no known rack"
    assert judged(a_node(), Constraints(within="node", within_required=True))[0] is None


@pytest.mark.parametrize(
    ("term", "text"),
    [
        (Term("zone", Operator.IN, ("a",)), "zone=a"),
        (Term("zone", Operator.IN, ("a", "b")), "zone in a, b"),
        (Term("zone", Operator.NOT_IN, ("a",)), "zone not in a"),
        (Term("gpu", Operator.EXISTS), "gpu exists"),
        (Term("gpu", Operator.ABSENT), "gpu absent"),
        (Term("mem", Operator.ABOVE, ("9",)), "mem above 9"),
    ],
)
def test_terms_are_spelt_as_users_do(term: Term, text: str) -> None:
    assert in_words(term) == text
