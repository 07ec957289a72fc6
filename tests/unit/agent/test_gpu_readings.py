"""What GPUs say, from the driver's library to a replica's metrics. No GPU was there: the library's own border is played."""

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml
import pytest

from agent import clock
from agent.gpu_readings import STALE_S, GpuMeter, publish, uuids_of
from agent.ground import Confinement, Ground, slice_key
from agent.layout import Home
from agent.nvml import Nvml
from agent.sampling import Sampler, own_network
from agent.settings import NodeSettings
from agent.telemetry import Telemetry
from tests.support.agent_api import a_spec
from trellis.vocabulary import Isolation, ReplicaState
from trellis.wire import GpuGrant, Held, SliceGrant

HELD = (Held("r", 1, ReplicaState.RUNNING),)
BASIC = Confinement(Isolation.BASIC, "why")


def written(number: Any, value: float) -> int:
    """What a C function does with an argument that it was given by reference."""
    number._obj.value = value
    return int(pynvml.NVML_SUCCESS)


def fields_of(count: int, values: Any) -> int:
    told = {pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX: 3, pynvml.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX: 5}
    for one in values._obj[:count]:
        assert one.scopeId == 0xFFFFFFFF
        one.nvmlReturn, one.value.ullVal = pynvml.NVML_SUCCESS, told[one.fieldId]
    return int(pynvml.NVML_SUCCESS)


def attributes(target: Any, **values: float) -> int:
    for name, value in values.items():
        setattr(target._obj, name, value)
    return int(pynvml.NVML_SUCCESS)


def uuid(_: Any, text: Any, __: Any) -> int:
    text.value = b"GPU-0"
    return int(pynvml.NVML_SUCCESS)


def unsupported(*_: Any) -> int:
    return int(pynvml.NVML_ERROR_NOT_SUPPORTED)


FUNCTIONS: dict[str, Callable[..., int]] = {
    "nvmlDeviceGetCount_v2": lambda count: written(count, 1),
    "nvmlDeviceGetHandleByIndex_v2": lambda index, handle: int(pynvml.NVML_SUCCESS),
    "nvmlDeviceGetUUID": uuid,
    "nvmlDeviceGetMigMode": unsupported,
    "nvmlDeviceGetUtilizationRates": lambda handle, rates: attributes(rates, gpu=87, memory=40),
    "nvmlDeviceGetMemoryInfo": lambda handle, memory: attributes(memory, total=80 << 30, used=60 << 30, free=20 << 30),
    "nvmlDeviceGetPowerUsage": lambda handle, milliwatts: written(milliwatts, 612_500),
    "nvmlDeviceGetTemperature": lambda handle, sensor, degrees: written(degrees, 71),
    "nvmlDeviceGetTotalEccErrors": lambda handle, kind, since, errors: written(errors, 2),
    "nvmlDeviceGetFieldValues": lambda handle, count, values: fields_of(count.value, values),
}


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Callable[..., int]]]:
    """The vendor's C functions by name: the real Python library calls them, with its own structures."""
    functions = dict(FUNCTIONS)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer", lambda name: functions[name])
    return functions  # type: ignore[return-value]  # nothing is to be undone but what monkeypatch undoes


def test_a_device_tells_its_figures(driver: dict[str, Callable[..., int]]) -> None:
    assert Nvml(pynvml).figures() == {
        "GPU-0": {
            "utilisation_percent": 87, "memory_bytes": 60 << 30, "power_w": 612.5, "temperature_c": 71, "ecc_errors": 2,
            "nvlink_sent_bytes": 3072, "nvlink_received_bytes": 5120,
        }
    }  # fmt: skip


def test_a_device_that_lacks_one_thing_tells_the_others(driver: dict[str, Callable[..., int]]) -> None:
    for name in ("nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetFieldValues", "nvmlDeviceGetPowerUsage"):
        driver[name] = unsupported
    assert Nvml(pynvml).figures() == {
        "GPU-0": {"utilisation_percent": 87, "memory_bytes": 60 << 30, "temperature_c": 71}
    }


def test_a_replica_is_told_of_its_own_devices_and_of_no_others(tmp_path: Path) -> None:
    publish(tmp_path / "gpus", {"GPU-a": {"power_w": 1.0}, "GPU-b": {"power_w": 2.0}, "GPU-c": {"power_w": 3.0}})
    assert GpuMeter(tmp_path / "gpus", ("GPU-c", "GPU-a")).read() == {"gpu0_power_w": 3.0, "gpu1_power_w": 1.0}
    assert GpuMeter(tmp_path / "gpus").read() == {}
    assert GpuMeter(tmp_path / "gpus", ("GPU-gone",)).read() == {}


