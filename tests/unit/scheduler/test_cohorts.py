from dataclasses import replace

import pytest

from scheduler.cohorts import Cohorts
from scheduler.snapshot import UNLIMITED, Amounts, Node, Pool
from scheduler.usage import WHOLE_CLUSTER
from tests.support.clusters import GIB, a_node


def cpus(amount: int, gib: int = 0, gpus: int = 0) -> Amounts:
    return Amounts(amount * 1000, gib * GIB, gpus * 1000)


def at_most(amount: int) -> Amounts:
    """That many CPUs, and no limit on anything else."""
    return Amounts(amount * 1000, UNLIMITED, UNLIMITED)


def a_pool(name: str, parent: str = "", amount: int = 0, **values: object) -> Pool:
    return replace(Pool(name, name, parent, nominal=cpus(amount)), **values)  # type: ignore[arg-type]


def in_pool(name: str, pool: str, *, cpus: int = 8, gib: int = 32, gpus: int = 0) -> Node:
    return replace(a_node(name, cpus=cpus, gib=gib, gpus=gpus), pool_id=pool)


# Two teams in a cohort, after the example of Kueue's documentation of cluster queues.
TEAM_A = a_pool("a", "ab", nominal=cpus(9, 36))
TEAM_B = a_pool("b", "ab", nominal=cpus(12, 48))
COHORT = a_pool("ab")


def test_an_idle_team_lends_all_it_has() -> None:
    cohorts = Cohorts([COHORT, TEAM_A, TEAM_B], [])
    assert cohorts.available("a")[:2] == cohorts.most("a")[:2] == cpus(21, 84)[:2]
    cohorts.take("b", cpus(12, 48))
    assert cohorts.available("a") == cpus(9, 36)


def test_a_team_borrows_no_more_than_it_may() -> None:
    cohorts = Cohorts([COHORT, replace(TEAM_A, borrows=at_most(1)), TEAM_B], [])
    assert cohorts.available("a").cpu_milli == cohorts.most("a").cpu_milli == 10_000
    assert cohorts.available("b").cpu_milli == 21_000


def test_a_team_keeps_what_it_does_not_lend() -> None:
    cohorts = Cohorts([COHORT, TEAM_A, replace(TEAM_B, lends=at_most(1))], [])
    assert cohorts.available("a").cpu_milli == 10_000
    cohorts.take("a", cpus(10))
    # What it kept is there in spite of the other's borrowing.
    assert cohorts.available("b").cpu_milli == 11_000
    cohorts.take("b", cpus(11))
    assert cohorts.available("b").cpu_milli == 0


def test_what_others_hold_of_a_pool_is_a_debt_to_it() -> None:
    cohorts = Cohorts([COHORT, TEAM_A, TEAM_B], [])
    cohorts.take("a", cpus(21))
    assert cohorts.available("b").cpu_milli == 0
    cohorts.take("b", cpus(5))  # it runs all the same, such as after nodes were lost
    assert cohorts.available("a").cpu_milli == cohorts.available("b").cpu_milli == -5000


