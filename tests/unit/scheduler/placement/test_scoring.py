from dataclasses import replace

from scheduler.capacity import Setting
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant
from scheduler.snapshot import Constraints, Node, Operator, Preference, Request, Shape, Slice, Strategy, Term
from tests.support.clusters import GIB, a_node, a_request
from tests.support.placing import a_kind, chosen, partly, placed

PAIRS = (0, 0, 1, 1)


def by(strategy: Strategy, *nodes: Node, gpu_milli: int = 0, setting: Setting | None = None) -> str | None:
    kind = a_kind(a_request(gpu_milli=gpu_milli), constraints=Constraints(strategy=strategy))
    found = chosen(nodes, kind, setting or Setting())
    return found and found[0]


def on(nodes: list[Node], request: Request) -> tuple[str, tuple[tuple[int, int], ...]] | None:
    return chosen(nodes, a_kind(request))


# Best fit, where nothing is known of what is popular


def test_the_node_with_fewest_free_devices_is_preferred() -> None:
    assert on([partly("n1", 1000, 1000), partly("n2", 0, 1000)], a_request(gpu_milli=1000)) == ("n2", ((1, 1000),))


def test_of_equal_devices_the_node_with_fewest_cpus_is_preferred() -> None:
    nodes = [a_node("n1", gpus=1, cpus=16), a_node("n2", gpus=1, cpus=8)]
    assert on(nodes, a_request(gpu_milli=1000)) == ("n2", ((0, 1000),))


def test_ties_fall_to_the_first_name_also_across_models() -> None:
    nodes = [a_node("n3", gpus=1, model="a100"), a_node("n2", gpus=1, model="h100"), a_node("n1", gpus=1, model="t4")]
    assert on(nodes, a_request(gpu_milli=1000)) == ("n1", ((0, 1000),))


def test_a_cpu_job_prefers_a_node_without_gpus() -> None:
    assert on([a_node("n1", gpus=8, cpus=1), a_node("n2", cpus=64)], a_request()) == ("n2", ())


def test_a_cpu_job_leaves_even_busy_gpu_nodes_alone_while_others_have_room() -> None:
    assert on([partly("n1", 0, cpus=1), a_node("n2", cpus=64)], a_request()) == ("n2", ())


def test_a_cpu_job_goes_to_the_gpu_node_with_fewest_devices_to_strand() -> None:
    assert on([partly("n1", 1000, 1000), partly("n2", 0, 0)], a_request()) == ("n2", ())


def test_a_share_takes_the_tightest_hole_of_the_cluster() -> None:
    nodes = [partly("n1", 600, 1000), partly("n2", 500), partly("n3", 400)]
    assert on(nodes, a_request(gpu_milli=500)) == ("n2", ((0, 500),))


def test_a_share_without_a_hole_opens_a_device_where_fewest_are_whole() -> None:
    nodes = [partly("n1", 1000, 1000), partly("n2", 400, 1000)]
    assert on(nodes, a_request(gpu_milli=500)) == ("n2", ((1, 500),))


def test_a_hole_on_a_node_without_cpus_is_passed_over() -> None:
    nodes = [replace(partly("n1", 500), cpu_milli_free=0), partly("n2", 900)]
    assert on(nodes, a_request(gpu_milli=500)) == ("n2", ((0, 500),))


def test_memory_is_respected() -> None:
    assert on([a_node("n1", gib=1), a_node("n2", gib=64)], a_request(gib=2)) == ("n2", ())


def test_of_nodes_of_several_models_the_one_with_fewest_cpus_is_taken() -> None:
    nodes = [a_node("n1", gpus=1, model="a100", cpus=2), a_node("n2", gpus=1, model="h100", cpus=1)]
    assert on(nodes, Request(500, 0, 1000)) == ("n2", ((0, 1000),))


def test_one_of_several_models_will_do_and_no_other() -> None:
    nodes = [a_node("n1", gpus=8, model="t4"), a_node("n2", gpus=8, model="a100")]
    assert on(nodes, Request(0, 0, 1000, ("a100", "h100"))) == ("n2", ((0, 1000),))
    assert on(nodes, Request(0, 0, 1000, ("h100",))) is None


