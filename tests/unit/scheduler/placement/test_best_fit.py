from dataclasses import replace

from scheduler.ledger import Ledger
from scheduler.placement.best_fit import find_room
from scheduler.placement.rooms import Grant
from scheduler.snapshot import Node, Request
from tests.support.clusters import a_node, a_request


def anywhere(_: Grant) -> bool:
    return True


def chosen(nodes: list[Node], request: Request) -> tuple[str, tuple[tuple[int, int], ...]] | None:
    ledger = Ledger(nodes)
    grant = find_room(ledger, request, anywhere)
    return None if grant is None else (ledger.nodes[grant.number].name, grant.gpus)


def partly(name: str, *free: int, model: str = "h100", cpus: int = 8) -> Node:
    return replace(a_node(name, gpus=len(free), model=model, cpus=cpus), gpu_milli_free=free)


def test_the_node_with_fewest_free_devices_is_preferred() -> None:
    assert chosen([partly("n1", 1000, 1000), partly("n2", 0, 1000)], a_request(gpu_milli=1000)) == ("n2", ((1, 1000),))


def test_of_equal_devices_the_node_with_fewest_cpus_is_preferred() -> None:
    nodes = [a_node("n1", gpus=1, cpus=16), a_node("n2", gpus=1, cpus=8)]
    assert chosen(nodes, a_request(gpu_milli=1000)) == ("n2", ((0, 1000),))


def test_ties_fall_to_the_first_name_also_across_models() -> None:
    nodes = [a_node("n3", gpus=1, model="a100"), a_node("n2", gpus=1, model="h100"), a_node("n1", gpus=1, model="t4")]
    assert chosen(nodes, a_request(gpu_milli=1000)) == ("n1", ((0, 1000),))


def test_a_cpu_job_prefers_a_node_without_gpus() -> None:
    assert chosen([a_node("n1", gpus=8, cpus=1), a_node("n2", cpus=64)], a_request()) == ("n2", ())


def test_a_cpu_job_leaves_even_busy_gpu_nodes_alone_while_others_have_room() -> None:
    assert chosen([partly("n1", 0, cpus=1), a_node("n2", cpus=64)], a_request()) == ("n2", ())


def test_a_cpu_job_goes_to_the_gpu_node_with_fewest_devices_to_strand() -> None:
    assert chosen([partly("n1", 1000, 1000), partly("n2", 0, 0)], a_request()) == ("n2", ())


def test_a_share_takes_the_tightest_hole_of_the_cluster() -> None:
    nodes = [partly("n1", 600, 1000), partly("n2", 500), partly("n3", 400)]
    assert chosen(nodes, a_request(gpu_milli=500)) == ("n2", ((0, 500),))


def test_a_share_without_a_hole_opens_a_device_where_fewest_are_whole() -> None:
    nodes = [partly("n1", 1000, 1000), partly("n2", 400, 1000)]
    assert chosen(nodes, a_request(gpu_milli=500)) == ("n2", ((1, 500),))


def test_a_hole_on_a_node_without_cpus_is_passed_over() -> None:
    nodes = [replace(partly("n1", 500), cpu_milli_free=0), partly("n2", 900)]
    assert chosen(nodes, a_request(gpu_milli=500)) == ("n2", ((0, 500),))


def test_memory_is_respected() -> None:
    nodes = [a_node("n1", gib=1), a_node("n2", gib=64)]
    assert chosen(nodes, a_request(gib=2)) == ("n2", ())


def test_the_model_is_respected() -> None:
    assert chosen([a_node(gpus=8, model="a100")], a_request(gpu_milli=1000, model="h100")) is None


def test_a_place_that_is_not_permitted_is_passed_over() -> None:
    ledger = Ledger([a_node("n1"), a_node("n2")])
    grant = find_room(ledger, a_request(), lambda grant: grant.number == 1)
    assert grant is not None
    assert grant.number == 1
