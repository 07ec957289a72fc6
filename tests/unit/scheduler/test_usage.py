from scheduler.usage import WHOLE_CLUSTER, Usage
from tests.support.clusters import a_holding, a_job, a_node, a_request, a_running


def test_the_largest_fraction_of_any_resource_counts() -> None:
    usage = Usage([a_node(cpus=10, gib=100, gpus=4)])
    usage.count_started(a_job(request=a_request(cpus=1, gib=1, gpu_milli=1000, replicas=2)))
    assert usage.of_project("p") == usage.of_queue("q") == WHOLE_CLUSTER // 2


def test_what_runs_counts_on_top_of_past_use() -> None:
    usage = Usage([a_node(cpus=10)], {"p": 0.25})
    usage.count_running([a_running("r", a_holding("n1", cpus=4), a_holding("n1", cpus=1))])
    assert usage.of_project("p") == 3 * WHOLE_CLUSTER // 4
    assert usage.of_queue("q") == WHOLE_CLUSTER // 2


def test_running_and_starting_count_alike() -> None:
    nodes = [a_node(cpus=7, gib=13, gpus=3)]
    running, starting = Usage(nodes), Usage(nodes)
    running.count_running([a_running("r", a_holding("n1", gpus=((0, 1000),)), a_holding("n1", gpus=((1, 1000),)))])
    starting.count_started(a_job(request=a_request(gpu_milli=1000, replicas=2)))
    assert running.of_project("p") == starting.of_project("p")


def test_whoever_had_nothing_has_nothing_even_of_an_empty_cluster() -> None:
    usage = Usage([])
    usage.count_started(a_job())
    assert usage.of_project("p") == usage.of_project("other") == 0
