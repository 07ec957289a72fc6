import pytest

from scheduler.config import Config
from scheduler.simulator.openb import (
    MIB,
    OpenbError,
    draw_arrivals,
    pack_arrivals,
    pack_queue,
    popular_shapes,
    read_nodes,
    read_pods,
)
from scheduler.snapshot import Request

NODES = """sn,cpu_milli,memory_mib,gpu,model
n0,64000,262144,2,P100
n1,96000,262144,8,G2
n2,32000,131072,0,
""".splitlines()
PODS = """name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos
p0,12000,16384,1,1000,,LS
p1,6000,12288,1,460,P100|G2,LS
p2,8000,1024,4,1000,,LS
p3,4000,1024,0,0,,BE
""".splitlines()


def test_nodes_are_read() -> None:
    first, second, third = read_nodes(NODES)
    assert (first.name, first.cpu_milli_free, first.memory_bytes) == ("n0", 64000, 262144 * MIB)
    assert (second.gpu_model, second.gpu_milli_free) == ("G2", (1000,) * 8)
    assert (third.gpu_model, third.gpu_milli_free) == ("", ())


def test_pods_are_read() -> None:
    assert read_pods(PODS) == (
        Request(12000, 16384 * MIB, 1000),
        Request(6000, 12288 * MIB, 460, ("G2", "P100")),
        Request(8000, 1024 * MIB, 4000),
        Request(4000, 1024 * MIB),
    )


def test_a_list_without_models_allows_all() -> None:
    assert read_pods(["name,cpu_milli,memory_mib,num_gpu,gpu_milli", "p,1,1,1,500"]) == (Request(1, MIB, 500),)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["sn,cpu_milli"], "line 1: there is no column 'memory_mib'"),
        ([], "line 1: there is no column 'sn'"),
        ([NODES[0], "n0,64000,262144,-2,P100"], "line 2: gpu is '-2', not a whole number"),
        ([NODES[0], NODES[1], "n1,1.5,1,1,T4"], "line 3: cpu_milli is '1.5', not a whole number"),
        ([NODES[0], "n0,64000"], "line 2: memory_mib is None, not a whole number"),
    ],
)
def test_what_is_no_such_list_is_told_with_its_line(lines: list[str], message: str) -> None:
    with pytest.raises(OpenbError, match=f"^{message}$"):
        read_nodes(lines)


def test_popular_are_the_commonest_shapes_that_cover_most_tasks() -> None:
    pods = [Request(1, 5, 500)] * 60 + [Request(1, 7, 500)] * 30 + [Request(2, 0, 1000)] * 6 + [Request(3, 0)] * 4
    assert [(shape.request, shape.weight) for shape in popular_shapes(pods)] == [
        (Request(1, 0, 500), 90.0),
        (Request(2, 0, 1000), 6.0),
    ]


def test_each_pod_comes_once_before_any_comes_again_and_none_beyond_the_load() -> None:
    pods = [Request(number, 0, 1000) for number in range(10)]
    drawn = list(draw_arrivals(pods, 25_500, seed=3))
    assert sorted(drawn[:10], key=lambda pod: pod.cpu_milli) == pods
    assert len(drawn) == 25
    assert drawn == list(draw_arrivals(pods, 25_500, seed=3))
    assert drawn != list(draw_arrivals(pods, 25_500, seed=4))


def test_what_does_not_fit_when_it_comes_is_lost() -> None:
    packed = pack_arrivals(read_nodes(NODES), [Request(1000, MIB, 3000)], 1.3, seed=1)
    assert (packed.arrived, packed.left_out) == (4, 2)
    assert packed.allocated_percent == 60.0


def test_a_queue_that_is_seen_whole_is_packed_largest_first() -> None:
    # One by one the small ones would fill n0, and no pair of pairs would be left.
    pods = [Request(1000, MIB, 1000), Request(1000, MIB, 8000), Request(1000, MIB, 1000)]
    config = Config()
    for seed in range(5):
        assert pack_queue(read_nodes(NODES), pods, 1.0, seed, config).allocated_percent == 100.0


def test_equal_seeds_give_equal_figures() -> None:
    nodes, pods = read_nodes(NODES), read_pods(PODS)
    assert pack_arrivals(nodes, pods, 1.3, seed=7) == pack_arrivals(nodes, pods, 1.3, seed=7)
