"""What a node says of itself."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.ground import Confinement
from agent.nvml import Nvml
from agent.profiles import PROFILES, describe_gpus, read_gpus
from agent.settings import NodeSettings
from agent.telemetry import Telemetry
from trellis.settings import SettingsError
from trellis.vocabulary import Isolation

BASIC = Confinement(Isolation.BASIC, "why")


def test_a_profile_gives_its_devices_cpus_and_memory(tmp_path: Path) -> None:
    node = Telemetry(NodeSettings("http://x", name="n", home=tmp_path, profile="h100x8")).describe(BASIC)
    assert (len(node.gpus), node.profile, node.cpu_milli) == (8, "h100x8", 96_000)
    assert {gpu.memory_bytes for gpu in node.gpus} == {80 * 2**30}
    assert [gpu.numa for gpu in node.gpus] == [0] * 4 + [1] * 4
    assert node.gpus[0].links == (1, 2, 3, 4, 5, 6, 7)


def test_settings_override_what_was_found(tmp_path: Path) -> None:
    settings = NodeSettings("http://x", home=tmp_path, profile="h100x8", cpus=2.5, memory="4GiB")
    node = Telemetry(settings).describe(BASIC)
    assert (node.cpu_milli, node.memory_bytes) == (2500, 4 * 2**30)


def test_devices_of_a_profile_are_stable_and_differ_between_nodes() -> None:
    profile = PROFILES["l4x1"]
    assert describe_gpus(profile, "a") == describe_gpus(profile, "a")
    assert describe_gpus(profile, "a")[0].uuid != describe_gpus(profile, "b")[0].uuid


@pytest.mark.parametrize("name", PROFILES)
def test_every_profile_can_be_described_and_read(name: str) -> None:
    profile = PROFILES[name]
    assert len(describe_gpus(profile, "n")) == len(read_gpus(profile)) == profile.gpus


def test_an_unknown_profile_is_refused_with_the_names_of_the_known(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="h100x8"):
        Telemetry(NodeSettings("http://x", home=tmp_path, profile="h100x9"))


def test_a_heartbeat_measures_the_machine(tmp_path: Path) -> None:
    beat = Telemetry(NodeSettings("http://x", home=tmp_path, profile="t4x4")).heartbeat(())
    assert 0 <= beat.load_percent <= 100
    assert min(beat.memory_used_bytes, beat.disk_free_bytes) > 0
    assert [reading.temperature_c for reading in beat.gpus] == [30] * 4


class _Broken(Exception):
    pass


def _driver(**changes: Any) -> Any:
    """What of the vendor's library is used, with two linked devices."""

    def read(handle: int) -> Any:
        if handle in changes.get("dead", ()):
            raise _Broken
        return SimpleNamespace(gpu=50)

    return SimpleNamespace(
        NVMLError=_Broken, NVML_P2P_CAPS_INDEX_NVLINK=2, NVML_P2P_STATUS_OK=0, NVML_TEMPERATURE_GPU=0,
        nvmlDeviceGetCount=lambda: 2, nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetUUID=lambda handle: f"GPU-{handle}", nvmlDeviceGetMinorNumber=lambda handle: 1 - handle,
        nvmlDeviceGetName=lambda handle: b"NVIDIA Old",
        nvmlDeviceGetPciInfo=lambda handle: SimpleNamespace(busId="00000000:3B:00.0"),
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=16, used=4),
        nvmlDeviceGetP2PStatus=lambda one, other, index: 0, nvmlDeviceGetUtilizationRates=read,
        nvmlDeviceGetTemperature=lambda handle, kind: 60, nvmlDeviceGetPowerUsage=lambda handle: 250_400,
    )  # fmt: skip


def test_devices_are_described_as_the_driver_tells() -> None:
    nvml = Nvml(_driver())
    first = nvml.describe()[0]
    assert (first.uuid, first.model, first.memory_bytes, first.links) == ("GPU-0", "NVIDIA Old", 16, (1,))
    assert nvml.devices() == {"GPU-0": "/dev/nvidia1", "GPU-1": "/dev/nvidia0"}


def test_a_device_that_does_not_answer_is_not_healthy() -> None:
    readings = Nvml(_driver(dead=(1,))).read()
    assert (readings[0].utilisation_percent, readings[0].power_w, readings[0].healthy) == (50, 250, True)
    assert not readings[1].healthy
