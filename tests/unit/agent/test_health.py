"""What a node finds wrong with itself, from readings as machines and devices give them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.ground import Confinement, Hooks
from agent.health.checks import Room, check_disk, check_programs, judge_memory, judge_room
from agent.health.devices import XID_HELD_S, DeviceCheck, DeviceState, judge, recorded
from agent.health.watch import HealthWatch, check_by_hook
from agent.nvml import Nvml
from agent.settings import NodeSettings
from agent.telemetry import Telemetry, sane
from trellis.readings import faults_in
from trellis.vocabulary import Isolation, Severity
from trellis.wire import Finding, GpuReading, Heartbeat

GIB = 2**30


def found(findings: Any) -> list[tuple[str, str]]:
    return [(one.check, str(one.severity)) for one in findings]


@pytest.mark.parametrize(
    ("room", "expected"),
    [
        (Room(500 * GIB, 1000 * GIB, 9, 10), []),
        (Room(GIB // 2, 1000 * GIB), [("disk", "bad")]),
        (Room(2 * GIB, 100 * GIB), [("disk", "bad")]),
        (Room(70 * GIB, 1000 * GIB), []),  # 7 % of much is much
        (Room(7 * GIB, 100 * GIB), [("disk", "warning")]),
        (Room(50 * GIB, 100 * GIB, 1, 100), [("inodes", "bad")]),
        (Room(50 * GIB, 100 * GIB, 0, 0), []),  # a file system that does not count them
        (Room(50 * GIB, 100 * GIB, read_only=True), [("disk", "bad")]),
        (Room(0, 0), [("disk", "bad")]),
    ],
)
def test_a_disk_without_room_is_found(room: Room, expected: list[tuple[str, str]]) -> None:
    assert found(judge_room(room, "the home")) == expected


def test_a_home_that_can_not_be_written_is_found(tmp_path: Path) -> None:
    roomy = Room(500 * GIB, 1000 * GIB)
    assert found(check_disk(tmp_path, lambda _: roomy)) == []
    assert found(check_disk(tmp_path / "gone", lambda _: roomy)) == [("disk", "bad")]
    assert found(check_disk(tmp_path / "gone")) == [("disk", "bad")]


def test_memory_that_runs_out_is_found() -> None:
    assert found(judge_memory(10 * GIB, 100 * GIB)) == []
    assert found(judge_memory(GIB, 100 * GIB)) == [("memory", "bad")]


def test_a_sandbox_that_is_gone_is_found(tmp_path: Path) -> None:
    program = tmp_path / "bwrap"
    confinement = Confinement(Isolation.NAMESPACES, "", bwrap=str(program))
    assert found(check_programs(confinement)) == [("isolation", "bad")]
    program.touch(mode=0o755)
    assert found(check_programs(confinement)) == []
    assert found(check_programs(Confinement(Isolation.BASIC, ""))) == []


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (DeviceState(0, temperature_c=60, slowdown_c=90, shutdown_c=95), []),
        (DeviceState(0, fault="GPU is lost"), [("device", "bad")]),
        (DeviceState(0, uncorrected=2), [("ecc", "bad")]),
        (DeviceState(0, remap_failed=True, remap_pending=True), [("remap", "bad")]),
        (DeviceState(0, remap_pending=True), [("remap", "warning")]),
        (DeviceState(0, xids=(79, 79)), [("xid", "bad")]),
        (DeviceState(0, xids=(13, 31)), []),  # a program's fault
        (DeviceState(0, temperature_c=91, slowdown_c=90, shutdown_c=95), [("heat", "warning")]),
        (DeviceState(0, temperature_c=96, slowdown_c=90, shutdown_c=95), [("heat", "bad")]),
        (DeviceState(0, temperature_c=96), []),  # one that knows no limit
    ],
)
def test_a_device_is_judged_by_what_it_says(state: DeviceState, expected: list[tuple[str, str]]) -> None:
    assert found(judge(state)) == expected


def test_an_xid_is_told_once_and_stands_against_the_device_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("agent.clock.boottime", lambda: now[0])
    said = iter([(DeviceState(1, xids=(79,)),), (DeviceState(1),), (DeviceState(1),)])
    check = DeviceCheck(lambda: next(said))
    assert found(check()) == [("xid", "bad")]
    now[0] += XID_HELD_S - 1
    assert found(check()) == [("xid", "bad")]
    now[0] += 2
    assert found(check()) == []


def test_devices_of_a_profile_say_what_a_record_says(tmp_path: Path) -> None:
    record = tmp_path / "devices.json"
    settings = NodeSettings("http://x", home=tmp_path, profile="h100x8", device_record=str(record))
    states = Telemetry(settings).states()
    assert states is not None
    assert found(DeviceCheck(states)()) == []
    record.write_text(json.dumps([{"index": 3, "uncorrected": 1}, {"index": 5, "fault": "GPU is lost"}]))
    assert [(one.check, one.device) for one in DeviceCheck(states)()] == [("ecc", 3), ("device", 5)]


@pytest.mark.parametrize("text", ["{", "[1]", '[{"index": 0, "colour": "red"}]', "3"])
def test_a_record_that_makes_no_sense_is_a_finding_and_no_end(tmp_path: Path, text: str) -> None:
    record = tmp_path / "devices.json"
    record.write_text(text)
    watch = HealthWatch([DeviceCheck(recorded(record)), lambda: [Finding("b", Severity.BAD, "x")]], 60)
    assert [one.check for one in watch.look().findings] == ["check", "b"]
    assert watch.look().number == 2


class _Broken(Exception):
    pass


def _driver(**changes: Any) -> Any:
    """What of the vendor's library is used, with readings recorded on two devices of which the second is lost."""
    events = list(changes.get("events", ()))

    def lost(handle: int, *_: Any) -> Any:
        if handle == 1:
            raise _Broken("GPU is lost")
        return changes.get("heat", 40)

    def wait(_: Any, __: int) -> Any:
        if not events:
            raise _Broken("Timeout")
        return SimpleNamespace(device=0, eventData=events.pop())

    def unknown(*_: Any) -> Any:
        raise _Broken("Not Supported")

    return SimpleNamespace(
        NVMLError=_Broken, NVML_TEMPERATURE_GPU=0, NVML_TEMPERATURE_THRESHOLD_SLOWDOWN=1,
        NVML_TEMPERATURE_THRESHOLD_SHUTDOWN=2, NVML_MEMORY_ERROR_TYPE_UNCORRECTED=1, NVML_VOLATILE_ECC=0,
        nvmlEventTypeXidCriticalError=8, nvmlDeviceGetCount=lambda: 2, nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}", nvmlDeviceGetTemperature=lost,
        nvmlDeviceGetTemperatureThreshold=lambda handle, kind: {1: 90, 2: 95}[kind],
        nvmlDeviceGetTotalEccErrors=changes.get("ecc", unknown), nvmlDeviceGetRemappedRows=lambda handle: [0, 1, 1, 0],
        nvmlEventSetCreate=changes.get("listen", lambda: "a set"), nvmlDeviceRegisterEvents=lambda *_: None,
        nvmlEventSetWait_v2=wait,
    )  # fmt: skip


