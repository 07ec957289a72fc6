"""What is looked at of a replica while it runs: what it uses, and in debug mode, once, how it is kept."""

from collections.abc import Iterator

from agent import debugging, gpu_readings
from agent.ground import Ground
from agent.metering import Meter
from agent.sampling import EVERY_S, FINE_EVERY_S, Sampler
from trellis.features import FINE_METRICS
from trellis.wire import ReplicaSpec


class Observer:
    """Looks each `every_s` seconds, from when it is made on, at a replica's processes."""

    def __init__(self, ground: Ground, spec: ReplicaSpec) -> None:
        self.every_s = FINE_EVERY_S if spec.debug or FINE_METRICS in spec.features else EVERY_S
        self._sampler = Sampler(gpu_readings.GpuMeter(ground.home.gpus, gpu_readings.uuids_of(ground, spec)))
        self._tells = spec.debug

    def measure(self, pids: list[int], ended_cpu_s: float) -> dict[str, float]:
        """What these processes use, since it was asked for last."""
        return self._sampler.sample(pids, ended_cpu_s)

    def look(self, meter: Meter, pids: list[int], ended_cpu_s: float) -> Iterator[str]:
        """Keep what is used as points of `meter`; give the lines that are to be said of it."""
        meter.note(self.measure(pids, ended_cpu_s))
        if self._tells:
            self._tells = False
            yield from debugging.told_while_it_runs(pids)
