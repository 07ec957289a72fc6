"""What a node says of itself: once when it joins, and with every heartbeat."""

import os
import platform
import socket
from contextlib import suppress
from pathlib import Path

import psutil

from agent import clock, gpu_readings, profiles
from agent.ground import Ground
from agent.health.devices import States, recorded
from agent.layout import Home
from agent.nvml import Nvml
from agent.settings import NodeSettings
from trellis.readings import faults_of
from trellis.units import parse_bytes, parse_milli
from trellis.vocabulary import ExecutorKind
from trellis.wire import VERSION, GpuReading, Heartbeat, Held, NodeDescription

_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


class Telemetry:
    """Looks at the machine, or at the profile in its place. Raises SettingsError for a profile nobody knows."""

    def __init__(self, settings: NodeSettings) -> None:
        self._settings = settings
        self._profile = profiles.find(settings.profile)
        self._nvml = None if self._profile else Nvml.find()
        psutil.cpu_percent(None)  # the first answer has no beginning to count from

    @property
    def name(self) -> str:
        """The node's name: as set, or the host's."""
        return self._settings.name or socket.gethostname()

    def devices(self) -> dict[str, str]:
        """The device node of each GPU that has one, by uuid."""
        return self._nvml.devices() if self._nvml else {}

    def slices(self) -> dict[str, tuple[str, ...]]:
        """The slices that partitioned devices are cut into, as `Ground.slices`."""
        return self._nvml.slices() if self._nvml else {}

    def describe(self, ground: Ground) -> NodeDescription:
        """The node as it is to be registered."""
        gpus = profiles.describe_gpus(self._profile, self.name) if self._profile else ()
        return NodeDescription(
            name=self.name,
            hostname=socket.gethostname(),
            boot_id=clock.boot_id(),
            version=VERSION,
            cpu_milli=self._cpu_milli(),
            memory_bytes=self._memory_bytes(),
            gpus=self._nvml.describe() if self._nvml else gpus,
            isolation=ground.confinement.level,
            isolation_detail=ground.confinement.detail,
            executors=(ExecutorKind.PROCESS, *((ExecutorKind.CONTAINER,) if ground.site.socket else ())),
            profile=self._settings.profile,
            labels={"os": platform.system().lower(), "arch": platform.machine()},
        )

    def heartbeat(self, held: tuple[Held, ...]) -> Heartbeat:
        """The node now. While it has replicas in hand, they are told what their devices say."""
        if held and (figures := self._figures()):
            with suppress(OSError):  # a full disk: it is told the next time
                gpu_readings.publish(Home(self._settings.home).gpus, figures)
        disk = os.statvfs(self._settings.home)
        return Heartbeat(
            replicas=held,
            load_percent=min(100, round(psutil.cpu_percent(None))),
            memory_used_bytes=int(psutil.virtual_memory().used),
            disk_free_bytes=disk.f_bavail * disk.f_frsize,
            gpus=self._read_gpus(),
        )

    def states(self) -> States | None:
        """How to ask devices for their health; None where nobody can be asked."""
        if self._profile:
            return recorded(Path(self._settings.device_record)) if self._settings.device_record else None
        return self._nvml.states if self._nvml else None

    def _read_gpus(self) -> tuple[GpuReading, ...]:
        if self._profile:
            return profiles.read_gpus(self._profile)
        return tuple(map(sane, self._nvml.read())) if self._nvml else ()

    def _figures(self) -> dict[str, dict[str, float]]:
        if self._profile:
            return profiles.figures(self._profile, self.name)
        return self._nvml.figures() if self._nvml else {}

    def _cpu_milli(self) -> int:
        if self._settings.cpus:
            return parse_milli(self._settings.cpus)
        return 1000 * (self._profile.cpus if self._profile else len(os.sched_getaffinity(0)))

    def _memory_bytes(self) -> int:
        if self._settings.memory:
            return parse_bytes(self._settings.memory)
        if self._profile:
            return self._profile.memory_bytes
        limits = (Path(path).read_text().strip() for path in _MEMORY_LIMITS if os.path.exists(path))
        known = [int(limit) for limit in limits if limit.isdigit()]
        return min([psutil.virtual_memory().total, *known])


def sane(reading: GpuReading) -> GpuReading:
    """The reading, if it is one that a device can have; else that of a device that is not well: a heartbeat with
    nonsense in it would be refused, and the node with it.
    """
    return reading if not faults_of(reading) else GpuReading(reading.index, 0, 0, 0, 0, healthy=False)
