"""What the `simulation` part of a profile may say."""

from typing import Any

import pytest

from trellis.simulation import Behaviour, Curve, Misshapen, Simulation, read_simulation
from trellis.wire import pack, unpack


def test_nothing_said_is_the_usual() -> None:
    assert read_simulation(None) == Simulation()


def test_every_word_is_read_in_base_units_and_crosses_to_the_host_unchanged() -> None:
    rule = {
        "name": "train-*", "run_time": "2h", "spread": 1, "steps": 5, "fails": {"exit_code": 0.5}, "stops_in": "30s",
        "metrics": {"loss": {"from": 2, "to": 0.5, "noise": 0.1}}, "cpu": 0.1, "memory": 0.2, "gpu": 0.3,
    }  # fmt: skip
    read = read_simulation({"speed": 60, "seed": 3, "node_mtbf": "30d", "repair": "10m", "jobs": [rule]})
    wanted = Behaviour("train-*", 7200, 1, 5, (Curve("loss", 2, 0.5, 0.1),), {"exit_code": 0.5}, 30, 0.1, 0.2, 0.3)
    assert read == Simulation(60, 3, 2_592_000, 600, (wanted,))
    assert unpack(Simulation, pack(read)) == read


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ([], "simulation"),
        ({"haste": 1}, "simulation.haste"),
        ({"speed": 0}, "simulation.speed"),
        ({"speed": True}, "simulation.speed"),
        ({"speed": float("nan")}, "simulation.speed"),
        ({"seed": 1.5}, "simulation.seed"),
        ({"node_mtbf": "never"}, "simulation.node_mtbf"),
        ({"jobs": {}}, "simulation.jobs"),
        ({"jobs": [{"name": ""}]}, "simulation.jobs[0].name"),
        ({"jobs": [{}, {"run_time": -1}]}, "simulation.jobs[1].run_time"),
        ({"jobs": [{"steps": 1001}]}, "simulation.jobs[0].steps"),
        ({"jobs": [{"fails": {"boredom": 0.1}}]}, "simulation.jobs[0].fails.boredom"),
        ({"jobs": [{"fails": {"exit_code": 0.6, "signal": 0.6}}]}, "simulation.jobs[0].fails"),
        ({"jobs": [{"metrics": {"loss": 1}}]}, "simulation.jobs[0].metrics.loss"),
        ({"jobs": [{"metrics": {"loss": {"from": "a"}}}]}, "simulation.jobs[0].metrics.loss.from"),
    ],
)
def test_a_fault_is_named_by_where_it_is(content: Any, path: str) -> None:
    with pytest.raises(Misshapen) as raised:
        read_simulation(content)
    assert raised.value.path == path
