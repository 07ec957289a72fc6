"""The nodes of a host: who they are, what they say of themselves, and when they break."""

import heapq
import re
import socket
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from agent import clock, profiles
from agent.profiles import GIB, Profile
from agent.simulation.performance import Key, Performance
from trellis.settings import SettingsError
from trellis.simulation import HostPlan, Simulation
from trellis.vocabulary import ExecutorKind, Isolation
from trellis.wire import VERSION, GpuReading, Heartbeat, Held, NodeDescription

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_IDLE_TEMPERATURE_C, _BUSY_TEMPERATURE_C = 30, 70
_IDLE_POWER = 0.1
# A slice's name says how much of the memory it has, such as 3g.40gb.
_SLICE_GB = re.compile(r"\.([0-9]+)gb")
_DETAIL = "a simulated node: it plays its jobs"


@dataclass(slots=True)
class SimulatedNode:
    """One node. `token` signs for it, "" before it has joined; while `broken` it neither beats nor plays.

    `lease_ends_at` is boot time.
    """

    name: str
    profile: Profile
    claims: str
    token: str = ""
    lease_ends_at: float = 0.0
    broken: bool = False
    performances: dict[Key, Performance] = field(default_factory=dict)

    def describe(self) -> NodeDescription:
        """As it registers."""
        return NodeDescription(
            name=self.name,
            hostname=socket.gethostname(),
            boot_id=_BOOT_ID.read_text().strip(),
            version=VERSION,
            cpu_milli=1000 * self.profile.cpus,
            memory_bytes=self.profile.memory_bytes,
            gpus=profiles.describe_gpus(self.profile, self.name),
            isolation=Isolation.BASIC,
            isolation_detail=_DETAIL,
            executors=(ExecutorKind.SIMULATED,),
            profile=self.claims[:63],
            labels={"executor": str(ExecutorKind.SIMULATED)},
        )

    def heartbeat(self) -> Heartbeat:
        """The node now: busy with what it plays."""
        living = [one for one in self.performances.values() if not one.ended and one.playing]
        cpu_milli = sum(one.part.cpu_milli * one.playing.play.cpu for one in living if one.playing)
        memory_bytes = sum(one.playing.play.peak_memory_bytes for one in living if one.playing)
        busy = self._busy(living)
        return Heartbeat(
            replicas=tuple(Held(*one.key, one.state) for one in self.performances.values() if not one.forgotten),
            load_percent=min(100, round(cpu_milli / 10 / max(1, self.profile.cpus))),
            memory_used_bytes=memory_bytes,
            disk_free_bytes=self.profile.memory_bytes,
            gpus=tuple(self._reading(index, busy.get(index, 0.0)) for index in range(self.profile.gpus)),
        )

    def _busy(self, living: Iterable[Performance]) -> dict[int, float]:
        """The share of each device that is in use; of one that is given in slices, of its memory."""
        busy: dict[int, float] = {}
        for one in living:
            share = one.playing.play.gpu if one.playing else 0.0
            busy |= dict.fromkeys(one.part.gpus, share)
            for piece in one.part.slices:
                memory_bytes = int(_SLICE_GB.findall(piece.profile)[0]) * GIB
                share_of_device = min(1.0, memory_bytes / self.profile.gpu_memory_bytes)
                busy[piece.index] = min(1.0, busy.get(piece.index, 0.0) + share * share_of_device)
        return busy

    def _reading(self, index: int, share: float) -> GpuReading:
        heat = _IDLE_TEMPERATURE_C + (_BUSY_TEMPERATURE_C - _IDLE_TEMPERATURE_C) * share
        power = self.profile.gpu_power_w * (_IDLE_POWER + (1 - _IDLE_POWER) * share)
        memory_bytes = int(self.profile.gpu_memory_bytes * share)
        # One that is cut into slices has no figure of its own, as real ones have none.
        busy_percent = 0 if self.profile.is_partitioned(index) else round(100 * share)
        return GpuReading(index, busy_percent, memory_bytes, round(heat), round(power))


def nodes_of(plan: HostPlan) -> dict[str, SimulatedNode]:
    """The nodes of a plan, by name. Raises SettingsError for a profile nobody knows, or one that is of no machine."""
    found: dict[str, SimulatedNode] = {}
    for group in plan.nodes:
        profile = profiles.find(group.profile)
        if profile is None:
            raise SettingsError("a simulated node must say what it is: there is no machine to look at")
        found |= {name: SimulatedNode(name, profile, group.profile) for name in group.names}
    return found


class Breakdowns:
    """Which nodes break and are repaired, and when, counted from the host's start; the same for equal seeds."""

    def __init__(self, simulation: Simulation, names: Iterable[str]) -> None:
        self._began_at = clock.boottime()
        self._breaks: list[tuple[float, str]] = []
        self._repairs: list[tuple[float, str]] = []
        self._simulation = simulation
        # Of each node its own chance: who else there is changes nothing for it.
        self._chances = {name: Random(f"{simulation.seed}:{name}") for name in names}  # noqa: S311  # repeated
        for name in self._chances:
            self._draw(name, 0.0)

    def strike(self) -> list[str]:
        """Those that break now."""
        struck = self._take(self._breaks)
        for at, name in struck:
            heapq.heappush(self._repairs, (at + self._simulation.repair_s / self._simulation.speed, name))
        return [name for _, name in struck]

    def repair(self) -> list[str]:
        """Those that are whole again now."""
        repaired = self._take(self._repairs)
        for at, name in repaired:
            self._draw(name, at)
        return [name for _, name in repaired]

    def _draw(self, name: str, after: float) -> None:
        if self._simulation.node_mtbf_s is not None:
            whole_s = self._chances[name].expovariate(self._simulation.speed / self._simulation.node_mtbf_s)
            heapq.heappush(self._breaks, (after + whole_s, name))

    def _take(self, coming: list[tuple[float, str]]) -> list[tuple[float, str]]:
        """Those of which the time has come."""
        now, taken = clock.boottime() - self._began_at, []
        while coming and coming[0][0] <= now:
            taken.append(heapq.heappop(coming))
        return taken