def test_counters_are_told_as_rates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meter = GpuMeter(tmp_path / "gpus", ("GPU-a",))
    told = []
    for at, sent in ((100.0, 5000.0), (110.0, 25_000.0), (120.0, 1000.0)):  # the last: the driver was loaded anew
        monkeypatch.setattr("agent.clock.boottime", lambda at=at: at)
        publish(tmp_path / "gpus", {"GPU-a": {"nvlink_sent_bytes": sent}})
        told.append(meter.read())
    assert told == [{}, {"gpu0_nvlink_sent_bytes_per_s": 2000.0}, {"gpu0_nvlink_sent_bytes_per_s": 0.0}]


def test_what_nobody_has_asked_lately_is_not_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path / "gpus", {"GPU-a": {"power_w": 1.0}})
    now = clock.boottime()
    monkeypatch.setattr("agent.clock.boottime", lambda: now + STALE_S + 1)
    assert GpuMeter(tmp_path / "gpus", ("GPU-a",)).read() == {}


def test_a_slice_is_known_by_a_uuid_of_its_own(tmp_path: Path) -> None:
    ground = Ground(str(tmp_path), BASIC, 0, slices={slice_key("GPU-a", "1g.10gb", 4): ("MIG-1", "/dev/x")})
    spec = a_spec("r1", "/bin/true", gpus=(GpuGrant(1, "GPU-b", 500),), slices=(SliceGrant(0, "GPU-a", "1g.10gb", 4),))
    assert uuids_of(ground, spec) == ("GPU-b", "MIG-1")


def test_a_node_of_a_profile_tells_what_the_profile_says(tmp_path: Path) -> None:
    home = Home(tmp_path)
    telemetry = Telemetry(NodeSettings("http://x", name="n", home=tmp_path, profile="h100x8"))
    telemetry.heartbeat(())
    assert not home.gpus.exists()  # nobody is there to be told
    telemetry.heartbeat(HELD)
    uuids = [gpu.uuid for gpu in telemetry.describe(Ground(str(tmp_path), BASIC, 0)).gpus]
    found = Sampler(GpuMeter(home.gpus, uuids[2:4])).sample([], 0.0)
    assert {name: found[f"trellis/gpu1_{name}"] for name in ("power_w", "temperature_c", "utilisation_percent")} == {
        "power_w": 70.0, "temperature_c": 30.0, "utilisation_percent": 0.0,
    }  # fmt: skip
    assert "trellis/gpu2_power_w" not in found


NET_DEV = """Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo: 9999 1 0 0 0 0 0 0 9999 1 0 0 0 0 0 0
  eth0: 1000 1 0 0 0 0 0 0 200 1 0 0 0 0 0 0
tap0:30000000000 1 0 0 0 0 0 0 4 1 0 0 0 0 0 0
"""


def proc(folder: Path, *processes: tuple[str, str, str]) -> str:
    for pid, namespace, text in processes:
        (folder / pid / "ns").mkdir(parents=True)
        (folder / pid / "ns/net").symlink_to(namespace)
        (folder / pid / "net").mkdir()
        (folder / pid / "net/dev").write_text(text)
    return str(folder)


def test_a_network_of_its_own_is_counted_but_for_the_loopback(tmp_path: Path) -> None:
    folder = proc(tmp_path, ("self", "net:[1]", ""), ("7", "net:[1]", NET_DEV), ("8", "net:[2]", NET_DEV))
    assert own_network([7, 8, 9], folder) == (30_000_001_000, 204)


@pytest.mark.parametrize("text", ["\n".join(NET_DEV.splitlines()[:3]), ""])
def test_of_a_network_that_is_none_or_the_nodes_nothing_is_told(tmp_path: Path, text: str) -> None:
    folder = proc(tmp_path, ("self", "net:[1]", ""), ("7", "net:[1]", NET_DEV), ("8", "net:[2]", text))
    assert own_network([7], folder) is None
    assert own_network([7, 8], folder) is None


def test_traffic_is_told_as_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = iter([(1000, 50), (3000, 40)])
    monkeypatch.setattr("agent.sampling.own_network", lambda pids: next(counts))
    monkeypatch.setattr("agent.sampling.time", SimpleNamespace(monotonic=iter([0.0, 10.0, 20.0]).__next__))
    sampler = Sampler()
    told = [sampler.sample([], 0.0) for _ in range(2)]
    assert [one["trellis/network_received_bytes_per_s"] for one in told] == [100.0, 200.0]
    assert [one["trellis/network_sent_bytes_per_s"] for one in told] == [5.0, 0.0]
