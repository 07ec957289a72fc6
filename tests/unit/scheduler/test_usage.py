from scheduler.snapshot import Account, Amounts, Role
from scheduler.usage import WHOLE_CLUSTER, Usage, asked, held
from tests.support.clusters import GIB, a_class, a_holding, a_node, a_request


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


def test_running_and_starting_hold_alike() -> None:
    holdings = [a_holding("n1", gpus=((0, 1000),)), a_holding("n1", gpus=((1, 1000),))]
    assert held(holdings) == asked(a_class(a_request(gpu_milli=1000), replicas=2))


def test_of_an_elastic_job_the_fewest_replicas_are_asked_for() -> None:
    job_class = a_class()
    elastic = Role(a_request(cpus=2), least=3, most=8)
    assert asked(type(job_class)("p", "q", (elastic,))) == Amounts(6000, 3 * GIB, 0)


def test_an_empty_cluster_has_no_shares() -> None:
    usage = Usage([])
    usage.charge(a_class(), asked(a_class()))
    assert usage.of_project("p") == 0
