"""How a simulated cluster plays its jobs: what the `simulation` part of a profile says, checked and in base units.

simulation:
  speed: 60                # a minute of play in a second
  seed: 7
  node_mtbf: 30d           # of play: a node breaks that often, and is repaired in `repair`
  repair: 1h
  jobs:                    # the first whose name matches decides
    - {name: "train-*", run_time: 2h, spread: 1.0, steps: 10, metrics: {loss: {from: 2.5, to: 0.2, noise: 0.05}},
       fails: {exit_code: 0.02, out_of_memory: 0.01}, stops_in: 30s, gpu: 0.95}
    - {name: "*", run_time: 5m}
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from trellis.units import parse_seconds
from trellis.vocabulary import Cause

MOST_STEPS = 1000
FAILURES = (Cause.EXIT_CODE, Cause.SIGNAL, Cause.OUT_OF_MEMORY, Cause.START_FAILED)
"""The ways in which a played job may fail by itself."""


class Misshapen(ValueError):
    """A profile that can't be used; `path` says where, such as `simulation.jobs[0].run_time`."""

    def __init__(self, path: str, message: str) -> None:
        super().__init__(f"{path} {message}")
        self.path = path


@dataclass(frozen=True, slots=True)
class Curve:
    """A metric that falls or rises from `start` towards `end`, most of the way early; `noise` is a standard deviation."""

    name: str
    start: float
    end: float
    noise: float = 0.0


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What jobs do whose name matches `name`, a pattern with * and ?.

    Half of them run for less than `run_s` of play; `spread` is the deviation of the logarithm, 0 for all alike. They
    print a line and tell each metric `steps` times. Of their attempts the shares in `fails` fail by that cause, at any
    moment. Asked to end they take `stops_in_s` of play. `cpu`, `memory` and `gpu` are the shares that they use of what
    they asked for.
    """

    name: str = "*"
    run_s: float = 300.0
    spread: float = 0.0
    steps: int = 3
    metrics: tuple[Curve, ...] = ()
    fails: dict[str, float] = field(default_factory=dict)
    stops_in_s: float = 0.0
    cpu: float = 0.8
    memory: float = 0.5
    gpu: float = 0.9


@dataclass(frozen=True, slots=True)
class Simulation:
    """`speed` seconds are played in one. A node breaks every `node_mtbf_s` of play on average (None: never)."""

    speed: float = 1.0
    seed: int = 1
    node_mtbf_s: float | None = None
    repair_s: float = 3600.0
    jobs: tuple[Behaviour, ...] = ()


@dataclass(frozen=True, slots=True)
class SimulatedNodes:
    """Nodes that are alike: their names, and the profile that they claim in the words of `agent.profiles`."""

    names: tuple[str, ...]
    profile: str


@dataclass(frozen=True, slots=True)
class HostPlan:
    """All that a host plays; it is handed over as JSON (`trellis.wire.pack`)."""

    nodes: tuple[SimulatedNodes, ...]
    simulation: Simulation


def read_simulation(content: Any, path: str = "simulation") -> Simulation:
    """What the `simulation` part of a profile says; None says nothing. Raises Misshapen."""
    said = _Said({} if content is None else content, path, ("speed", "seed", "node_mtbf", "repair", "jobs"))
    jobs = said.of("jobs", [])
    if not isinstance(jobs, list):
        raise Misshapen(f"{path}.jobs", "must be a list")
    return Simulation(
        speed=said.number("speed", 1.0, 0.01, 100_000.0),
        seed=said.whole("seed", 1, 2**31),
        node_mtbf_s=said.seconds("node_mtbf", 0.0) or None,
        repair_s=said.seconds("repair", 3600.0),
        jobs=tuple(_behaviour(one, f"{path}.jobs[{number}]") for number, one in enumerate(jobs)),
    )


def _behaviour(content: Any, path: str) -> Behaviour:
    usual = Behaviour()
    words = ("name", "run_time", "spread", "steps", "metrics", "fails", "stops_in", "cpu", "memory", "gpu")
    said = _Said(content, path, words)
    name = said.of("name", usual.name)
    if not isinstance(name, str) or not name:
        raise Misshapen(f"{path}.name", "must be a pattern such as train-*")
    metrics = said.mapping("metrics")
    fails = _Said(said.of("fails", {}), f"{path}.fails", tuple(map(str, FAILURES)))
    shares = {cause: fails.number(cause, 0.0, 0.0, 1.0) for cause in fails.content}
    if sum(shares.values()) > 1:
        raise Misshapen(f"{path}.fails", "must add up to 1 at most")
    return Behaviour(
        name=name,
        run_s=said.seconds("run_time", usual.run_s),
        spread=said.number("spread", usual.spread, 0.0, 5.0),
        steps=said.whole("steps", usual.steps, MOST_STEPS),
        metrics=tuple(_curve(str(key), curve, f"{path}.metrics.{key}") for key, curve in metrics.items()),
        fails=shares,
        stops_in_s=said.seconds("stops_in", usual.stops_in_s),
        cpu=said.number("cpu", usual.cpu, 0.0, 1.0),
        memory=said.number("memory", usual.memory, 0.0, 1.0),
        gpu=said.number("gpu", usual.gpu, 0.0, 1.0),
    )


def _curve(name: str, content: Any, path: str) -> Curve:
    said = _Said(content, path, ("from", "to", "noise"))
    start = said.number("from", 1.0, -1e300, 1e300)
    return Curve(name, start, said.number("to", start, -1e300, 1e300), said.number("noise", 0.0, 0.0, 1e300))


class _Said:
    """A mapping of a profile, asked word by word."""

    def __init__(self, content: Any, path: str, words: tuple[str, ...]) -> None:
        if not isinstance(content, dict):
            raise Misshapen(path, "must be a mapping")
        if unknown := {str(key) for key in content} - set(words):
            raise Misshapen(f"{path}.{min(unknown)}", f"is not known; there are {', '.join(words)}")
        self.content = content
        self._path = path

    def of(self, word: str, usual: Any) -> Any:
        """What is said there, or what is usual."""
        return self.content.get(word, usual)

    def mapping(self, word: str) -> Mapping[Any, Any]:
        """A mapping; none said is empty."""
        said = self.of(word, {})
        if not isinstance(said, dict):
            raise Misshapen(f"{self._path}.{word}", "must be a mapping")
        return said

    def number(self, word: str, usual: float, least: float, most: float) -> float:
        """A number between both."""
        said = self.of(word, usual)
        good = isinstance(said, int | float) and not isinstance(said, bool) and isfinite(said)
        if not good or not least <= said <= most:
            raise Misshapen(f"{self._path}.{word}", f"must be a number from {least:g} to {most:g}")
        return float(said)

    def whole(self, word: str, usual: int, most: int) -> int:
        """A whole number from 0."""
        said = self.of(word, usual)
        if isinstance(said, bool) or not isinstance(said, int) or not 0 <= said <= most:
            raise Misshapen(f"{self._path}.{word}", f"must be a whole number from 0 to {most}")
        return said

    def seconds(self, word: str, usual: float) -> float:
        """A duration in seconds."""
        said = self.of(word, None)
        if said is None:
            return usual
        try:
            return float(parse_seconds(said))
        except ValueError as error:
            raise Misshapen(f"{self._path}.{word}", str(error)) from error
