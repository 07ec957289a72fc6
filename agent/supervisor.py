"""One process, one replica at a time: starts the job, keeps its output, ends it when it must, and writes down what
became of it.

It needs nobody: the launcher that forked it, the daemon and the Celery worker may all die. What it learns goes to
files (see `agent.layout`); whoever lives reads them.
"""

import os
import signal
import time
from dataclasses import dataclass, replace
from functools import partial

from agent import clock, debugging, hooking, metering, metric_socket, verdicts, workspace
from agent.appending import drop_torn
from agent.ending import SWEEP_EVERY_S, Ending
from agent.executors.base import Exit, Running, Start, StartFailed
from agent.ground import Ground
from agent.layout import ReplicaDir, read_json, write_json
from agent.loop import Loop
from agent.metering import Meter
from agent.observing import Observer
from agent.output import OutputLog, ResumedLog
from agent.preparing import Preparing
from agent.redaction import Redactor, secrets_in
from agent.telling import Teller
from agent.verdicts import Verdict
from agent.ward import Ward
from trellis.vocabulary import ReplicaState, StopReason
from trellis.wire import ReplicaSpec, pack, unpack

# That it runs is told a little later, together with its first line, or with its end if that comes before.
FIRST_POKE_S = 0.02
# For how long the end of a replica waits for room for its last lines: it holds its devices meanwhile.
LAST_LINES_WITHIN_S, LAST_LINES_LOOK_S = 5.0, 0.1
# Blocked but while there is a replica that they are meant for: one that comes early waits.
HELD_BACK = frozenset({signal.SIGTERM, signal.SIGUSR1})


def hear_signals() -> int:
    """Have the signals that a supervisor lives by told through the descriptor that this returns. Once a process."""
    heard, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    for signum in (signal.SIGCHLD, *HELD_BACK):
        signal.signal(signum, lambda *_: None)  # the wake-up descriptor tells
    return heard


@dataclass(frozen=True, slots=True)
class Kept:
    """What the next supervisor of a replica needs to know: the name of its socket, and when it started (boot time)."""

    spec: ReplicaSpec
    socket: str
    started_at: float