def test_nested_pools_lend_up_and_down_the_tree() -> None:
    #   root (2) - left (3, lends 4) - left.1 (5, lends 3), left.2 (1)
    #            - right (7)
    pools = [
        a_pool("root", amount=2),
        a_pool("left", "root", 3, lends=at_most(4)),
        a_pool("left.1", "left", 5, lends=at_most(3)),
        a_pool("left.2", "left", 1),
        a_pool("right", "root", 7),
    ]
    cohorts = Cohorts(pools, [])
    # left.1 keeps 2 of 5 and leaves 3; with left's own 3 and left.2's 1 that is 7, of which left keeps 3, leaves 4.
    assert cohorts.quota("left").cpu_milli == 7000
    assert cohorts.quota("root").cpu_milli == 2000 + 4000 + 7000
    available = {pool.id: cohorts.available(pool.id).cpu_milli // 1000 for pool in pools}
    assert available == {"root": 13, "left": 3 + 13, "left.1": 2 + 16, "left.2": 16, "right": 13}
    cohorts.take("right", cpus(13))
    # What left keeps for itself and what left.1 keeps are out of everybody else's reach.
    available = {pool.id: cohorts.available(pool.id).cpu_milli // 1000 for pool in pools}
    assert available == {"root": 0, "left": 3, "left.1": 5, "left.2": 3, "right": 0}


def test_a_pool_without_a_quota_of_its_own_has_what_its_nodes_have() -> None:
    nodes = [in_pool("n1", "a", cpus=4, gib=8, gpus=2), in_pool("n2", "a", cpus=1, gib=1), a_node("n3")]
    cohorts = Cohorts([Pool("a", "a")], nodes)
    assert cohorts.quota("a") == cohorts.available("a") == cpus(5, 9, 2)


def test_borrowing_begins_beyond_the_own_quota_of_a_resource_that_is_asked_for() -> None:
    cohorts = Cohorts([COHORT, TEAM_A, TEAM_B], [])
    assert not cohorts.borrows("a", cpus(9, 36))
    assert cohorts.borrows("a", cpus(10))
    cohorts.take("a", cpus(10))
    assert not cohorts.borrows("a", cpus(0, 1))
    assert cohorts.borrows("a", cpus(1))


def test_the_debt_is_the_largest_part_of_what_can_be_borrowed_for_the_weight() -> None:
    pools = [COHORT, TEAM_A, replace(TEAM_B, weight=2)]
    cohorts = Cohorts(pools, [])
    assert cohorts.debt("a", cpus(9, 36)) == (0,)
    # 4 of the cohort's 21 CPUs are borrowed, 21 of its 84 GiB: memory is what it borrows most of.
    cohorts.take("a", cpus(13, 57))
    assert cohorts.debt("a", cpus(0)) == (WHOLE_CLUSTER // 4 * 1000,)
    cohorts.give("a", cpus(13, 57))
    assert cohorts.debt("b", cpus(0, 48 + 21)) == (WHOLE_CLUSTER // 8 * 1000,)


def test_debts_are_compared_where_branches_meet() -> None:
    pools = [
        a_pool("root", amount=10),
        a_pool("x", "root"),
        a_pool("y", "root"),
        a_pool("x1", "x", 1),
        a_pool("x2", "x", 1),
        a_pool("y1", "y", 1),
    ]
    cohorts = Cohorts(pools, [])
    cohorts.take("x1", cpus(4))
    # x2 has borrowed nothing itself, but with it x would be 3 of 13 beyond its 2; y1 comes first even when it borrows.
    assert cohorts.debt("x2", cpus(1)) == (3 * WHOLE_CLUSTER // 13 * 1000, 0)
    assert cohorts.debt("y1", cpus(2)) == (WHOLE_CLUSTER // 13 * 1000, WHOLE_CLUSTER // 13 * 1000)
    assert cohorts.debt("y1", cpus(2)) < cohorts.debt("x2", cpus(1))


def test_within_its_quota_a_pool_keeps_to_its_own_nodes_and_borrowing_it_goes_where_something_is_lent() -> None:
    pools = [
        COHORT,
        TEAM_A,
        a_pool("a.1", "a", 1),
        a_pool("a.2", "a", 1, lends=cpus(0)),
        TEAM_B,
        a_pool("c", "ab", 1, lends=cpus(0)),
        a_pool("apart"),
    ]
    cohorts = Cohorts(pools, [])
    assert cohorts.reach("a", borrowing=False) == {"", "a", "a.1"}
    assert cohorts.reach("a", borrowing=True) == {"", "a", "a.1", "ab", "b"}
    assert cohorts.reach("a.2", borrowing=False) == {"", "a.2"}
    assert cohorts.reach("a.2", borrowing=True) == {"", "a", "a.1", "a.2", "ab", "b"}
    assert cohorts.reach("apart", borrowing=True) == {"", "apart"}
    assert cohorts.reach("", borrowing=False) == {""}


def test_a_pool_that_may_borrow_nothing_stays_at_home() -> None:
    cohorts = Cohorts([COHORT, replace(TEAM_A, borrows=cpus(0)), TEAM_B], [])
    assert cohorts.reach("a", borrowing=True) == {"", "a"}


@pytest.mark.parametrize(
    ("pools", "complaint"),
    [
        ([a_pool("a"), a_pool("a")], "same id"),
        ([a_pool("")], "empty id"),
        ([a_pool("a", "b")], "pool 'a' lies below 'b', which the snapshot lacks"),
        ([a_pool("a", "b"), a_pool("b", "a")], "pool 'a' lies in a circle"),
        ([a_pool("a", "a")], "pool 'a' lies in a circle"),
        ([a_pool("a", weight=0)], "pool 'a' has weight 0"),
        ([a_pool("a", amount=-1)], "pool 'a' has a negative amount"),
        ([a_pool("a", lends=cpus(-1))], "pool 'a' has a negative amount"),
    ],
)
def test_impossible_pools_are_named(pools: list[Pool], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Cohorts(pools, [])


def test_a_node_in_an_unknown_pool_is_named() -> None:
    with pytest.raises(ValueError, match="node 'n1' lies in pool 'x', which the snapshot lacks"):
        Cohorts([], [in_pool("n1", "x")])


def test_an_unknown_pool_is_named() -> None:
    with pytest.raises(ValueError, match="pool 'x' is not one of the snapshot's"):
        Cohorts([], []).available("x")
