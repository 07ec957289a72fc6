"""When a replica counts as one that does nothing."""

from pathlib import Path

import pytest

from agent.clock import boottime
from agent.gpu_readings import STALE_S, publish
from agent.hanging import HangWatch, are_devices_busy
from agent.layout import Home
from tests.support.agent_api import a_spec
from trellis.wire import GpuGrant


class _Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Time:
    clock = _Time()
    monkeypatch.setattr("agent.hanging.time", clock)
    return clock


def watch(tmp_path: Path) -> HangWatch:
    return HangWatch(Home(tmp_path), a_spec("r1", "true", hang_after_s=60.0))


def test_who_does_nothing_for_too_long_hangs_and_is_told_of_once(tmp_path: Path, clock: _Time) -> None:
    hang = watch(tmp_path)
    heard = []
    for _ in range(12):
        clock.now += 10
        heard.append(hang.look(1.0, busy=False))
    # The first look saw the second of CPU that it took before.
    assert heard == [None] * 6 + [60.0] + [None] * 5


def test_output_cpu_and_devices_each_are_a_sign_of_life(tmp_path: Path, clock: _Time) -> None:
    for sign in ("output", "cpu", "device"):
        hang, cpu_s = watch(tmp_path), 0.0
        for _ in range(20):
            clock.now += 10
            cpu_s += 0.2 if sign == "cpu" else 0.0
            if sign == "output":
                hang.stir()
            assert hang.look(cpu_s, busy=sign == "device") is None


def test_a_process_that_only_wakes_now_and_then_does_nothing(tmp_path: Path, clock: _Time) -> None:
    hang, cpu_s = watch(tmp_path), 0.0
    heard = []
    for _ in range(7):
        clock.now += 10
        cpu_s += 0.01
        heard.append(hang.look(cpu_s, busy=False))
    assert 60.0 in heard


def test_one_that_stirred_again_is_told_of_again(tmp_path: Path, clock: _Time) -> None:
    hang = watch(tmp_path)
    clock.now += 61
    assert hang.look(0.0, busy=False) == 61.0
    hang.stir()
    clock.now += 61
    assert hang.look(0.0, busy=False) == 61.0


def test_devices_are_busy_by_what_the_node_last_read_of_them(tmp_path: Path) -> None:
    home = Home(tmp_path)
    first, second, blind = (
        a_spec("r1", "true", gpus=(GpuGrant(number, f"GPU-{name}", 1000),)) for number, name in enumerate("abc")
    )
    assert not are_devices_busy(home, first)
    publish(home.gpus, {"GPU-a": {"utilisation_percent": 0}, "GPU-b": {"utilisation_percent": 90}, "GPU-c": {}})
    assert [are_devices_busy(home, spec) for spec in (first, second, blind)] == [False, True, False]
    assert not are_devices_busy(home, a_spec("r1", "true"))


def test_nobody_hangs_by_a_reading_of_devices_that_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home, spec = Home(tmp_path), a_spec("r1", "true", gpus=(GpuGrant(0, "GPU-a", 1000),))
    publish(home.gpus, {"GPU-a": {"utilisation_percent": 0}})
    later = boottime() + STALE_S + 1
    monkeypatch.setattr("agent.clock.boottime", lambda: later)
    assert are_devices_busy(home, spec)
