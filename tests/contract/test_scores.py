"""What every strategy owes placement, whoever wrote it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from scheduler.capacity import Setting
from scheduler.ledger import Ledger
from scheduler.placement.fragmentation import UNIT, Fragmentation
from scheduler.placement.rooms import Room
from scheduler.placement.scoring import LEFTOVER_MILLI, gauge_of
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
@given(on=nodes, request=requests, setting=settings_of, seed=st.integers(0, 2**32))
def test_the_order_of_rows_does_not_matter(
    strategy: Strategy, on: list[Node], request: Request, setting: Setting, seed: int
) -> None:
    shuffled = Random(seed).sample(on, len(on))
    assert ask(strategy, on, request, setting) == ask(strategy, shuffled, request, setting)


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


# What each strategy says that it does, held against all places there are


def every_place(on: list[Node], request: Request) -> Iterator[tuple[Node, Node]]:
    """Yield every node with room, as it is and as it would be, for each choice of devices that is different."""
    for node in on:
        free, model_fits = node.gpu_milli_free, not request.gpu_models or node.gpu_model in request.gpu_models
        left = replace(node, cpu_milli_free=node.cpu_milli_free - request.cpu_milli)
        if left.cpu_milli_free < 0 or node.memory_bytes_free < request.memory_bytes:
            continue
        if not request.gpu_milli:
            yield node, left
        elif model_fits and request.gpu_milli < 1000:
            for device, milli in enumerate(free):
                if milli >= request.gpu_milli:
                    after = (*free[:device], milli - request.gpu_milli, *free[device + 1 :])
                    yield node, replace(left, gpu_milli_free=after)
        elif model_fits:
            unused = [device for device, milli in enumerate(free) if milli == 1000][: request.gpu_milli // 1000]
            if len(unused) == request.gpu_milli // 1000:
                after = tuple(0 if device in unused else milli for device, milli in enumerate(free))
                yield node, replace(left, gpu_milli_free=after)


def unused(node: Node) -> int:
    return sum(milli == 1000 for milli in node.gpu_milli_free)


def hole(before: Node, after: Node) -> int:
    """What the device had that is used, as there is one."""
    pairs = zip(before.gpu_milli_free, after.gpu_milli_free, strict=True)
    return max((had for had, has in pairs if had != has), default=0)


def best(on: list[Node], request: Request, key: Callable[[Node, Node], tuple[object, ...]]) -> object:
    """The first by `key`, which is given a node as it is and as it would be; then by name."""
    return min(((*key(before, after), before.name) for before, after in every_place(on, request)), default=(None,))[-1]


def node_of(found: object) -> object:
    return found[0] if isinstance(found, tuple) else None


@given(on=nodes, request=requests, setting=settings_of)
def test_pack_takes_the_tightest_hole_then_where_fewest_devices_and_then_fewest_cpus_are_left(
    on: list[Node], request: Request, setting: Setting
) -> None:
    def key(before: Node, after: Node) -> tuple[object, ...]:
        opens = hole(before, after) == 1000
        if not request.gpu_milli:
            return bool(after.gpu_milli_free), unused(after), after.cpu_milli_free
        if request.gpu_milli < 1000:
            return opens, unused(after) if opens else hole(before, after), after.cpu_milli_free
        return unused(after), after.cpu_milli_free

    assert node_of(ask(Strategy.PACK, on, request, setting)) == best(on, request, key)


@given(on=nodes, request=requests, setting=settings_of)
def test_spread_takes_the_node_with_the_largest_part_of_its_devices_idle_and_of_these_the_one_with_most_cpus(
    on: list[Node], request: Request, setting: Setting
) -> None:
    def key(before: Node, after: Node) -> tuple[object, ...]:
        devices = after.gpu_milli_free
        part = sum(devices) // len(devices) if request.gpu_milli else 0
        return -part, -hole(before, after), -after.cpu_milli_free

    assert node_of(ask(Strategy.SPREAD, on, request, setting)) == best(on, request, key)


def fragmentation_of(node: Node, shapes: Sequence[Shape]) -> float:
    """The definition: the GPU share that a task, drawn by popularity, could not be given on the node.

    All that is idle, where the task cannot run; else what lies on devices with less than it needs of each.
    Source: Weng et al., Beware of Fragmentation, USENIX ATC 2023, section 3.
    """
    free, total, lost = node.gpu_milli_free, sum(shape.weight for shape in shapes), 0.0
    for shape in shapes:
        request = shape.request
        of_each = min(request.gpu_milli, 1000)
        model_fits = not request.gpu_models or node.gpu_model in request.gpu_models
        enough = sum(milli >= of_each for milli in free) * of_each >= request.gpu_milli > 0
        if enough and model_fits and node.cpu_milli_free >= request.cpu_milli:
            lost += shape.weight * sum(milli for milli in free if milli < of_each)
        else:
            lost += shape.weight * sum(free)
    return lost / total


popular = st.lists(st.builds(Shape, requests, st.floats(0.1, 1)), min_size=1, max_size=5)


@given(on=nodes, shapes=popular)
def test_the_measure_of_fragmentation_is_that_of_its_paper(on: list[Node], shapes: list[Shape]) -> None:
    fragmentation, states = Fragmentation(shapes), States()
    for node in on:
        measured = fragmentation.of(states.of(Room.of(node)), fragmentation.band(node.cpu_milli_free)) / UNIT
        assert measured == pytest.approx(fragmentation_of(node, shapes), abs=0.1)


@given(on=nodes, request=requests.filter(lambda request: request.gpu_milli), shapes=popular)
def test_by_the_gradient_a_share_goes_where_fragmentation_grows_least_but_for_ties(
    on: list[Node], request: Request, shapes: list[Shape]
) -> None:
    """What else counts, how full a node is, is worth three hundredths of a GPU for its CPUs and as much for its GPUs."""
    assume(any(shape.request.gpu_milli for shape in shapes))
    growth = {
        (before.name, after.gpu_milli_free): fragmentation_of(after, shapes) - fragmentation_of(before, shapes)
        for before, after in every_place(on, request)
    }
    found = chosen(on, a_kind(request, constraints=Constraints(strategy=Strategy.FIT)), Setting(shapes=tuple(shapes)))
    assert (found is None) == (not growth)
    if found is not None:
        name, devices = found
        (node,) = (node for node in on if node.name == name)
        used = dict(devices)
        left = tuple(milli - used.get(device, 0) for device, milli in enumerate(node.gpu_milli_free))
        assert growth[name, left] <= min(growth.values()) + 2 * LEFTOVER_MILLI + 0.1
