"""A replica in a supervisor's care: what all that the supervisor does with it knows of it, and its output."""

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from agent import clock, debugging, lease, processes
from agent.executors import EXECUTORS
from agent.executors.base import Executor, Running, Start
from agent.ground import Ground
from agent.hanging import HangWatch
from agent.layout import ReplicaDir
from agent.loop import Loop
from agent.output import LineReader, OutputLog
from agent.rendezvous import Seat
from agent.telling import Teller
from agent.verdicts import Verdict
from agent.workspace import Program
from trellis.wire import ReplicaSpec

_OOM_SCORE = 500


@dataclass(slots=True)
class Ward:
    """`verdict` is why the platform ends it, once it does; `started_at` is in monotonic seconds, 0 before its start.

    `peak_bytes` is the most that its processes were seen to hold together. `held` is a lock that must be kept while it
    lives, `seat` its place in a gang. `spent_s` is for how long it was made ready, phase by
    phase.
    """

    ground: Ground
    replica: ReplicaDir
    spec: ReplicaSpec
    log: OutputLog
    loop: Loop
    teller: Teller
    running: Running | None = None
    verdict: Verdict | None = None
    started_at: float = 0.0
    peak_bytes: int = 0
    held: int | None = None
    seat: Seat | None = None
    outputs: list[LineReader] = field(default_factory=list)
    spent_s: dict[str, float] = field(default_factory=dict)
    hang: HangWatch = field(init=False)

    def __post_init__(self) -> None:
        self.hang = HangWatch(self.ground.home, self.spec)

    @property
    def executor(self) -> Executor:
        """What runs it."""
        return EXECUTORS[self.spec.executor]

    def leased_s(self) -> float:
        """For how long its room is surely its own."""
        return lease.deadline(self.ground.home) - clock.boottime()

    def launch(self, spec: ReplicaSpec, program: Program, log: OutputLog, began_at: float) -> Running:
        """Start a program for it, whose output goes to `log`. Raises StartFailed."""
        ends = self._open_outputs(log)
        usual = processes.oom_preference()
        processes.set_oom_preference(max(usual, _OOM_SCORE))  # the kernel lets no one but root go below his own
        start = Start(self.ground, self.replica, spec, program, *ends)
        started_at = time.monotonic()
        self.running = self.executor.start(start)
        if spec.debug:
            self.spent_s |= {"prepared": started_at - began_at, "started": time.monotonic() - started_at}
            for line in debugging.told_at_start(start, self.spent_s):
                self.log.say(line)
        processes.set_oom_preference(usual)
        for end in ends:
            os.close(end)
        return self.running

    def resume(self, start: Callable[[int, int], Start]) -> Running | None:
        """Go on with what an earlier supervisor started; None where that can't be."""
        ends = self._open_outputs(self.log)
        self.running = self.executor.resume(start(*ends))
        for end in ends:
            os.close(end)
        return self.running

    def signal(self, signum: int) -> None:
        """Signal all of its processes, if there are any."""
        if self.running is not None:
            self.executor.signal(self.running, signum)

    def warn(self) -> bool:
        """Send its warning signal to whoever listens to that; whether anybody does."""
        if self.running is None or not self.spec.warn_signal:
            return False
        return self.executor.warn(self.running, signal.Signals[f"SIG{self.spec.warn_signal}"])

    def drop_outputs(self) -> None:
        """Take what is still there of a program that has ended, and listen to it no more."""
        for reader in self.outputs:
            reader.read_rest()
            self.loop.forget(reader.fd)
            reader.close()
        self.outputs.clear()

    def _open_outputs(self, log: OutputLog) -> tuple[int, int]:
        """Have two streams read into `log`; the ends that are to be written to."""
        ends = []
        for mark in ("o", "e"):
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(read_end, False)
            reader = LineReader(read_end, mark, log)
            self.loop.on(read_end, partial(self._hear, reader))
            self.outputs.append(reader)
            ends.append(write_end)
        return ends[0], ends[1]

    def _hear(self, reader: LineReader) -> None:
        if not reader.read():
            self.loop.rest(reader.fd)
        self.hang.stir()
        self.teller.poke_soon()