def test_the_driver_is_asked_for_errors_heat_and_what_it_heard() -> None:
    nvml = Nvml(_driver(events=[79], ecc=lambda *_: 3, heat=93))
    first, second = nvml.states()
    assert first == DeviceState(0, "", 3, False, True, 93, 90, 95, (79,))
    assert (second.index, second.fault) == (1, "GPU is lost")
    assert nvml.states()[0].xids == ()


def test_a_model_that_knows_no_such_errors_is_well() -> None:
    assert Nvml(_driver()).states()[0].uncorrected == 0

    def unheard() -> Any:
        raise _Broken

    assert Nvml(_driver(listen=unheard, events=[79])).states()[0].xids == ()


def test_a_reading_that_can_not_be_is_one_of_a_device_that_is_not_well() -> None:
    usual = GpuReading(0, 50, GIB, 60, 300)
    assert sane(usual) is usual
    for broken in (
        GpuReading(0, -1, 0, 0, 0), GpuReading(0, 50, 2**64 - 1, 0, 0), GpuReading(0, 50, 0, 2**31, 0),
        GpuReading(0, 101, 0, 0, 0), GpuReading(0, 0, 0, 0, -5),
    ):  # fmt: skip
        assert not sane(broken).healthy
        assert list(faults_in(Heartbeat((), 0, 0, 0, gpus=(sane(broken),)))) == []
        assert list(faults_in(Heartbeat((), 0, 0, 0, gpus=(broken,))))


def a_hook(tmp_path: Path, text: str, within_s: float = 5.0) -> Hooks:
    program = tmp_path / "health"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return Hooks(health=str(program), within_s=within_s, node="n1")


@pytest.mark.parametrize(
    ("text", "severity", "words"),
    [
        ("echo fan 2 is slow; exit 1", "warning", "fan 2 is slow"),
        ("echo the fabric is down; echo more; exit 2", "bad", "the fabric is down"),
        ("exit 7", "bad", "ended with 7"),
        ("kill -9 $$", "bad", "ended with -9"),
        ("sleep 60 & sleep 60", "bad", "took too long"),
    ],
)
def test_the_operators_own_check_speaks_by_its_exit_code_and_one_line(
    tmp_path: Path, text: str, severity: str, words: str
) -> None:
    (finding,) = check_by_hook(a_hook(tmp_path, text, within_s=0.5))
    assert (finding.check, str(finding.severity)) == ("hook", severity)
    assert words in finding.message
    assert "more" not in finding.message


def test_a_check_that_is_content_finds_nothing(tmp_path: Path) -> None:
    assert list(check_by_hook(a_hook(tmp_path, "echo all is well"))) == []
    assert [one.severity for one in check_by_hook(Hooks(health=str(tmp_path / "none")))] == [Severity.BAD]
