from dataclasses import replace

from scheduler.placement.layouts import layout_of
from scheduler.placement.rooms import Room
from scheduler.placement.states import Demand, States
from scheduler.snapshot import Node, Request
from tests.support.clusters import GIB, a_node

FOURS = (0, 0, 0, 0, 1, 1, 1, 1)


def room(*gpus: int, links: tuple[int, ...] = (), model: str = "h100") -> Room:
    node: Node = replace(a_node(gpus=len(gpus), model=model), gpu_links=links)
    return Room(8000, GIB, gpus, model, layout_of(node))


def test_nodes_are_in_one_state_if_they_differ_in_no_more_than_which_device_is_which() -> None:
    states = States()
    assert states.of(room(1000, 300)) is states.of(room(300, 1000))
    assert states.of(room(1000, 300)) is not states.of(room(1000, 300, model="a100"))
    assert states.of(room(1000, 300)) is not states.of(room(1000, 400))


def test_cliques_may_change_places_but_not_devices_between_cliques() -> None:
    states = States()
    one = states.of(room(1000, 1000, 1000, 1000, 0, 0, 0, 0, links=FOURS))
    assert one is states.of(room(0, 0, 0, 0, 1000, 1000, 1000, 1000, links=FOURS))
    split = states.of(room(1000, 1000, 0, 0, 1000, 1000, 0, 0, links=FOURS))
    assert one is not split
    assert (one.clique, split.clique) == (4, 2)


def test_a_share_has_an_outcome_for_each_size_of_hole() -> None:
    states = States()
    state = states.of(room(1000, 500, 500, 300, 1000))
    outcomes = states.outcomes(state, Demand(400, (), ""))
    assert [(one.hole, sorted(one.after.gpus)) for one in outcomes] == [
        (500, [100, 300, 500, 1000, 1000]),
        (1000, [300, 500, 500, 600, 1000]),
    ]


def test_whole_devices_have_one_outcome_that_tells_over_how_many_cliques() -> None:
    states = States()
    split = states.of(room(1000, 1000, 0, 0, 1000, 1000, 0, 0, links=FOURS))
    (outcome,) = states.outcomes(split, Demand(3000, (), ""))
    assert (outcome.cliques, outcome.after.whole) == (2, 1)
    assert states.outcomes(split, Demand(5000, (), "")) == ()


def test_another_model_and_no_slices_have_no_outcome() -> None:
    states = States()
    state = states.of(room(1000, 1000))
    assert states.outcomes(state, Demand(1000, ("a100",), "")) == ()
    assert states.outcomes(state, Demand(0, (), "1g.10gb")) == ()


def test_a_demand_for_no_device_forgets_the_model() -> None:
    assert Demand.of(Request(1, 1, gpu_models=("h100",))) == Demand.of(Request(2, 2))
    assert not Demand.of(Request(1, 1)).asks
    assert Demand.of(Request(1, 1, mig_profile="1g.5gb")).asks


def test_slots_of_a_state_are_those_of_its_rooms() -> None:
    states = States()
    for request in (Request(0, 0, 300), Request(0, 0, 1000), Request(0, 0, 2000), Request(0, 0, 500, ("a100",))):
        one = room(1000, 900, 200, 1000)
        assert states.of(one).slots(Demand.of(request)) == one.slots(request)
