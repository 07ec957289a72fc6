"""The machine's NVIDIA devices, where there is a driver and the library to ask it."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from agent.ground import slice_key
from agent.health.devices import DeviceState
from trellis.wire import GpuDescription, GpuReading, SliceDescription

_CAPABILITIES = Path("/proc/driver/nvidia/capabilities")
# The driver sums up over all links of a device where it is asked for this one.
_ALL_LINKS = 0xFFFFFFFF
_MINOR = re.compile(r"DeviceFileMinor: (\d+)")

T = TypeVar("T")
# Of one look: a device that fails tells of the same thing again and again.
_MOST_EVENTS = 256

_library: ModuleType | None
try:
    _library = import_module("pynvml")
except ImportError:  # an optional dependency
    _library = None


@dataclass(frozen=True, slots=True)
class _Piece:
    """A slice: `instance` and `compute` are the driver's numbers of it."""

    handle: Any
    uuid: str
    profile: str
    start: int
    instance: int
    compute: int


class Nvml:
    """The driver, once asked for; `find` says whether there is one."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._events: Any = None
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

    def slices(self) -> dict[str, tuple[str, ...]]:
        """The slices that partitioned devices are cut into, by `slice_key`: uuid, and device nodes of their own."""
        found = {}
        for handle in self._handles:
            uuid, minor = _text(self._library.nvmlDeviceGetUUID(handle)), self._library.nvmlDeviceGetMinorNumber(handle)
            for piece in self._pieces(handle):
                nodes = capability_nodes(minor, piece.instance, piece.compute)
                found[slice_key(uuid, piece.profile, piece.start)] = (piece.uuid, *nodes)
        return found

    def read(self) -> tuple[GpuReading, ...]:
        """Every device now; one that does not answer is not healthy."""
        return tuple(self._read(index, handle) for index, handle in enumerate(self._handles))

    def figures(self) -> dict[str, dict[str, float]]:
        """What each device, and each slice of one, says of itself now, by uuid; what it does not tell is left out."""
        found = {}
        for handle in self._handles:
            found[_text(self._library.nvmlDeviceGetUUID(handle))] = self._figures(handle)
            for piece in self._pieces(handle):
                found[piece.uuid] = self._told(piece.handle, {"memory_bytes": self._memory_used})
        return found

    def _figures(self, handle: Any) -> dict[str, float]:
        library = self._library
        asked: dict[str, Callable[[Any], float]] = {
            "utilisation_percent": lambda one: library.nvmlDeviceGetUtilizationRates(one).gpu,
            "memory_bytes": self._memory_used,
            "power_w": lambda one: library.nvmlDeviceGetPowerUsage(one) / 1000,
            "temperature_c": lambda one: library.nvmlDeviceGetTemperature(one, library.NVML_TEMPERATURE_GPU),
            "ecc_errors": self._ecc_errors,
        }
        return self._told(handle, asked) | self._links(handle)

    def _told(self, handle: Any, asked: Mapping[str, Callable[[Any], float]]) -> dict[str, float]:
        """A device that lacks one thing still tells the others."""
        found = {}
        for name, ask in asked.items():
            with suppress(self._library.NVMLError):
                found[name] = float(ask(handle))
        return found

    def _memory_used(self, handle: Any) -> float:
        return float(self._library.nvmlDeviceGetMemoryInfo(handle).used)

    def _ecc_errors(self, handle: Any) -> float:
        """Those that could not be corrected, since the driver was loaded."""
        library = self._library
        kinds = (library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, library.NVML_VOLATILE_ECC)
        return float(library.nvmlDeviceGetTotalEccErrors(handle, *kinds))

    def _links(self, handle: Any) -> dict[str, float]:
        """Bytes over all of its NVLinks so far. Over PCIe they are not asked for: that takes the driver 20 ms each way."""
        library = self._library
        names = {
            "nvlink_sent_bytes": library.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX,
            "nvlink_received_bytes": library.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX,
        }
        try:
            values = library.nvmlDeviceGetFieldValues(handle, [(number, _ALL_LINKS) for number in names.values()])
        except library.NVMLError:
            return {}
        told = zip(names, values, strict=True)
        return {name: 1024.0 * one.value.ullVal for name, one in told if one.nvmlReturn == library.NVML_SUCCESS}

    def states(self) -> tuple[DeviceState, ...]:
        """What every device says of its health."""
        xids = self._new_xids()
        return tuple(self._state(index, handle, xids) for index, handle in enumerate(self._handles))

    def _state(self, index: int, handle: Any, xids: dict[int, list[int]]) -> DeviceState:
        library, told = self._library, tuple(xids.get(index, ()))
        try:
            heat = int(library.nvmlDeviceGetTemperature(handle, library.NVML_TEMPERATURE_GPU))
        except library.NVMLError as error:  # lost, fallen off the bus, or in need of a reset
            return DeviceState(index, fault=str(error), xids=told)
        pending, failed = self._asked(self._remapped, handle, (False, False))
        return DeviceState(
            index,
            uncorrected=self._asked(self._uncorrected, handle, 0),
            remap_failed=failed,
            remap_pending=pending,
            temperature_c=heat,
            slowdown_c=self._asked(partial(self._limit_c, library.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN), handle, 0),
            shutdown_c=self._asked(partial(self._limit_c, library.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN), handle, 0),
            xids=told,
        )

    def _asked(self, ask: Callable[[Any], T], handle: Any, unknown: T) -> T:
        """What a device answers; `unknown` where its model does not know such a thing."""
        try:
            return ask(handle)
        except self._library.NVMLError:
            return unknown

    def _uncorrected(self, handle: Any) -> int:
        library = self._library
        kinds = library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, library.NVML_VOLATILE_ECC
        return int(library.nvmlDeviceGetTotalEccErrors(handle, *kinds))

    def _remapped(self, handle: Any) -> tuple[bool, bool]:
        """Whether rows of its memory wait to be replaced, and whether that failed."""
        _, _, pending, failed = self._library.nvmlDeviceGetRemappedRows(handle)
        return bool(pending), bool(failed)

    def _limit_c(self, kind: Any, handle: Any) -> int:
        return int(self._library.nvmlDeviceGetTemperatureThreshold(handle, kind))

    def _new_xids(self) -> dict[int, list[int]]:
        """The critical errors that the driver told of since the last look, by device."""
        library, found = self._library, dict[int, list[int]]()
        events = self._listen()
        if events is None:
            return found
        uuids = {self._asked(library.nvmlDeviceGetUUID, handle, ""): i for i, handle in enumerate(self._handles)}
        for _ in range(_MOST_EVENTS):
            try:
                event = library.nvmlEventSetWait_v2(events, 0)
            except library.NVMLError:  # it says by this, too, that there is none
                break
            index = uuids.get(self._asked(library.nvmlDeviceGetUUID, event.device, None))
            if index is not None:
                found.setdefault(index, []).append(int(event.eventData))
        return found

    def _listen(self) -> Any:
        """The set of events that the driver fills; None where it has none to give."""
        library = self._library
        if self._events is None:
            try:
                self._events = library.nvmlEventSetCreate()
            except library.NVMLError:
                return None
            for handle in self._handles:
                with suppress(library.NVMLError):  # a model that tells of none
                    library.nvmlDeviceRegisterEvents(handle, library.nvmlEventTypeXidCriticalError, self._events)
        return self._events

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
            partitioned=self._is_partitioned(handle),
            slices=self._cuts(handle) if self._is_partitioned(handle) else None,
        )

    def _cuts(self, handle: Any) -> tuple[SliceDescription, ...]:
        return tuple(SliceDescription(piece.profile, piece.start) for piece in self._pieces(handle))

    def _is_partitioned(self, handle: Any) -> bool:
        library = self._library
        try:
            present, _ = library.nvmlDeviceGetMigMode(handle)
        except library.NVMLError:  # a model that cannot be
            return False
        return bool(present == library.NVML_DEVICE_MIG_ENABLE)

    def _pieces(self, handle: Any) -> Iterator["_Piece"]:
        """The slices that somebody has cut a device into; of none where it is not partitioned."""
        library = self._library
        if not self._is_partitioned(handle):
            return
        for number in range(library.nvmlDeviceGetMaxMigDeviceCount(handle)):
            try:
                piece = library.nvmlDeviceGetMigDeviceHandleByIndex(handle, number)
                instance = library.nvmlDeviceGetGpuInstanceId(piece)
                cut = library.nvmlGpuInstanceGetInfo(library.nvmlDeviceGetGpuInstanceById(handle, instance))
            except library.NVMLError:  # numbers have gaps; and where it begins only a privileged node is told
                continue
            yield _Piece(
                handle=piece,
                uuid=_text(library.nvmlDeviceGetUUID(piece)),
                profile=_text(library.nvmlDeviceGetName(piece)).rpartition("MIG ")[2],
                start=int(cut.placement.start),
                instance=int(instance),
                compute=int(library.nvmlDeviceGetComputeInstanceId(piece)),
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


def capability_nodes(minor: int, instance: int, compute: int, root: Path = _CAPABILITIES) -> tuple[str, ...]:
    """The device nodes that whoever uses a slice must be able to open (NVIDIA MIG User Guide, "Device Nodes")."""
    slice_at = root / f"gpu{minor}" / "mig" / f"gi{instance}"
    minors = (_MINOR.search(path.read_text()) for path in (slice_at / "access", slice_at / f"ci{compute}" / "access")
              if path.exists())  # fmt: skip
    return tuple(f"/dev/nvidia-caps/nvidia-cap{found[1]}" for found in minors if found)


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
