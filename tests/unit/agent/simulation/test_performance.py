"""One replica on a simulated node, in a time of its own."""

import json
import signal
from typing import Any

import pytest

from agent.executors.base import StartFailed
from agent.executors.simulated import Part, SimulatedExecutor
from agent.simulation.performance import Performance
from tests.support.agent_api import a_spec
from trellis.simulation import Behaviour, Curve, Simulation
from trellis.vocabulary import Cause, ReplicaState, StopReason
from trellis.wire import Receipt

NEVER = float("inf")
NOW, NOW_US = 1000.0, 1_700_000_000_000_000


def perform(wishes: dict[str, str], simulation: Simulation | None = None, **changes: Any) -> Performance:
    """One that began at NOW."""
    environment = {f"SIMULATE_{name}": text for name, text in wishes.items()}
    spec = a_spec(changes.pop("replica_id", "r1"), "true", environment=environment, memory_bytes=1 << 30, **changes)
    executor = SimulatedExecutor(simulation or Simulation())
    playing = executor.start(Part.of(spec), NOW, NOW_US)
    made = Performance(executor, playing.part, "a-node", playing)
    made.begin(NOW)
    return made


def test_ends_by_itself_when_its_run_time_is_over_and_not_before() -> None:
    one = perform({"RUN_TIME": "90"})
    one.advance(NOW + 89.9, NEVER)
    assert one.state is ReplicaState.RUNNING
    one.advance(NOW + 95, NEVER)
    assert (one.state, one.reports[-1].run_s, one.reports[-1].exit_code) == (ReplicaState.SUCCEEDED, 90, 0)


def test_speed_shortens_what_is_played_and_not_what_the_platform_limits() -> None:
    one = perform({"RUN_TIME": "1h"}, Simulation(speed=60), time_limit_s=30)
    one.advance(NOW + 29, NEVER)
    assert one.state is ReplicaState.RUNNING
    one.advance(NOW + 60, NEVER)
    end = one.reports[-1]
    assert (end.state, end.cause, end.run_s) == (ReplicaState.TIMED_OUT, Cause.TIME_LIMIT, 30)


@pytest.mark.parametrize(
    ("wishes", "state", "cause", "code"),
    [
        ({"EXIT_CODE": "7"}, ReplicaState.FAILED, Cause.EXIT_CODE, 7),
        ({"FAILURE": "exit_code"}, ReplicaState.FAILED, Cause.EXIT_CODE, 1),
        ({"FAILURE": "signal"}, ReplicaState.FAILED, Cause.SIGNAL, 128 + signal.SIGSEGV),
        ({"FAILURE": "out_of_memory"}, ReplicaState.FAILED, Cause.OUT_OF_MEMORY, 128 + signal.SIGKILL),
    ],
)
def test_fails_as_it_wishes(wishes: dict[str, str], state: ReplicaState, cause: Cause, code: int) -> None:
    one = perform({"RUN_TIME": "10", **wishes})
    one.advance(NOW + 10, NEVER)
    assert (one.state, one.reports[-1].cause, one.reports[-1].exit_code) == (state, cause, code)


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({"RUN_TIME": "soon"}, "SIMULATE_RUN_TIME must be a duration"),
        ({"EXIT_CODE": "256"}, "SIMULATE_EXIT_CODE must be a whole number from 0 to 255"),
        ({"STEPS": "-1"}, "SIMULATE_STEPS must be"),
        ({"FAILURE": "bored"}, "SIMULATE_FAILURE must be one of exit_code"),
        ({"FAILURE": "start_failed"}, "to fail to start"),
    ],
)
def test_does_not_start_with_wishes_that_nobody_understands(wishes: dict[str, str], says: str) -> None:
    with pytest.raises(StartFailed, match=says):
        perform(wishes)


def test_the_end_of_the_lease_ends_it_however_late_that_is_noticed() -> None:
    one = perform({"RUN_TIME": "1h"}, grace_s=0)
    one.advance(NOW + 600, lease_ends_at=NOW + 20)
    end = one.reports[-1]
    assert (end.state, end.cause, end.run_s) == (ReplicaState.LOST, Cause.NODE_LOST, 20)