def test_devices_of_one_clique_are_worth_more_than_a_tight_fit() -> None:
    split = replace(partly("n1", 0, 1000, 1000, 0), gpu_links=PAIRS)
    whole = replace(partly("n2", 1000, 1000, 1000, 1000), gpu_links=PAIRS)
    assert on([split, whole], a_request(gpu_milli=2000)) == ("n2", ((0, 1000), (1, 1000)))
    assert on([split], a_request(gpu_milli=2000)) == ("n1", ((1, 1000), (2, 1000)))


def test_a_node_without_cliques_pays_nothing_for_having_none() -> None:
    each_for_itself = replace(partly("n1", 1000, 1000, 0, 0), gpu_links=(0, 1, 2, 3))
    assert on([each_for_itself, partly("n2", 1000, 1000, 1000)], a_request(gpu_milli=2000)) == (
        "n1", ((0, 1000), (1, 1000)),
    )  # fmt: skip


# The gradient


SHAPES = (Shape(Request(1000, 0, 1000), 3.0), Shape(Request(8000, 0, 500), 1.0))


def test_a_place_goes_where_fragmentation_grows_least_not_where_it_fits_best() -> None:
    # The paper's step, by hand: 300 of 700 leave 400, useless to halves (0.5 x 400); 300 of 900 leave 600, of use to all.
    shapes = (Shape(Request(1000, 0, 500), 1.0), Shape(Request(1000, 0, 400), 1.0))
    nodes, kind = [partly("n1", 700), partly("n2", 900)], a_kind(Request(1000, GIB, 300))
    assert chosen(nodes, kind) == ("n1", ((0, 300),))
    assert chosen(nodes, kind, Setting(shapes=shapes)) == ("n2", ((0, 300),))


def test_of_the_devices_of_a_node_the_one_is_taken_that_leaves_least_useless() -> None:
    shapes = (Shape(Request(1000, 0, 500), 1.0),)
    assert chosen([partly("n1", 700, 900)], a_kind(Request(1000, GIB, 300)), Setting(shapes=shapes)) == (
        "n1",
        ((1, 300),),
    )


def test_a_device_whose_node_has_no_cpus_left_for_the_popular_ones_is_used_first() -> None:
    starved = replace(partly("n2", 1000, 1000), cpu_milli_free=1500)
    kind = a_kind(Request(1000, GIB, 1000))
    shapes = (Shape(Request(4000, 0, 1000), 1.0),)
    assert chosen([partly("n1", 1000), starved], kind) == ("n1", ((0, 1000),))
    assert chosen([partly("n1", 1000), starved], kind, Setting(shapes=shapes)) == ("n2", ((0, 1000),))


def test_of_nodes_alike_one_is_taken_that_keeps_cpus_for_what_is_popular() -> None:
    nodes = [
        replace(partly("n1", 1000, 1000), cpu_milli_free=10_000),
        replace(partly("n2", 1000, 1000), cpu_milli_free=14_500),
    ]
    shapes = (Shape(Request(4000, 0, 1000), 1.0),)
    kind = a_kind(Request(8000, GIB, 1000))
    assert chosen(nodes, kind) == ("n1", ((0, 1000),))
    assert chosen(nodes, kind, Setting(shapes=shapes)) == ("n2", ((0, 1000),))


def test_of_places_alike_the_fuller_node_is_taken() -> None:
    nodes = [partly("n1", 1000, 1000, 1000), partly("n2", 1000, 1000)]
    shapes = (Shape(Request(1000, 0, 1000), 1.0),)
    assert chosen(nodes, a_kind(Request(1000, GIB, 1000)), Setting(shapes=shapes)) == ("n2", ((0, 1000),))


def test_a_clique_that_a_popular_shape_needs_is_not_broken() -> None:
    whole = replace(partly("n1", 1000, 1000, 0, 0), gpu_links=PAIRS)
    broken = replace(partly("n2", 1000, 0, 1000, 0), gpu_links=PAIRS)
    shapes = (Shape(Request(1000, 0, 2000), 1.0), Shape(Request(1000, 0, 1000), 1.0))
    kind = a_kind(Request(1000, GIB, 1000))
    assert chosen([whole, broken], kind) == ("n1", ((0, 1000),))
    assert chosen([whole, broken], kind, Setting(shapes=shapes)) == ("n2", ((0, 1000),))


