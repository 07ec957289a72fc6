"""One replica on a simulated node: what a supervisor does for a process, done for a play, in the time of the caller."""

import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from agent import verdicts
from agent.executors.base import Exit
from agent.executors.simulated import Part, Play, Playing, SimulatedExecutor, metrics_at, steps_by
from agent.verdicts import Verdict
from trellis.vocabulary import ENDED_REPLICA_STATES, ReplicaState, StopReason
from trellis.wire import CUT_OFF_GRACE_S, LogChunk, MetricPoint, Receipt, Report, pack, unpack

_NEVER = float("inf")
_MOST_POINTS = 2000
Key = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Load:
    """What one shipment takes of it."""

    log: LogChunk | None
    metrics: tuple[MetricPoint, ...]
    reports: tuple[Report, ...]

    @property
    def size_bytes(self) -> int:
        """About what it takes on the wire."""
        return (len(self.log.text) if self.log else 0) + 160 * len(self.metrics) + 256 * len(self.reports)

    def __bool__(self) -> bool:
        return bool(self.log or self.metrics or self.reports)


@dataclass(slots=True)
class Performance:
    """A replica from its start to the moment when the control plane knows all of it.

    `playing` is None for one that failed to start. `log`, `points` and `told` are how far the control plane has its
    log (bytes), its metric points and its reports.
    """

    executor: SimulatedExecutor
    part: Part
    node: str
    playing: Playing | None
    reports: list[Report] = field(default_factory=list)
    verdict: Verdict | None = None
    kill_at: float = _NEVER
    forgotten: bool = False
    log: int = 0
    points: int = 0
    told: int = 0
    _now: float = 0.0
    _said: str = ""
    _said_steps: int = 0

    @property
    def key(self) -> Key:
        """Replica id and fence."""
        return self.part.replica_id, self.part.fence

    @property
    def state(self) -> ReplicaState:
        """As reported last."""
        return self.reports[-1].state

    @property
    def ended(self) -> bool:
        """Whether it will do nothing more."""
        return self.state in ENDED_REPLICA_STATES

    @property
    def done(self) -> bool:
        """Whether the control plane knows all there will ever be."""
        return self.forgotten or (self.ended and self.told >= len(self.reports))

    # Its life

    def begin(self, at: float) -> None:
        """It is launched at `at`; `playing` says whether it came to run."""
        self._report(ReplicaState.STARTING, at)
        if self.playing is not None:
            self._report(ReplicaState.RUNNING, at)

    def fail_to_start(self, message: str, at_us: int) -> None:
        """It never came to run; `message` is for the job's owner."""
        verdict = verdicts.start_failed(message)
        for state in (ReplicaState.STARTING, verdict.state):
            told = verdict if state is verdict.state else None
            self.reports.append(_report(self.part, len(self.reports) + 1, state, at_us, told))

    def wish(self, reason: StopReason, grace_s: float, now: float) -> None:
        """The control plane wants it ended: TERM, and KILL after `grace_s`."""
        self.advance(now, _NEVER)
        if reason is StopReason.STALE:
            self.forgotten = True
        if not self.ended:
            self._stop(verdicts.BY_REASON[reason], grace_s, now)

    def advance(self, now: float, lease_ends_at: float) -> None:
        """Do what was due until `now`, each at its moment: time limit, end of the lease, KILL, its own end."""
        playing = self.playing
        self._now = now
        while playing is not None and not self.ended:
            due_at, act = min(self._dues(playing, lease_ends_at), key=lambda due: due[0])
            if due_at > now:
                return
            self._act(act, playing, due_at)

    def due_at(self, lease_ends_at: float) -> float:
        """When something happens next; infinity after its end."""
        if self.playing is None or self.ended:
            return _NEVER
        steps, play = steps_by(self.playing, self._now), self.playing.play
        step_at = self.playing.started_at + (steps + 1) * play.step_s if steps < play.steps else _NEVER
        return min(step_at, *(at for at, _ in self._dues(self.playing, lease_ends_at)))

    def _dues(self, playing: Playing, lease_ends_at: float) -> Iterator[tuple[float, str]]:
        yield playing.ends_at, "end"
        yield self.kill_at, "kill"
        if self.verdict is None:
            limit_s = self.part.time_limit_s
            yield _NEVER if limit_s is None else playing.started_at + limit_s, "limit"
            yield lease_ends_at, "lease"

    def _act(self, act: str, playing: Playing, at: float) -> None:
        if act == "limit":
            self._stop(verdicts.TIME_LIMIT, self.part.grace_s, at)
        elif act == "lease":
            self._stop(verdicts.NODE_CUT_OFF, min(CUT_OFF_GRACE_S, self.part.grace_s), at)
        elif act == "kill":
            self.kill_at = _NEVER
            self.executor.signal(playing, signal.SIGKILL, at)
        elif ended := self.executor.poll(playing, at):
            self._finish(playing, ended, at)

    def _stop(self, verdict: Verdict, grace_s: float, now: float) -> None:
        """A second reason can only make it sooner, or silent."""
        first = self.verdict is None
        if first or verdict.silent:
            self.verdict = verdict
        if self.playing is not None:
            if first:
                self.executor.signal(self.playing, signal.SIGTERM, now)
            self.kill_at = min(self.kill_at, now + grace_s)

    def _finish(self, playing: Playing, ended: Exit, at: float) -> None:
        verdict = self.verdict or verdicts.of_exit(ended)
        if self.verdict is None and playing.play.out_of_memory and ended == Exit(playing.play.code, signal.SIGKILL):
            verdict = verdicts.out_of_memory(self.part.memory_bytes)
        usage = self.executor.usage(playing, at)
        self._report(verdict.state, at, verdict, ended, usage.cpu_s, usage.peak_memory_bytes)

    def _report(
        self, state: ReplicaState, at: float, verdict: Verdict | None = None, ended: Exit | None = None,
        cpu_s: float = 0.0, peak_bytes: int = 0,
    ) -> None:  # fmt: skip
        playing = self.playing
        if playing is None:
            raise ValueError(f"{self.part.replica_id} never came to run")
        at_us = playing.started_us + round((at - playing.started_at) * 1e6)
        told = _report(self.part, len(self.reports) + 1, state, at_us, verdict)
        if ended is not None:
            told = Report(
                told.replica_id, told.fence, told.seq, told.state, told.at, told.cause, ended.code, ended.signal,
                told.message, round(at - playing.started_at, 6), round(cpu_s, 6), peak_bytes,
            )  # fmt: skip
        self.reports.append(told)

    # Telling

    def load(self) -> Load:
        """What the control plane does not have yet."""
        if self.forgotten:
            return Load(None, (), ())
        text = self._text()[self.log :]
        chunk = LogChunk(*self.key, self.log, text.decode()) if text else None
        points, reports = tuple(islice(self._points(), _MOST_POINTS)), tuple(self.reports[self.told :])
        if self.ended and len(points) == _MOST_POINTS:
            reports = reports[:-1]  # an end is told together with, or after, all that came before it
        return Load(chunk, points, reports)

    def accept(self, receipt: Receipt) -> None:
        """Note what it has now."""
        name = self.part.replica_id
        self.log = receipt.logs.get(name, self.log)
        self.points = receipt.metrics.get(name, self.points)
        self.told = max(self.told, receipt.reports.get(name, 0))

    def _text(self) -> bytes:
        """Its whole log so far: the same however often it is made."""
        playing = self.playing
        if playing is None:
            return b""
        lines = [self._said or f"{playing.started_us} s this is a simulated run of {playing.play.run_s:.3g} s\n"]
        for step in range(self._said_steps + 1, self._steps(playing) + 1):
            told = "".join(f" {name} {value:.6g}" for name, value in metrics_at(playing, step))
            lines.append(f"{_step_us(playing, step)} o step {step} of {playing.play.steps}{told}\n")
            self._said_steps = step
        self._said = "".join(lines)
        return self._said.encode()

    def _points(self) -> Iterator[MetricPoint]:
        playing = self.playing
        if playing is None or not playing.play.metrics:
            return
        width = len(playing.play.metrics)
        for step in range(self.points // width + 1, self._steps(playing) + 1):
            at = _stamp(_step_us(playing, step))
            for seq, (name, value) in enumerate(metrics_at(playing, step), (step - 1) * width + 1):
                if seq > self.points:
                    yield MetricPoint(*self.key, seq, name, value, step, at)

    def _steps(self, playing: Playing) -> int:
        return steps_by(playing, self._now)

    # Keeping

    def as_record(self) -> dict[str, Any]:
        """All that another process needs to go on with it; plain JSON."""
        playing = self.playing
        return {
            "node": self.node,
            "part": pack(self.part),
            "play": playing and pack(playing.play),
            "began": playing and [playing.started_at, playing.started_us],
            "reports": pack(self.reports),
        }

    @classmethod
    def from_record(cls, executor: SimulatedExecutor, record: dict[str, Any]) -> "Performance":
        """What `as_record` told. Raises ValueError for what it did not."""
        part, playing = unpack(Part, record["part"]), None
        if record["play"] is not None:
            playing = executor.adopt(part, unpack(Play, record["play"]), *record["began"])
        reports = [unpack(Report, report) for report in record["reports"]]
        made = cls(executor, part, record["node"], playing, reports)
        if playing is not None and made.ended:
            playing.ends_at = playing.started_at + reports[-1].run_s
            made._now = playing.ends_at
        return made


def _step_us(playing: Playing, step: int) -> int:
    return playing.started_us + round(step * playing.play.step_s * 1e6)


def _report(part: Part, seq: int, state: ReplicaState, at_us: int, verdict: Verdict | None) -> Report:
    cause, message = (verdict.cause, verdict.message) if verdict else (None, "")
    return Report(part.replica_id, part.fence, seq, state, _stamp(at_us), cause, message=message)


def _stamp(at_us: int) -> str:
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="microseconds")
