from dataclasses import replace

import pytest

from scheduler.amounts import asked, held
from scheduler.snapshot import Account, JobClass
from scheduler.usage import WHOLE_CLUSTER, Usage, blend, decay
from tests.support.clusters import a_class, a_holding, a_node, a_request


def of_user(user: str, project: str = "p") -> JobClass:
    return replace(a_class(project=project), user_id=user)


def test_a_share_is_that_of_the_scarcest_resource() -> None:
    usage = Usage([a_node(cpus=10, gib=100, gpus=4)])
    job_class = a_class(a_request(cpus=1, gib=1, gpu_milli=1000), replicas=2)
    usage.charge(job_class, asked(job_class))
    assert usage.of_project("p") == usage.of_queue("q") == WHOLE_CLUSTER // 2


def test_past_use_and_present_holdings_add_up() -> None:
    usage = Usage([a_node(cpus=10)], [Account("p", used=0.25)])
    usage.charge(a_class(), held([a_holding("n1", cpus=4), a_holding("n1", cpus=1)]))
    assert usage.of_project("p") == WHOLE_CLUSTER * 3 // 4


def test_what_ends_counts_no_longer() -> None:
    usage = Usage([a_node()], [Account("p", used=0.5)])
    usage.charge(a_class(), asked(a_class()))
    usage.discharge(a_class(), asked(a_class()))
    assert (usage.of_project("p"), usage.of_queue("q")) == (WHOLE_CLUSTER // 2, 0)
    assert usage.queue("q").jobs == 0


def test_of_what_the_cluster_lacks_nobody_has_a_share() -> None:
    usage = Usage([])
    usage.charge(a_class(), asked(a_class()))
    assert usage.of_project("p") == usage.of_project("other") == 0


def test_dominant_resource_fairness_gives_the_shares_of_its_paper() -> None:
    # Ghodsi et al., NSDI 2011, section 4.1: of 9 CPUs and 18 GB, user A, whose tasks need <1 CPU, 4 GB>, gets three
    # and user B, whose tasks need <3 CPUs, 1 GB>, gets two; either has two thirds of what it needs most.
    usage = Usage([a_node(cpus=9, gib=18)])
    tasks = {"A": a_class(a_request(cpus=1, gib=4), project="A"), "B": a_class(a_request(cpus=3, gib=1), project="B")}
    started = {"A": 0, "B": 0}
    cpus = gib = 0
    while True:
        user = min("BA", key=usage.of_project)
        needs_cpus, needs_gib = (1, 4) if user == "A" else (3, 1)
        if cpus + needs_cpus > 9 or gib + needs_gib > 18:
            break
        cpus, gib = cpus + needs_cpus, gib + needs_gib
        usage.charge(tasks[user], asked(tasks[user]))
        started[user] += 1
    assert started == {"A": 3, "B": 2}
    assert usage.of_project("A") == usage.of_project("B") == WHOLE_CLUSTER * 2 // 3


def test_an_accounts_share_is_that_of_the_sum_of_what_its_users_hold() -> None:
    # Half of the CPUs and a quarter of the memory: half of the cluster, not three quarters.
    usage = Usage([a_node(cpus=8, gib=8)])
    usage.charge(replace(a_class(a_request(cpus=4, gib=0)), user_id="u"), asked(a_class(a_request(cpus=4, gib=0))))
    usage.charge(replace(a_class(a_request(cpus=0, gib=2)), user_id="v"), asked(a_class(a_request(cpus=0, gib=2))))
    assert usage.of_project("p") == WHOLE_CLUSTER // 2


TREE = [
    # Level fairness S / U (Slurm, Fair Tree): science 0.6 / 0.5 = 1.2 and arts 0.4 / 0.5 = 0.8 at the first level.
    Account("science", weight=60),
    Account("arts", weight=40),
    # In science: physics 0.5 / 0.4 = 1.25, chemistry 0.5 / 0.6 = 0.83.
    Account("physics", "science"),
    Account("chemistry", "science"),
    Account("physics/ann", "physics", used=0.19),
    Account("physics/bob", "physics", weight=9, used=0.01),
    Account("chemistry/cid", "chemistry", used=0.3),
    # In arts: all of the use is one project's, and its idle sibling has had none.
    Account("music", "arts", used=0.5),
    Account("dance", "arts"),
]


def test_a_fair_tree_is_walked_from_the_account_that_is_furthest_below_its_share() -> None:
    usage = Usage([a_node()], TREE)
    users = [("ann", "physics"), ("bob", "physics"), ("cid", "chemistry"), ("dan", "music"), ("eve", "dance")]
    ranked = sorted(users, key=lambda user: usage.path(of_user(*user)))
    # Eve has used nothing, but arts as a whole has had more than its share: all of science goes first.
    assert [user for user, _ in ranked] == ["bob", "ann", "cid", "eve", "dan"]


def test_use_counts_for_all_accounts_above() -> None:
    usage = Usage([a_node(cpus=10)], TREE)
    usage.charge(of_user("ann", "physics"), asked(a_class(a_request(cpus=1))))
    shares = [one.past + usage.share_of(one.held) for one in usage.accounts_of(of_user("ann", "physics"))]
    assert shares == [WHOLE_CLUSTER * 6 // 10, WHOLE_CLUSTER * 3 // 10, WHOLE_CLUSTER * 29 // 100]


def test_siblings_that_had_the_same_are_looked_at_as_one() -> None:
    accounts = [Account("a"), Account("b"), Account("a1", "a"), Account("b1", "b")]
    usage = Usage([a_node()], accounts)
    assert usage.path(of_user("u", "a1")) == usage.path(of_user("v", "b1"))


def test_an_account_nobody_listed_weighs_one_and_has_used_nothing() -> None:
    usage = Usage([a_node()], [Account("known", used=0.1)])
    assert usage.path(of_user("u", "new")) < usage.path(of_user("u", "known"))
    assert [one.name for one in usage.accounts_of(of_user("u", "new"))] == ["new", "new/u"]


def test_a_user_of_a_project_passes_one_that_had_more() -> None:
    usage = Usage([a_node()])
    usage.charge(of_user("busy"), asked(a_class()))
    assert usage.path(of_user("idle")) < usage.path(of_user("busy"))
    assert usage.path(of_user("")) < usage.path(of_user("busy"))


def test_a_project_is_within_its_share_up_to_what_its_weight_stands_for() -> None:
    accounts = [Account("o", weight=3), Account("other", weight=1), Account("p", "o", used=0.9), Account("p2", "o")]
    usage = Usage([a_node(cpus=16)], accounts)
    one_cpu = asked(a_class())
    for _ in range(6):  # of the organisation's three quarters of 16 CPUs, half
        assert usage.within_share(a_class())
        usage.charge(a_class(), one_cpu)
    assert not usage.within_share(a_class())


def test_without_accounts_the_whole_cluster_is_anybodys_share() -> None:
    assert Usage([a_node(cpus=1)]).within_share(a_class())


def test_a_project_that_is_not_listed_shares_with_those_that_are() -> None:
    usage = Usage([a_node(cpus=4)], [Account("o")])
    usage.charge(a_class(), asked(a_class()))
    assert usage.within_share(a_class())
    usage.charge(a_class(), asked(a_class()))
    assert not usage.within_share(a_class())


@pytest.mark.parametrize(
    ("accounts", "complaint"),
    [
        ([Account("a"), Account("a")], "same id"),
        ([Account("")], "empty id"),
        ([Account("a", "b")], "account 'a' lies below 'b', which the snapshot lacks"),
        ([Account("r"), Account("a", "b"), Account("b", "a")], "account 'a' lies in a circle"),
        ([Account("a", weight=0)], "account 'a' has weight 0"),
        ([Account("a", used=-0.1)], "account 'a' has used -0.1"),
        ([Account("a", used=float("nan"))], "account 'a' has used nan"),
        ([Account("a", used=float("inf"))], "account 'a' has used inf"),
    ],
)
def test_impossible_accounts_are_named(accounts: list[Account], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Usage([], accounts)


def test_use_halves_each_half_life() -> None:
    assert decay(0.8, 0, 3600) == 0.8
    assert decay(0.8, 3600, 3600) == 0.4
    assert decay(0.8, 7200, 3600) == pytest.approx(0.2)


def test_a_constant_share_comes_to_be_what_was_used() -> None:
    assert blend(0.0, 0.5, 3600, 3600) == 0.25
    assert blend(0.0, 0.5, 100 * 3600, 3600) == pytest.approx(0.5)
    assert blend(0.5, 0.5, 17, 3600) == pytest.approx(0.5)


def test_how_often_use_is_counted_changes_nothing() -> None:
    in_steps = 0.1
    for _ in range(60):
        in_steps = blend(in_steps, 0.7, 60, 3600)
    assert in_steps == pytest.approx(blend(0.1, 0.7, 3600, 3600))


@pytest.mark.parametrize(("since_s", "half_life_s"), [(-1, 60), (1, 0), (1, -5), (1, float("nan")), (float("nan"), 1)])
def test_impossible_times_are_refused(since_s: float, half_life_s: float) -> None:
    with pytest.raises(ValueError, match="use cannot decay"):
        decay(1.0, since_s, half_life_s)
