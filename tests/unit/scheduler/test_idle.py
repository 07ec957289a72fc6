from dataclasses import replace

from scheduler.idle import Idle, measure_idle
from scheduler.snapshot import Node, Request, Shape
from tests.support.clusters import GIB, a_node, a_request


def free(name: str, *milli: int, model: str = "h100", cpus: int = 8) -> Node:
    node = a_node(name, gpus=len(milli), model=model)
    return replace(node, gpu_milli_free=milli, cpu_milli_free=cpus * 1000)


def test_it_is_the_share_that_a_drawn_task_could_not_be_given() -> None:
    # Half of all tasks want two whole devices, half a share of 0.6.
    shapes = [Shape(a_request(gpu_milli=2000), 3.0), Shape(a_request(gpu_milli=600), 3.0)]
    nodes = [free("a", 1000, 1000, 500), free("b", 1000), free("c", 300, 700)]
    # a: 0.5 is too little for either; b: useless to the first; c: all of it to the first, 0.3 of it to the second.
    useless = (500 + 500) // 2 + 1000 // 2 + (1000 + 300) // 2
    assert measure_idle(nodes, shapes) == (Idle("h100", 3, 6, 4500, 3, 2, useless),)


def test_models_are_measured_apart_and_a_model_nobody_asks_for_is_all_useless() -> None:
    shapes = [Shape(a_request(gpu_milli=1000, model="h100"), 1.0)]
    h100, k80 = free("a", 1000, 0), free("b", 1000, model="k80")
    assert measure_idle([k80, h100], shapes) == (
        Idle("h100", 1, 2, 1000, 1, 1, 0), Idle("k80", 1, 1, 1000, 1, 1, 1000)
    )  # fmt: skip


def test_what_a_node_has_too_few_cpus_for_is_useless() -> None:
    shapes = [Shape(a_request(cpus=4, gpu_milli=1000), 1.0)]
    (idle,) = measure_idle([free("a", 1000, cpus=3), free("b", 1000, cpus=4)], shapes)
    assert idle.useless_milli == 1000


def test_nodes_that_take_no_work_and_devices_cut_into_slices_are_not_idle() -> None:
    cut = replace(free("b", 0, 1000), partitioned=(0,), gpu_memory_bytes=80 * GIB)
    (idle,) = measure_idle([replace(free("a", 1000), ready=False), cut, a_node("cpu")], [])
    assert idle == Idle("h100", 1, 1, 1000, 1, 1, None)


def test_shapes_without_devices_can_use_none() -> None:
    (idle,) = measure_idle([free("a", 1000)], [Shape(Request(1000, GIB), 1.0), Shape(a_request(gpu_milli=1000), 1.0)])
    assert idle.useless_milli == 500
