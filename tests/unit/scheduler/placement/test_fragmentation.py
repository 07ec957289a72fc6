"""The measure of Weng et al., "Beware of Fragmentation", USENIX ATC 2023, section 3, worked by hand."""

from dataclasses import replace

import pytest

from scheduler.placement.fragmentation import UNIT, Fragmentation
from scheduler.placement.layouts import layout_of
from scheduler.placement.rooms import Room
from scheduler.placement.states import State, States
from scheduler.snapshot import Request, Shape
from tests.support.clusters import GIB, a_node

SHAPES = (
    Shape(Request(4000, 0, 500), 2.0),
    Shape(Request(8000, 0, 1000), 1.0),
    Shape(Request(16000, 0, 2000, ("h100",)), 1.0),
)


def state(*gpus: int, model: str = "h100", links: tuple[int, ...] = ()) -> State:
    layout = layout_of(replace(a_node(gpus=len(gpus), model=model), gpu_links=links))
    return States().of(Room(0, GIB, gpus, model, layout))


def measured(found: State, cpu_milli: int, shapes: tuple[Shape, ...] = SHAPES) -> float:
    fragmentation = Fragmentation(shapes)
    return fragmentation.of(found, fragmentation.band(cpu_milli)) / UNIT


@pytest.mark.parametrize(
    ("gpus", "cpus", "expected"),
    [
        # CPUs for all; the half finds no fault with 1000 and 700, the others lose the 700 and, of two devices, all.
        ((1000, 700), 16, 0.5 * 0 + 0.25 * 700 + 0.25 * 1700),
        # Too few CPUs for the shape with two devices: it can use nothing.
        ((1000, 1000), 8, 0.5 * 0 + 0.25 * 0 + 0.25 * 2000),
        ((1000, 1000), 16, 0.0),
        # What is less than a half is of no use to anybody.
        ((300, 200), 16, 500.0),
        # No CPUs: all that is idle is fragmented.
        ((1000, 1000), 3, 2000.0),
        ((0, 0), 16, 0.0),
    ],
)
def test_the_measure_is_the_idle_share_that_a_drawn_task_could_not_use(
    gpus: tuple[int, ...], cpus: int, expected: float
) -> None:
    assert measured(state(*gpus), cpus * 1000) == pytest.approx(expected)


def test_a_shape_that_wants_another_model_can_use_nothing_here() -> None:
    assert measured(state(1000, 1000, model="t4"), 16000) == pytest.approx(0.25 * 2000)


def test_a_shape_without_gpus_can_use_no_gpu_anywhere() -> None:
    shapes = (*SHAPES, Shape(Request(1000, 0), 4.0))
    assert measured(state(1000, 1000), 16000, shapes) == pytest.approx(0.5 * 2000)


def test_devices_in_two_cliques_serve_a_shape_that_fits_one_but_half() -> None:
    shapes = (Shape(Request(1000, 0, 2000), 1.0),)
    together, apart = (1000, 1000, 0, 0), (1000, 0, 1000, 0)
    assert measured(state(*together, links=(0, 0, 1, 1)), 1000, shapes) == 0
    assert measured(state(*apart, links=(0, 0, 1, 1)), 1000, shapes) == pytest.approx(1000)
    # A shape that no clique could ever hold loses nothing by it.
    shapes = (Shape(Request(1000, 0, 3000), 1.0),)
    assert measured(state(1000, 1000, 1000, 0, links=(0, 0, 1, 1)), 1000, shapes) == 0


def test_bands_are_the_cpus_that_shapes_ask_for() -> None:
    fragmentation = Fragmentation(SHAPES)
    assert fragmentation.thresholds == [4000, 8000, 16000]
    assert [fragmentation.band(cpus * 1000) for cpus in (0, 4, 7, 8, 99)] == [0, 1, 1, 2, 3]


def test_the_order_of_shapes_does_not_matter() -> None:
    assert measured(state(1000, 700), 9000) == measured(state(1000, 700), 9000, SHAPES[::-1])


def test_a_negative_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="a shape has a negative weight"):
        Fragmentation((Shape(Request(1, 1, 500), -1.0),))
