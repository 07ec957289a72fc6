"""Plays jobs instead of running them: nothing is started, nothing waits, and any number costs one process little.

The five verbs are those of `agent.executors.base`, in the time of whoever calls: each takes the moment it is asked at.
All that a play will do is settled when it starts, so that it can be taken up where it is by another process.
"""

import math
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from random import Random

from agent.executors.base import Exit, StartFailed, Usage
from trellis.simulation import FAILURES, MOST_STEPS, Behaviour, Curve, Simulation
from trellis.units import parse_seconds
from trellis.vocabulary import Cause
from trellis.wire import ReplicaSpec, SliceGrant

WISHES = "SIMULATE_"
"""What a job says in its environment, under this prefix, of how it is to be played; it comes before the profile."""


@dataclass(frozen=True, slots=True)
class Part:
    """What of a replica's spec its play needs. `wishes` are what its environment says, without the prefix."""

    replica_id: str
    fence: int
    job_id: str
    job_name: str
    attempt: int
    index: int
    cpu_milli: int
    memory_bytes: int
    gpus: tuple[int, ...]
    time_limit_s: int | None
    grace_s: int
    wishes: dict[str, str]
    slices: tuple[SliceGrant, ...] = ()

    @classmethod
    def of(cls, spec: ReplicaSpec) -> "Part":
        """The part that a spec gives out."""
        wishes = {k.removeprefix(WISHES): text for k, text in spec.environment.items() if k.startswith(WISHES)}
        return cls(
            spec.replica_id, spec.fence, spec.job_id, spec.job_name, spec.attempt, spec.index, spec.cpu_milli,
            spec.memory_bytes, tuple(gpu.index for gpu in spec.gpus), spec.time_limit_s, spec.grace_s, wishes,
            spec.slices,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Play:
    """What is to be played, in real seconds: it ends by itself after `run_s` with `code` or by `signal`."""

    run_s: float
    steps: int
    step_s: float
    code: int = 0
    signal: int | None = None
    stops_in_s: float = 0.0
    cpu: float = 0.0
    peak_memory_bytes: int = 0
    gpu: float = 0.0
    metrics: tuple[Curve, ...] = ()
    out_of_memory: bool = False


@dataclass(slots=True)
class Playing:
    """A play that began at `started_at` (seconds since the machine started; `started_us` on the wall clock)."""

    part: Part
    play: Play
    started_at: float
    started_us: int
    ends_at: float
    end: Exit


@dataclass(frozen=True, slots=True)
class SimulatedExecutor:
    """Plays by the profile's rules."""

    simulation: Simulation

    def start(self, part: Part, now: float, now_us: int) -> Playing:
        """Begin. Raises StartFailed where the profile has it fail, or the job's wishes can't be understood."""
        return self.adopt(part, self._cast(part), now, now_us)

    def adopt(self, part: Part, play: Play, started_at: float, started_us: int) -> Playing:
        """Take up a play that began earlier, maybe in another process: it is as far as the time says."""
        return Playing(part, play, started_at, started_us, started_at + play.run_s, Exit(play.code, play.signal))

    def poll(self, playing: Playing, now: float) -> Exit | None:
        """Its end; None before."""
        return playing.end if now >= playing.ends_at else None

    def signal(self, playing: Playing, signum: int, now: float) -> None:
        """TERM has it end when it is ready to, any other signal at once; one that has ended is left alone."""
        ready_at = now + (playing.play.stops_in_s if signum == signal.SIGTERM else 0.0)
        if ready_at < playing.ends_at:
            playing.ends_at, playing.end = ready_at, Exit(128 + signum, signum)

    def usage(self, playing: Playing, now: float) -> Usage:
        """What it would have used by now."""
        played_s = max(0.0, min(now, playing.ends_at) - playing.started_at)
        peak_bytes = playing.play.peak_memory_bytes
        return Usage(playing.play.cpu * playing.part.cpu_milli / 1000 * played_s, peak_bytes, peak_bytes)

    def _cast(self, part: Part) -> Play:
        """Settle all that will happen. Members of a gang run alike, and each may fail by itself."""
        rules = next((rule for rule in self.simulation.jobs if fnmatchcase(part.job_name, rule.name)), Behaviour())
        speed, wishes = self.simulation.speed, _Wishes(part.wishes)
        habit = Random(f"{self.simulation.seed}:{part.job_id}")  # noqa: S311  # repeated from its seed
        chance = Random(f"{self.simulation.seed}:{part.replica_id}:{part.fence}")  # noqa: S311
        drawn_s = rules.run_s * math.exp(habit.gauss(0.0, rules.spread)) if rules.spread else rules.run_s
        run_s = wishes.seconds("RUN_TIME", drawn_s) / speed
        steps = wishes.whole("STEPS", rules.steps, MOST_STEPS)
        step_s = run_s / steps if steps else run_s
        code = wishes.whole("EXIT_CODE", 0, 255)
        failure = wishes.failure()
        if failure is None and not code and (failure := _draw(rules.fails, chance)):
            run_s *= chance.random()  # what fails by chance does so at any moment, what is wished at the end
        if failure is Cause.START_FAILED:
            raise StartFailed("it was to fail to start")
        code = code or int(failure is Cause.EXIT_CODE)
        memory = 1.0 if failure is Cause.OUT_OF_MEMORY else rules.memory
        signum = {Cause.SIGNAL: signal.SIGSEGV, Cause.OUT_OF_MEMORY: signal.SIGKILL}.get(failure) if failure else None
        return Play(
            run_s=run_s,
            steps=steps,
            step_s=step_s,
            code=128 + signum if signum else code,
            signal=signum and int(signum),
            stops_in_s=wishes.seconds("STOPS_IN", rules.stops_in_s) / speed,
            cpu=rules.cpu,
            peak_memory_bytes=int(memory * part.memory_bytes),
            gpu=rules.gpu,
            metrics=rules.metrics,
            out_of_memory=failure is Cause.OUT_OF_MEMORY,
        )


def _draw(fails: Mapping[str, float], chance: Random) -> Cause | None:
    """The cause by which an attempt fails; None if it does not."""
    at = chance.random()
    for cause, share in fails.items():
        at -= share
        if at < 0:
            return Cause(cause)
    return None


@dataclass(frozen=True, slots=True)
class _Wishes:
    """What a job says of how it is to be played. Each question raises StartFailed for what can't be understood."""

    said: Mapping[str, str]

    def seconds(self, word: str, usual: float) -> float:
        if word not in self.said:
            return usual
        try:
            return float(parse_seconds(self.said[word]))
        except ValueError as error:
            raise StartFailed(f"{WISHES}{word} {error}") from error

    def whole(self, word: str, usual: int, most: int) -> int:
        text = self.said.get(word, str(usual))
        if not (text.isascii() and text.isdigit() and int(text) <= most):
            raise StartFailed(f"{WISHES}{word} must be a whole number from 0 to {most}, not {text!r}")
        return int(text)

    def failure(self) -> Cause | None:
        text = self.said.get("FAILURE")
        if text is None:
            return None
        if text not in FAILURES:
            raise StartFailed(f"{WISHES}FAILURE must be one of {', '.join(FAILURES)}, not {text!r}")
        return Cause(text)


def steps_by(playing: Playing, now: float) -> int:
    """How many steps it has made."""
    play = playing.play
    if not play.steps:
        return 0
    played_s = min(now, playing.ends_at) - playing.started_at
    # A step that falls on the end itself counts, however the division rounds.
    return max(0, min(play.steps, int(played_s / play.step_s + 1e-6) if play.step_s else play.steps))


def metrics_at(playing: Playing, step: int) -> Sequence[tuple[str, float]]:
    """Each metric's name and value at a step from 1; the same however often it is asked."""
    chance = Random(f"{playing.part.replica_id}:{playing.part.fence}:{step}")  # noqa: S311  # noise, no secret
    left = math.exp(-4.0 * step / playing.play.steps)
    return [
        (curve.name, curve.end + (curve.start - curve.end) * left + chance.gauss(0.0, curve.noise))
        for curve in playing.play.metrics
    ]