def test_a_second_reason_makes_its_end_sooner_and_leaves_the_first_as_the_cause() -> None:
    one = perform({"RUN_TIME": "1h", "STOPS_IN": "1h"})
    one.wish(StopReason.PREEMPTED, 60, NOW + 1)
    one.wish(StopReason.CANCELLED, 5, NOW + 2)
    one.advance(NOW + 7, NEVER)
    assert (one.state, one.reports[-1].signal, one.reports[-1].run_s) == (ReplicaState.PREEMPTED, signal.SIGKILL, 7)


def test_of_one_that_is_stale_nothing_more_is_told() -> None:
    one = perform({"RUN_TIME": "1h"})
    one.wish(StopReason.STALE, 0, NOW + 1)
    assert one.done
    assert not one.load()


def test_lines_and_points_come_with_the_steps_each_once() -> None:
    rules = Behaviour(steps=4, metrics=(Curve("loss", 2.0, 0.0), Curve("accuracy", 0.0, 1.0)))
    one = perform({"RUN_TIME": "40"}, Simulation(jobs=(rules,)))
    one.advance(NOW + 20, NEVER)
    half = one.load()
    assert half.log is not None
    assert [line.split(" ", 2)[2] for line in half.log.text.splitlines()][1:] == [
        f"step {step} of 4 loss {one_loss:.6g} accuracy {1 - one_loss / 2:.6g}"
        for step, one_loss in ((1, 2 * 2.718281828459045**-1), (2, 2 * 2.718281828459045**-2))
    ]
    one.accept(Receipt({"r1": len(half.log.text)}, {"r1": 4}, {"r1": 2}, ()))
    one.advance(NOW + 40, NEVER)
    rest = one.load()
    assert rest.log is not None
    assert (rest.log.offset, len(rest.log.text.splitlines())) == (len(half.log.text), 2)
    assert [(point.seq, point.name, point.step) for point in half.metrics + rest.metrics] == [
        (2 * step + place - 2, name, step) for step in range(1, 5) for place, name in ((1, "loss"), (2, "accuracy"))
    ]
    one.accept(Receipt({"r1": rest.log.offset + len(rest.log.text)}, {"r1": 8}, {"r1": 3}, ()))
    assert one.done


@pytest.mark.parametrize("at", [12.0, 60.0])
def test_another_process_goes_on_with_it_byte_for_byte(at: float) -> None:
    one = perform({"RUN_TIME": "50", "STEPS": "5"})
    one.advance(NOW + at, NEVER)
    other = Performance.from_record(one.executor, json.loads(json.dumps(one.as_record())))
    for each in (one, other):
        each.advance(NOW + 60, NEVER)
    assert other.load() == one.load()
    assert other.state is ReplicaState.SUCCEEDED


def test_members_of_a_gang_run_equally_long_and_jobs_differ() -> None:
    drawn = Simulation(jobs=(Behaviour(run_s=100, spread=1.0),))
    times = {
        (job, index): play.playing.play.run_s
        for job in ("a", "b")
        for index in (0, 1)
        if (play := perform({}, drawn, job_id=job, replica_id=f"r{index}", index=index)).playing
    }
    assert times["a", 0] == times["a", 1] != times["b", 0] == times["b", 1]


def test_the_share_that_fails_is_that_of_the_profile() -> None:
    executor = SimulatedExecutor(Simulation(jobs=(Behaviour(fails={"exit_code": 0.2, "signal": 0.1}),)))
    codes = [executor.start(Part.of(a_spec(f"r{number}", "true")), NOW, NOW_US).play.code for number in range(2000)]
    assert codes.count(1) / 2000 == pytest.approx(0.2, abs=0.03)
    assert codes.count(128 + signal.SIGSEGV) / 2000 == pytest.approx(0.1, abs=0.03)


def test_the_first_rule_whose_pattern_matches_decides() -> None:
    rules = (Behaviour("train-*", run_s=10), Behaviour("*", run_s=20))
    executor = SimulatedExecutor(Simulation(jobs=rules))
    runs = [
        executor.start(Part.of(a_spec("r", "true", job_name=name)), NOW, NOW_US).play.run_s for name in ("train-1", "x")
    ]
    assert runs == [10, 20]
