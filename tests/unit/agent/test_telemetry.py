"""What a node says of itself."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.ground import Confinement, Ground
from agent.nvml import Nvml, capability_nodes
from agent.profiles import PROFILES, describe_gpus, find, read_gpus
from agent.settings import NodeSettings
from agent.telemetry import Telemetry
from trellis.settings import SettingsError
from trellis.vocabulary import Isolation

GROUND = Ground("/nowhere", Confinement(Isolation.BASIC, "why"), 65533)


def test_a_profile_gives_its_devices_cpus_and_memory(tmp_path: Path) -> None:
    node = Telemetry(NodeSettings("http://x", name="n", home=tmp_path, profile="h100x8")).describe(GROUND)
    assert (len(node.gpus), node.profile, node.cpu_milli) == (8, "h100x8", 96_000)
    assert {gpu.memory_bytes for gpu in node.gpus} == {80 * 2**30}
    assert [gpu.numa for gpu in node.gpus] == [0] * 4 + [1] * 4
    assert node.gpus[0].links == (1, 2, 3, 4, 5, 6, 7)


def test_settings_override_what_was_found(tmp_path: Path) -> None:
    settings = NodeSettings("http://x", home=tmp_path, profile="h100x8", cpus=2.5, memory="4GiB")
    node = Telemetry(settings).describe(GROUND)
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


class _NotSupported(_Broken):
    pass


def _driver(**changes: Any) -> Any:
    """What of the vendor's library is used, with two linked devices."""

    def read(handle: int) -> Any:
        if handle in changes.get("dead", ()):
            raise _Broken
        if handle in changes.get("cut", ()):
            raise _NotSupported
        return SimpleNamespace(gpu=50)

    return SimpleNamespace(
        NVMLError=_Broken, NVMLError_NotSupported=_NotSupported, NVML_P2P_CAPS_INDEX_NVLINK=2, NVML_P2P_STATUS_OK=0, NVML_TEMPERATURE_GPU=0,
        nvmlDeviceGetCount=lambda: 2, nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetMinorNumber=lambda handle: 1 - handle,
        nvmlDeviceGetPciInfo=lambda handle: SimpleNamespace(busId="00000000:3B:00.0"),
        nvmlDeviceGetMemoryInfo=lambda handle: SimpleNamespace(total=16, used=4),
        nvmlDeviceGetP2PStatus=lambda one, other, index: 0, nvmlDeviceGetUtilizationRates=read,
        NVML_DEVICE_MIG_ENABLE=1, nvmlDeviceGetMigMode=lambda handle: (int(handle in changes.get("cut", ())), 0),
        **_slices(), nvmlDeviceGetTemperature=lambda handle, kind: 60, nvmlDeviceGetPowerUsage=lambda handle: 250_400,
    )  # fmt: skip


def _slices() -> dict[str, Any]:
    """Two slices of device 0, numbered 0 and 2: somebody has taken back the one between."""
    cut = {0: ("1g.10gb", 4), 2: ("3g.40gb", 0)}

    def find(handle: int, number: int) -> int:
        if number not in cut:
            raise _Broken
        return 100 + number

    def name(handle: int) -> bytes:
        return f"NVIDIA A100 80GB MIG {cut[handle - 100][0]}".encode() if handle >= 100 else b"NVIDIA Old"

    return {
        "nvmlDeviceGetMaxMigDeviceCount": lambda handle: 7, "nvmlDeviceGetMigDeviceHandleByIndex": find,
        "nvmlDeviceGetName": name, "nvmlDeviceGetUUID": lambda handle: f"{'MIG' if handle >= 100 else 'GPU'}-{handle}",
        "nvmlDeviceGetGpuInstanceId": lambda handle: handle - 90, "nvmlDeviceGetComputeInstanceId": lambda handle: 0,
        "nvmlDeviceGetGpuInstanceById": lambda handle, instance: instance - 10,
        "nvmlGpuInstanceGetInfo": lambda number: SimpleNamespace(placement=SimpleNamespace(start=cut[number][1], size=1)),
    }  # fmt: skip


def test_a_partitioned_device_tells_its_slices_where_they_begin_and_what_they_are_called() -> None:
    nvml = Nvml(_driver(cut=(0,)))
    first, second = nvml.describe()
    assert (first.partitioned, second.partitioned, second.slices) == (True, False, None)
    assert first.slices is not None
    assert [(piece.profile, piece.start) for piece in first.slices] == [("1g.10gb", 4), ("3g.40gb", 0)]
    assert nvml.slices() == {"GPU-0/1g.10gb/4": ("MIG-100",), "GPU-0/3g.40gb/0": ("MIG-102",)}


def test_whoever_uses_a_slice_may_open_what_the_driver_guards_it_with(tmp_path: Path) -> None:
    at = tmp_path / "gpu1" / "mig" / "gi9"
    (at / "ci0").mkdir(parents=True)
    (at / "access").write_text("DeviceFileMinor: 84\nDeviceFileMode: 292\n")
    (at / "ci0" / "access").write_text("DeviceFileMinor: 85\n")
    assert capability_nodes(1, 9, 0, tmp_path) == ("/dev/nvidia-caps/nvidia-cap84", "/dev/nvidia-caps/nvidia-cap85")
    assert capability_nodes(1, 8, 0, tmp_path) == ()


def test_the_last_devices_of_a_profile_may_be_given_in_slices() -> None:
    profile = find("gpu_type=H100,gpus=3,partitioned=2")
    assert profile is not None
    assert [gpu.partitioned for gpu in describe_gpus(profile, "n")] == [False, True, True]
    with pytest.raises(SettingsError, match="how many of its 1 gpus"):
        find("gpu_type=H100,gpus=1,partitioned=2")


def test_devices_are_described_as_the_driver_tells() -> None:
    nvml = Nvml(_driver())
    first = nvml.describe()[0]
    assert (first.uuid, first.model, first.memory_bytes, first.links) == ("GPU-0", "NVIDIA Old", 16, (1,))
    assert nvml.devices() == {"GPU-0": "/dev/nvidia1", "GPU-1": "/dev/nvidia0"}


def test_a_device_that_does_not_answer_is_not_healthy() -> None:
    readings = Nvml(_driver(dead=(1,))).read()
    assert (readings[0].utilisation_percent, readings[0].power_w, readings[0].healthy) == (50, 250, True)
    assert not readings[1].healthy


def test_a_device_that_is_cut_into_instances_is_healthy_though_it_tells_no_utilisation() -> None:
    readings = Nvml(_driver(cut=(0,))).read()
    assert (readings[0].utilisation_percent, readings[0].memory_used_bytes, readings[0].healthy) == (0, 4, True)
