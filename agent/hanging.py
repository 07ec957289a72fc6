"""Whether a replica does anything at all: it prints, or uses a CPU, or one of its devices."""

import time

from agent import gpu_readings, verdicts
from agent.checkpoint_folder import CheckpointFolder
from agent.layout import Home, ReplicaDir
from agent.verdicts import Verdict
from trellis.wire import ReplicaSpec

# A process that waits still wakes now and then: below so much of one core it does nothing.
IDLE_CORES = 0.01
LOOK_EVERY_S, LOOK_LEAST_S = 10.0, 0.1


class HangWatch:
    """Knows since when a replica has done nothing. Moments are monotonic seconds, CPU seconds are all it ever used."""

    def __init__(self, home: Home, spec: ReplicaSpec) -> None:
        self.every_s = max(LOOK_LEAST_S, min(LOOK_EVERY_S, spec.hang_after_s / 4))
        self._home = home
        self._spec = spec
        self._active_at = self._looked_at = time.monotonic()
        self._cpu_s = 0.0
        self._told = False

    def begin(self) -> float:
        """It runs from now on; when to look first."""
        self.stir()
        self._looked_at = self._active_at
        return self._active_at + self.every_s

    def stir(self) -> None:
        """It did something just now, or could do nothing: then it is not to blame for that."""
        self._active_at = time.monotonic()
        self._told = False

    def judge(self, replica: ReplicaDir, used_s: float, *, rests: bool) -> Verdict | None:
        """What to say of a replica, which has taken `used_s` of CPU so far, that has done nothing for too long: once alone.

        Not of one that `rests` soon, and not while it saves its state: that is work, though it may be the disk's.
        """
        if rests or CheckpointFolder(replica).is_asked():
            self.stir()
        quiet_s = self.look(used_s, busy=are_devices_busy(self._home, self._spec))
        return None if quiet_s is None else verdicts.hung(quiet_s)

    def look(self, cpu_s: float, *, busy: bool) -> float | None:
        """For how long it has done nothing, once that is too long, and once alone; `busy`: its devices are."""
        now = time.monotonic()
        used_s, span_s = cpu_s - self._cpu_s, max(now - self._looked_at, 1e-3)
        self._cpu_s, self._looked_at = cpu_s, now
        if busy or used_s > IDLE_CORES * span_s:
            self.stir()
        quiet_s = now - self._active_at
        if quiet_s < self._spec.hang_after_s or self._told:
            return None
        self._told = True
        return quiet_s


def are_devices_busy(home: Home, spec: ReplicaSpec) -> bool:
    """Whether one of a replica's devices does anything; of a slice, whether its card does."""
    return gpu_readings.are_busy(home.gpus, {one.uuid for one in spec.gpus} | {one.uuid for one in spec.slices})
