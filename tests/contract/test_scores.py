"""What every strategy owes placement, whoever wrote it."""

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.capacity import Setting
from scheduler.ledger import Ledger
from scheduler.placement.fragmentation import Fragmentation
from scheduler.placement.rooms import Room
from scheduler.placement.scoring import gauge_of
from scheduler.placement.states import Demand, States
from scheduler.snapshot import Constraints, Node, Request, Shape, Strategy
from tests.support.clusters import GIB, a_node
from tests.support.placing import a_kind, chosen, partly, placed

every_strategy = pytest.mark.parametrize("strategy", list(Strategy))

milli = st.sampled_from([0, 250, 400, 500, 700, 1000])
nodes = st.lists(
    st.tuples(st.lists(milli, max_size=4), st.integers(0, 8), st.sampled_from(["h100", "a100"])), min_size=1, max_size=8
).map(
    lambda drawn: [
        partly(f"n{place}", *gpus, cpus=cpus, model=model) for place, (gpus, cpus, model) in enumerate(drawn)
    ]
)
requests = st.builds(
    Request,
    st.integers(0, 4000),
    st.just(GIB),
    st.sampled_from([0, 250, 300, 500, 1000, 2000]),
    st.sampled_from([(), ("h100",)]),
)
settings_of = st.lists(st.builds(Shape, requests, st.floats(0, 1)), max_size=5).map(
    lambda shapes: Setting(shapes=tuple(shapes))
)


def ask(strategy: Strategy, on: list[Node], request: Request, setting: Setting) -> object:
    return chosen(on, a_kind(request, constraints=Constraints(strategy=strategy)), setting)


@every_strategy
@given(on=nodes, request=requests, setting=settings_of, random=st.randoms(use_true_random=False))
def test_the_order_of_rows_does_not_matter(
    strategy: Strategy, on: list[Node], request: Request, setting: Setting, random: Random
) -> None:
    assert ask(strategy, on, request, setting) == ask(strategy, random.sample(on, len(on)), request, setting)


@every_strategy
@given(on=nodes, request=requests, setting=settings_of)
def test_a_place_is_found_wherever_there_is_one(
    strategy: Strategy, on: list[Node], request: Request, setting: Setting
) -> None:
    has_room = any(Room.of(node).slots(request, 1) for node in on)
    assert (ask(strategy, on, request, setting) is not None) == has_room


@every_strategy
@given(request=requests, setting=settings_of)
def test_of_equal_nodes_the_first_by_name_is_taken(strategy: Strategy, request: Request, setting: Setting) -> None:
    ledger = Ledger([a_node(name, gpus=2) for name in ("b", "c", "a")], setting)
    kind = a_kind(request, constraints=Constraints(strategy=strategy))
    found = placed(ledger, kind)
    assert found == (["a"] if not request.gpu_models or "h100" in request.gpu_models else [])


@every_strategy
@given(gpus=st.lists(milli, max_size=4), request=requests, setting=settings_of)
@settings(max_examples=50)
def test_more_cpus_left_change_a_score_in_one_direction(
    strategy: Strategy, gpus: list[int], request: Request, setting: Setting
) -> None:
    """Searches rely on it: what is left never makes an outcome worse, and what it is worth itself only rises or falls."""
    fragmentation, states, demand = Fragmentation(setting.shapes), States(), Demand.of(request)
    gauge = gauge_of(strategy, fragmentation, [a_node(gpus=4)])
    state = states.of(Room(8000, GIB, gpus, "h100"))
    bands = range(len(fragmentation.thresholds) + 1)
    for outcome in states.outcomes(state, demand):
        worths = [gauge.weigh(outcome, demand, band) for band in bands]
        assert all(more <= fewer for fewer, more in pairwise(worths))
    leftovers = [gauge.leftover(cpu_milli) for cpu_milli in range(0, 9000, 500)]
    assert leftovers == sorted(leftovers, reverse=gauge.spread)
