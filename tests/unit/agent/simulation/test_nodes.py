"""The nodes of a host, and when they break."""

import pytest

from agent import clock
from agent.profiles import GIB
from agent.simulation.nodes import Breakdowns, nodes_of
from tests.support.stages import a_plan
from tests.unit.agent.simulation.test_performance import perform
from trellis.settings import SettingsError
from trellis.simulation import Behaviour, HostPlan, SimulatedNodes, Simulation
from trellis.wire import SliceGrant

DAY_S = 86_400.0


class Time:
    """A clock to be moved."""

    def __init__(self) -> None:
        self.now = 500.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    made = Time()
    monkeypatch.setattr(clock, "boottime", made)
    return made


def story(time: Time, simulation: Simulation, names: list[str], seconds: int) -> list[tuple[float, str, str]]:
    """What happens second by second."""
    began, breakdowns = time.now, Breakdowns(simulation, names)
    told: list[tuple[float, str, str]] = []
    for second in range(seconds):
        time.now = began + second
        told += [(second, "whole", name) for name in breakdowns.repair()]
        told += [(second, "broken", name) for name in breakdowns.strike()]
    return told


def test_nodes_break_as_often_as_the_profile_says_and_are_repaired_after_its_time(time: Time) -> None:
    names = [f"n-{number}" for number in range(100)]
    told = story(time, Simulation(speed=3600, node_mtbf_s=10 * DAY_S, repair_s=10 * 3600), names, seconds=2400)
    assert len([one for one in told if one[1] == "broken"]) == pytest.approx(100 * 2400 / 250, rel=0.1)
    at = {name: [second for second, _, one in told if one == name] for name in names}
    repairs = [after - before for times in at.values() for before, after in zip(times[::2], times[1::2], strict=False)]
    assert set(repairs) <= {10, 11}


def test_equal_seeds_break_the_same_nodes_at_the_same_time_whoever_else_there_is(time: Time) -> None:
    simulation = Simulation(speed=3600, node_mtbf_s=DAY_S, seed=5)
    alone = story(time, simulation, ["a"], 200)
    assert alone
    assert [one for one in story(time, simulation, ["a", "b"], 200) if one[2] == "a"] == alone
    assert story(time, Simulation(speed=3600, node_mtbf_s=DAY_S, seed=6), ["a"], 200) != alone


def test_without_a_time_between_failures_none_breaks(time: Time) -> None:
    assert story(time, Simulation(speed=3600), ["a"], 100) == []


def test_a_node_says_what_it_is_and_how_busy_it_is() -> None:
    node = nodes_of(a_plan(["a-node"]))["a-node"]
    said = node.describe()
    assert (said.cpu_milli, len(said.gpus), said.executors, said.labels) == (
        96_000, 8, ("simulated",), {"executor": "simulated"},
    )  # fmt: skip
    play = perform({"RUN_TIME": "60"}, cpu_milli=48_000)
    node.performances[play.key] = play
    beat = node.heartbeat()
    assert [(held.replica_id, held.state) for held in beat.replicas] == [("r1", "running")]
    assert (beat.load_percent, beat.memory_used_bytes) == (40, 1 << 29)


def test_what_slices_hold_of_a_device_is_memory_and_heat_but_no_figure_of_how_busy_it_is() -> None:
    claims = "gpu_type=H100,gpus=2,partitioned=1,cpu_cores=8"
    node = nodes_of(HostPlan((SimulatedNodes(("a",), claims),), Simulation()))["a"]
    assert [device.partitioned for device in node.describe().gpus] == [False, True]
    small, large = SliceGrant(1, "GPU-x", "1g.10gb+me", 6), SliceGrant(1, "GPU-x", "3g.40gb", 0)
    simulation = Simulation(jobs=(Behaviour(gpu=0.5),))
    for name, pieces in (("r1", (small,)), ("r2", (large,))):
        play = perform({"RUN_TIME": "60"}, simulation, replica_id=name, slices=pieces)
        node.performances[play.key] = play
    idle, cut = node.heartbeat().gpus
    assert (idle.utilisation_percent, idle.memory_used_bytes, idle.power_w) == (0, 0, 40)
    assert (cut.utilisation_percent, cut.memory_used_bytes) == (0, 25 * GIB)
    assert cut.temperature_c > idle.temperature_c


def test_a_simulated_node_must_say_what_it_is() -> None:
    with pytest.raises(SettingsError, match="must say what it is"):
        nodes_of(HostPlan((SimulatedNodes(("a",), ""),), Simulation()))