def test_a_cpu_job_prefers_a_node_without_gpus_also_by_the_gradient() -> None:
    kind = a_kind(a_request())
    assert chosen([partly("n1", 0, cpus=1), a_node("n2", cpus=64)], kind, Setting(shapes=SHAPES)) == ("n2", ())


# Spread, pack, cheap, and what a job likes


def test_spread_takes_the_emptiest_node_for_its_size() -> None:
    nodes = [partly("n1", 1000, 1000, 0, 0), partly("n2", 1000, 1000, 0), a_node("n3", gpus=1)]
    assert by(Strategy.SPREAD, *nodes, gpu_milli=1000) == "n2"
    assert by(Strategy.SPREAD, a_node("n1", cpus=8), a_node("n2", cpus=16), a_node("n3", cpus=16)) == "n2"
    assert by(Strategy.SPREAD, a_node("n1", cpus=16, gib=0), a_node("n2", cpus=8)) == "n2"


def test_spread_opens_the_emptiest_device() -> None:
    kind = a_kind(a_request(gpu_milli=300), constraints=Constraints(strategy=Strategy.SPREAD))
    assert chosen([partly("n1", 400, 900, 500)], kind) == ("n1", ((1, 300),))


def test_pack_fits_best_whatever_is_popular() -> None:
    starved = replace(partly("n2", 1000, 1000), cpu_milli_free=1500)
    shapes = (Shape(Request(4000, 0, 1000), 1.0),)
    assert by(Strategy.PACK, partly("n1", 1000), starved, gpu_milli=1000, setting=Setting(shapes=shapes)) == "n1"


def test_the_cheapest_gpu_is_taken_of_equal_prices_the_best_fit() -> None:
    dear, cheap = a_node("n1", gpus=1), a_node("n2", gpus=2)
    dear, cheap = replace(dear, usd_micros_hour=3_000_000), replace(cheap, usd_micros_hour=4_000_000)
    assert by(Strategy.CHEAP, dear, cheap, gpu_milli=1000) == "n2"
    assert by(Strategy.FIT, dear, cheap, gpu_milli=1000) == "n1"
    assert by(Strategy.CHEAP, dear, replace(cheap, usd_micros_hour=6_000_000), gpu_milli=1000) == "n1"


def test_what_a_job_prefers_comes_before_what_fits_best_but_not_before_room() -> None:
    liked = Constraints(prefers=(Preference(1, Term("name", Operator.IN, ("n1",))),))
    nodes = [a_node("n1", gpus=8), a_node("n2", gpus=1)]
    assert chosen(nodes, a_kind(a_request(gpu_milli=1000), constraints=liked)) == ("n1", ((0, 1000),))
    full = replace(nodes[0], gpu_milli_free=(0,) * 8)
    assert chosen([full, nodes[1]], a_kind(a_request(gpu_milli=1000), constraints=liked)) == ("n2", ((0, 1000),))


def test_a_node_with_more_of_the_data_at_hand_is_preferred() -> None:
    nodes = [replace(a_node("n1"), caches=frozenset({"a"})), replace(a_node("n2"), caches=frozenset({"a", "b"}))]
    assert chosen(nodes, a_kind(constraints=Constraints(data=("a", "b", "c")))) == ("n2", ())


# Slices


def sliced(name: str) -> Node:
    return replace(a_node(name, gpus=1, model="H100"), partitioned=(0,), gpu_milli_free=(0,), gpu_memory_bytes=80 * GIB)


def test_a_slice_goes_to_the_node_that_loses_least_by_it() -> None:
    ledger = Ledger([sliced("n1"), sliced("n2")])
    ledger.seat(Grant(1, 0, 0, slices=(Slice(0, "3g.40gb", 4),)))
    small = a_kind(Request(0, 0, mig_profile="1g.10gb"))
    assert placed(ledger, small) == ["n2"]
    assert [placed(ledger, a_kind(Request(0, 0, mig_profile="7g.80gb"))) for _ in range(2)] == [["n1"], []]