class Supervisor:
    """Lives as long as its replica. The process holds the replica's lock and has no other children."""

    def __init__(
        self, ground: Ground, replica: ReplicaDir, spec: ReplicaSpec, heard: int, kept: Kept | None = None
    ) -> None:
        """`heard` is what `hear_signals` returned; `kept` what an earlier supervisor of the replica left."""
        self._kept = kept
        self._heard = heard
        self._replica = replica
        self._spec = spec
        self._socket = kept.socket if kept else metric_socket.new_name()
        self._loop = Loop()
        self._timers = self._loop.timers
        self._teller = Teller(ground.home, replica, spec, self._loop)
        hide = Redactor(secrets_in(spec.environment))
        if kept:
            for path in (replica.log, replica.metrics):
                drop_torn(path)
        self._log = ResumedLog(replica.log, hide) if kept else OutputLog(replica.log, hide=hide)
        self._ward = Ward(ground, replica, spec, self._log, self._loop, self._teller)
        self._ending = Ending(self._ward)
        self._holding = self._ending.holding
        self._preparing = Preparing(self._ward, self._ending, self._watch, self._obey_wish)
        self._child_ended = False

    @classmethod
    def again(cls, ground: Ground, replica: ReplicaDir, heard: int) -> "Supervisor":
        """One for a replica whose supervisor died. Raises ValueError where that left nothing to go on with."""
        said = read_json(replica.spec)
        if said is None:
            raise ValueError(f"nothing of {replica.path.name} can be taken up")
        kept = unpack(Kept, said)
        return cls(ground, replica, kept.spec, heard, kept)

    def run(self) -> bool:
        """Supervise the replica to its end; whether it came to run and ended by itself."""
        self._listen()
        if self._kept:
            return self._take_up(self._kept)
        self._teller.tell(ReplicaState.STARTING)
        ward = self._ward
        try:
            if self._spec.checkpoint:
                workspace.take_restored(ward.ground, self._replica, self._spec)
            if self._spec.code is not None:
                self._preparing.await_code(self._spec.code)
            if self._spec.container is not None:
                self._preparing.await_image(self._spec.container)
            ward.verdict = ward.verdict or hooking.run_prolog(ward.ground, self._spec)
            self._start()
        except workspace.NothingRestored as error:
            ward.verdict = verdicts.restore_failed(str(error))
        except (StartFailed, OSError, ValueError) as error:  # ValueError: text that no system call takes
            ward.verdict = verdicts.start_failed(str(error))
        return self._await_end(verdicts.NODE_CUT_OFF)

    def _take_up(self, kept: Kept) -> bool:
        """Go on with a replica that outlived its supervisor."""
        ward = self._ward
        self._teller.go_on(self._replica)
        # It has run for as long as it did not stand still.
        ward.started_at = time.monotonic() - (clock.boottime() - kept.started_at) + self._teller.rested_s
        program = workspace.prepared_before(ward.ground, self._replica, self._spec, self._socket)
        if ward.resume(partial(Start, ward.ground, self._replica, self._spec, program)):
            self._log.say("its supervisor died; another one has taken it up")
            self._set_timers()
            if self._teller.state is ReplicaState.SUSPENDED:
                self._holding.still.begin(time.monotonic())
            elif self._teller.state is not ReplicaState.RUNNING:
                self._teller.tell(ReplicaState.RUNNING)
            if ward.running:  # what it used before is no rate of now
                self._observer.measure(ward.executor.members(ward.running), ward.running.cpu_s)
            self._obey_wish()
        return self._await_end(verdicts.SUPERVISOR_GONE)

    def _await_end(self, otherwise: Verdict) -> bool:
        """`otherwise` is what became of one that does not run."""
        ward = self._ward
        if ward.running is None:
            self._finish(Exit(None), ward.verdict or otherwise)
            return False
        ended = self._watch(ward.running)
        self._finish(ended, ward.verdict or self._ending.judge(ended))
        return ward.verdict is None

    def _listen(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        self._loop.on(self._heard, self._hear_signals)
        if not self._kept:
            self._replica.job.mkdir(mode=0o711)
        kept = metering.last_seq(self._replica.metrics) if self._kept else 0
        listener = metric_socket.listen(self._replica.job, self._socket)
        self._meter = Meter(self._replica.metrics, listener, kept, self._replica.shipped)
        self._loop.on(self._meter.listener.fileno(), self._hear_metrics)

    def _start(self) -> None:
        self._obey_wish()
        ward, spec = self._ward, self._spec
        if ward.verdict or (spec.leased and ward.leased_s() <= 0):
            return  # it is not to start any more
        began_at = time.monotonic()
        workspace.lay_out(ward.ground, self._replica, spec)
        program = workspace.prepare(ward.ground, self._replica, spec, self._socket)
        if spec.code and spec.code.requirements:
            mount = self._preparing.find_environment(program.places, spec.code.requirements)
            ward.spent_s["its environment"] = time.monotonic() - began_at
            if mount is None:
                return
            program = workspace.in_environment(program, mount)
        if spec.gang:
            program = self._preparing.await_gang(program)
        if ward.verdict:
            return
        for name in program.refused:
            self._log.say(f"{name} was not passed on to the job")
        if spec.checkpoint:
            workspace.open_checkpoints(ward.ground, self._replica, spec)
        ward.started_at = time.monotonic()
        if spec.container:
            write_json(self._replica.spec, pack(Kept(spec, self._socket, clock.boottime())))
        ward.launch(spec, program, self._log, began_at)
        self._teller.tell(ReplicaState.RUNNING)
        self._set_timers()
        self._obey_wish()

    def _set_timers(self) -> None:
        self._timers[self._teller.poke] = self._ward.started_at + FIRST_POKE_S
        self._ending.watch_lease(max(0.0, self._ward.leased_s()))
        self._ending.watch_time()
        self._ending.watch_memory()
        self._ending.watch_hang()
        self._observer = Observer(self._ward.ground, self._spec)
        self._timers[self._sample] = self._ward.started_at + self._observer.every_s

    def _sample(self) -> None:
        running = self._ward.running
        if running is None:
            return
        for line in self._observer.look(self._meter, self._ward.executor.members(running), running.cpu_s):
            self._log.say(line)
        self._timers[self._sample] = time.monotonic() + self._observer.every_s
        self._teller.poke_soon()

    def _watch(self, running: Running) -> Exit:
        while True:
            if self._child_ended:
                self._child_ended = False
                if ended := self._ward.executor.poll(running):
                    return ended
                if running.ended is not None:  # killing what it left behind
                    self._timers[self._notice_children] = time.monotonic() + SWEEP_EVERY_S
            self._loop.wait()

    def _notice_children(self) -> None:
        self._child_ended = True

    def _hear_signals(self) -> None:
        for signum in os.read(self._heard, 4096):
            if signum == signal.SIGCHLD:
                self._child_ended = True
            elif signum == signal.SIGTERM:  # a second one is in earnest
                self._ending.stop(verdicts.NODE_STOPPED, 0.0 if self._ward.verdict else self._spec.grace_s)
            elif signum == signal.SIGUSR1:
                self._obey_wish()

    def _hear_metrics(self) -> None:
        if self._meter.read():
            self._teller.poke_soon()
        for news in self._meter.news():
            self._log.say(news)

    def _obey_wish(self) -> None:
        if wish := read_json(self._replica.stop):
            self._ending.stop(verdicts.BY_REASON[StopReason(wish["reason"])], wish["grace_s"])
        ward = self._ward
        if ward.running is None or ward.verdict is not None or not ward.started_at:
            return  # what makes its environment is not held still: it stands still once its own program runs
        if wish := read_json(self._replica.pause):
            if wish["paused"]:
                self._holding.pause(wish["checkpoint_s"])
            else:
                self._holding.go_on()

    def _finish(self, ended: Exit, verdict: Verdict) -> None:
        for reader in self._ward.outputs:
            reader.read_rest()
        self._meter.read()
        for remark in self._meter.remarks():
            self._log.say(remark)
        self._tell_end(ended, verdict)
        if self._ward.running:
            self._teller.poke()  # letting go may take a while
            self._ward.executor.release(self._ward.running)
        self._let_go()
        self._teller.poke_last()

    def _tell_end(self, ended: Exit, verdict: Verdict) -> None:
        ward, now = self._ward, time.monotonic()
        rested_s = self._holding.still.total_s(now)
        run_s = now - ward.started_at - rested_s
        usage = ward.executor.usage(ward.running) if ward.running else None
        if self._spec.debug and usage:
            self._log.say(debugging.told_at_end(ended, usage, run_s, rested_s))
        for remark in ended.remarks:
            self._log.say(remark)
        hooking.run_epilog(ward.ground, self._spec, ended, verdict)
        verdict = self._settle(verdict)
        if not verdict.silent:
            if usage:
                usage = replace(usage, peak_memory_bytes=max(ward.peak_bytes, usage.peak_memory_bytes))
            self._teller.tell_end(verdict, ended, usage, run_s)

    def _settle(self, verdict: Verdict) -> Verdict:
        """Write down all that waits for room on a full disk: whoever reads of the end takes the other files for whole.

        What the job leaves for nobody makes room. If that is not enough for what it said, its end tells of that.
        """
        until, files = time.monotonic() + LAST_LINES_WITHIN_S, (self._log, self._meter)
        waiting = [file for file in files if not file.settle()]
        if waiting:
            workspace.clear(self._replica)
        while waiting := [file for file in waiting if not file.settle()]:
            if time.monotonic() > until:
                for file in waiting:
                    file.give_up()
                return verdicts.with_lost_lines(verdict)
            time.sleep(LAST_LINES_LOOK_S)
        return verdict

    def _let_go(self) -> None:
        """Keep nothing of this replica: the process may be given another. The lock last: who sees it free tidies up."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        self._loop.clear()
        for reader in self._ward.outputs:
            reader.close()
        for file in (self._meter, self._log, self._teller):
            file.close()
        if self._ward.seat is not None:
            self._ward.seat.close()
        if self._ward.held is not None:
            os.close(self._ward.held)
        self._replica.lock.unlink(missing_ok=True)
