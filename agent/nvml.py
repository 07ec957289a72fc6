"""The machine's NVIDIA devices, where there is a driver and the library to ask it."""

import os
from importlib import import_module
from types import ModuleType
from typing import Any

from trellis.wire import GpuDescription, GpuReading

_library: ModuleType | None
try:
    _library = import_module("pynvml")
except ImportError:  # an optional dependency
    _library = None


class Nvml:
    """The driver, once asked for; `find` says whether there is one."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(library.nvmlDeviceGetCount())]

    @classmethod
    def find(cls) -> "Nvml | None":
        """None where the library, the driver or a device is missing."""
        if _library is None:
            return None
        try:
            _library.nvmlInit()
            nvml = cls(_library)
        except _library.NVMLError:
            return None
        return nvml if nvml._handles else None

    def describe(self) -> tuple[GpuDescription, ...]:
        """Every device, with those it shares an interconnect with."""
        return tuple(self._describe(index, handle) for index, handle in enumerate(self._handles))

    def devices(self) -> dict[str, str]:
        """Each device's node, by its uuid."""
        library = self._library
        return {
            _text(library.nvmlDeviceGetUUID(handle)): f"/dev/nvidia{library.nvmlDeviceGetMinorNumber(handle)}"
            for handle in self._handles
        }

    def read(self) -> tuple[GpuReading, ...]:
        """Every device now; one that does not answer is not healthy."""
        return tuple(self._read(index, handle) for index, handle in enumerate(self._handles))

    def _describe(self, index: int, handle: Any) -> GpuDescription:
        library = self._library
        bus = _bus_id(library.nvmlDeviceGetPciInfo(handle))
        return GpuDescription(
            index=index,
            uuid=_text(library.nvmlDeviceGetUUID(handle)),
            model=_text(library.nvmlDeviceGetName(handle)),
            memory_bytes=int(library.nvmlDeviceGetMemoryInfo(handle).total),
            numa=_numa_node(bus),
            links=tuple(other for other in range(len(self._handles)) if other != index and self._linked(handle, other)),
        )

    def _linked(self, handle: Any, other: int) -> bool:
        library = self._library
        try:
            status = library.nvmlDeviceGetP2PStatus(handle, self._handles[other], library.NVML_P2P_CAPS_INDEX_NVLINK)
        except library.NVMLError:
            return False
        return bool(status == library.NVML_P2P_STATUS_OK)

    def _read(self, index: int, handle: Any) -> GpuReading:
        library = self._library
        try:
            return GpuReading(
                index=index,
                utilisation_percent=self._utilisation_percent(handle),
                memory_used_bytes=int(library.nvmlDeviceGetMemoryInfo(handle).used),
                temperature_c=int(library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU)),
                power_w=int(library.nvmlDeviceGetPowerUsage(handle)) // 1000,
            )
        except library.NVMLError:
            return GpuReading(index, 0, 0, 0, 0, healthy=False)

    def _utilisation_percent(self, handle: Any) -> int:
        """0 where the device does not tell: one that is cut into instances (MIG) has no figure of its own."""
        try:
            return int(self._library.nvmlDeviceGetUtilizationRates(handle).gpu)
        except self._library.NVMLError_NotSupported:
            return 0


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _bus_id(pci: Any) -> str:
    """The address as /sys spells it: a domain of four digits, lower case."""
    domain, rest = _text(pci.busId).lower().split(":", 1)
    return f"{domain[-4:]}:{rest}"


def _numa_node(bus: str) -> int:
    path = f"/sys/bus/pci/devices/{bus}/numa_node"
    if not os.path.exists(path):
        return 0
    with open(path, encoding="ascii") as file:
        return max(0, int(file.read()))  # -1 where there is but one
