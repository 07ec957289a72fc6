"""One process, one replica at a time: starts the job, keeps its output, ends it when it must, and writes down what
became of it.

It needs nobody: the launcher that forked it, the daemon and the Celery worker may all die. What it learns goes to
files (see `agent.layout`); whoever lives reads them.
"""

import fcntl
import math
import os
import select
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from agent import clock, debugging, environments, hooking, lease, metric_socket, pokes, processes, verdicts, workspace
from agent.checkpoint_folder import CheckpointFolder, Marker
from agent.executors import EXECUTORS
from agent.executors.base import Exit, Running, Start, StartFailed
from agent.ground import Ground
from agent.hanging import HangWatch
from agent.journal import Journal
from agent.layout import ReplicaDir, read_json, write_json
from agent.metering import Meter
from agent.output import LineReader, OutputLog, RememberingLog
from agent.sampling import EVERY_S, Sampler
from agent.standstill import Standstill
from agent.verdicts import Verdict
from trellis.vocabulary import HangAction, ReplicaState, StopReason
from trellis.wire import CUT_OFF_GRACE_S, Code, ReplicaSpec, Report

LEASE_LOOK_S = 5.0
# KILL comes so long before others may have the devices: it takes effect, and is noticed, on a busy machine.
CUT_OFF_RESERVE_S = 1.0
MEMORY_LOOK_S = 1.0
POKE_EVERY_S = 0.005
# That it runs is told a little later, together with its first line, or with its end if that comes before.
FIRST_POKE_S = 0.02
SWEEP_EVERY_S = 0.02
FULL_DISK_LOOK_S = 1.0
# For how long the code of a job is waited for, and after how long its owner hears of that.
CODE_WITHIN_S = 900.0
CODE_SAY_S = 1.0
LOCK_LOOK_S = 0.2
# How much of its grace a program that listens for wishes to save has before it is told to end.
SAVE_SHARE, SAVE_LOOK_S = 0.7, 0.05
# Blocked but while there is a replica that they are meant for: one that comes early waits.
HELD_BACK = frozenset({signal.SIGTERM, signal.SIGUSR1})
_OOM_SCORE = 500
_NEVER = float("inf")


def hear_signals() -> int:
    """Have the signals that a supervisor lives by told through the descriptor that this returns. Once a process."""
    heard, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)
    for signum in (signal.SIGCHLD, *HELD_BACK):
        signal.signal(signum, lambda *_: None)  # the wake-up descriptor tells
    return heard


class Supervisor:
    """Lives as long as its replica. The process holds the replica's lock and has no other children."""

    def __init__(self, ground: Ground, replica: ReplicaDir, spec: ReplicaSpec, heard: int) -> None:
        """`heard` is what `hear_signals` returned."""
        self._ground = ground
        self._replica = replica
        self._spec = spec
        self._heard = heard
        self._home = ground.home
        self._socket = metric_socket.new_name()
        self._executor = EXECUTORS[spec.executor]
        self._journal = Journal(replica.journal)
        self._log = OutputLog(replica.log)
        self._poller = select.poll()
        self._actions: dict[int, Callable[[], None]] = {}
        self._timers: dict[Callable[[], None], float] = {}
        self._still = Standstill(self._timers, (self._reach_time_limit, self._warn_of_limit, self._look_for_hang))
        self._running: Running | None = None
        self._outputs: list[LineReader] = []
        self._started_at = 0.0
        self._verdict: Verdict | None = None
        self._peak_bytes = 0
        self._child_ended = False
        self._poked_at = 0.0
        self._held: int | None = None
        self._hang = HangWatch(self._home, spec)
        self._save_by: tuple[float, Marker | None] = (0.0, None)

    def run(self) -> bool:
        """Supervise the replica to its end; whether it came to run and ended by itself."""
        self._listen()
        self._report(ReplicaState.STARTING)
        try:
            if self._spec.checkpoint:
                workspace.take_restored(self._ground, self._replica)
            if self._spec.code is not None:
                self._await_code(self._spec.code)
            self._verdict = self._verdict or hooking.run_prolog(self._ground, self._spec)
            self._start()
        except (StartFailed, OSError, ValueError) as error:  # ValueError: text that no system call takes
            self._verdict = verdicts.start_failed(str(error))
        if self._running is None:
            self._finish(Exit(None), self._verdict or verdicts.NODE_CUT_OFF)
            return False
        ended = self._watch(self._running)
        self._finish(ended, self._verdict or self._judge(ended))
        return self._verdict is None

    # Getting ready

    def _listen(self) -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_BACK)
        self._on(self._heard, self._hear_signals)
        self._replica.job.mkdir(mode=0o711)
        self._meter = Meter(self._replica.metrics, metric_socket.listen(self._replica.job, self._socket))
        self._on(self._meter.listener.fileno(), self._hear_metrics)

    def _await_code(self, code: Code) -> None:
        """Until the daemon has laid it out, or the replica is to start no more; see `agent.provisioning`."""
        write_json(self._replica.wanted, {"project_id": self._spec.project_id, "digest": code.digest})
        began = time.monotonic()
        say = partial(self._log.say, f"waiting for the code: {code.files} files, {code.size_bytes} bytes")
        late = verdicts.start_failed(f"its code did not come within {CODE_WITHIN_S:g} s")
        timers: dict[Callable[[], None], float] = {say: CODE_SAY_S, partial(self._stop, late, 0): CODE_WITHIN_S}
        if self._spec.leased:
            timers[self._look_at_lease] = 0.0
        self._timers |= {action: began + after_s for action, after_s in timers.items()}
        self._poke()
        self._obey_wish()
        while self._verdict is None and (supplied := read_json(self._replica.supplied)) is None:
            self._wait()
        for action in timers:
            self._timers.pop(action, None)
        if self._verdict is None and supplied["fault"]:
            raise StartFailed(supplied["fault"])

    def _start(self) -> None:
        self._obey_wish()
        leased_s = self._leased_s()
        if self._verdict or (self._spec.leased and leased_s <= 0):
            return  # it is not to start any more
        began_at = time.monotonic()
        workspace.lay_out(self._ground, self._replica, self._spec)
        program = workspace.prepare(self._ground, self._replica, self._spec, self._socket)
        if self._spec.code and self._spec.code.requirements:
            mount = self._find_environment(program.places, self._spec.code.requirements)
            if mount is None:
                return
            program = workspace.in_environment(program, mount)
            leased_s = self._leased_s()
        for name in program.refused:
            self._log.say(f"{name} was not passed on to the job")
        if self._spec.checkpoint:
            workspace.open_checkpoints(self._ground, self._replica, self._spec)
        self._started_at = time.monotonic()
        self._launch(self._spec, program, self._log, began_at)
        self._report(ReplicaState.RUNNING)
        self._set_timers(leased_s)
        self._obey_wish()

    def _launch(self, spec: ReplicaSpec, program: workspace.Program, log: OutputLog, began_at: float) -> Running:
        ends = self._open_outputs(log)
        usual = processes.oom_preference()
        processes.set_oom_preference(max(usual, _OOM_SCORE))  # the kernel lets no one but root go below his own
        start = Start(self._ground, self._replica, spec, program, *ends)
        started_at = time.monotonic()
        self._running = self._executor.start(start)
        if spec.debug:
            times_s = started_at - began_at, time.monotonic() - started_at
            for line in debugging.told_at_start(start, *times_s):
                self._log.say(line)
        processes.set_oom_preference(usual)
        for end in ends:
            os.close(end)
        return self._running

    def _open_outputs(self, log: OutputLog) -> tuple[int, int]:
        """Have two streams read into `log`; the ends that are to be written to."""
        ends = []
        for mark in ("o", "e"):
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(read_end, False)
            reader = LineReader(read_end, mark, log)
            self._on(read_end, partial(self._hear_output, reader))
            self._outputs.append(reader)
            ends.append(write_end)
        return ends[0], ends[1]

    # The environment

    def _find_environment(self, places: workspace.Places, path: str) -> workspace.Mount | None:
        """The environment that the file `path` of the code asks for, built if need be; None if it comes to nothing."""
        began = clock.boottime()
        if self._spec.leased:
            self._timers[self._look_at_lease] = time.monotonic()
        try:
            environment = environments.locate(self._ground, self._spec, self._replica.work)
            while self._verdict is None:
                fd = environment.lock(fcntl.LOCK_SH)
                if fd is not None and environment.use():
                    self._held = fd  # until the replica has ended, so that nobody removes it
                    return workspace.Mount(str(environment.folder), environment.inside)
                if fd is not None:
                    os.close(fd)
                self._build_or_wait(environment, places, path, began)
        except environments.Unbuildable as error:
            self._verdict = self._verdict or verdicts.environment_failed(str(error))
        return None

    def _build_or_wait(
        self, environment: environments.Environment, places: workspace.Places, path: str, began: float
    ) -> None:
        """Build it, or look again a little later where another does. Raises Unbuildable, also where that one failed."""
        if why := environment.failed_since(began):
            raise environments.Unbuildable(why)
        fd = environment.lock(fcntl.LOCK_EX)
        if fd is None:
            self._timers[self._look_again] = time.monotonic() + LOCK_LOOK_S
            self._wait()
            return
        try:
            if not environment.use():
                self._build(environment, places, path)
        finally:
            os.close(fd)

    def _look_again(self) -> None:
        """Only wakes who waits."""

    def _build(self, environment: environments.Environment, places: workspace.Places, path: str) -> None:
        program, network = environments.build_program(self._ground, environment, places, path)
        environment.begin(self._ground.confinement.uid)
        self._log.say(f"building the environment of {path}")
        self._poke_soon()
        began, log = time.monotonic(), RememberingLog(self._replica.log, environments.WORDS_LAST)
        self._timers[self._give_up_building] = began + environments.WITHIN_S
        if self._spec.memory_bytes > 0:
            self._timers[self._look_at_memory] = began + MEMORY_LOOK_S
        # It gets the job's room and not its devices.
        spec = replace(self._spec, network=network, gpus=(), slices=())
        ended = self._watch(self._launch(spec, program, log, began))
        self._end_building(log)
        for remark in ended.remarks:
            self._log.say(remark)
        if ended.out_of_memory:  # the job's fault, not the environment's: another may have room to build it
            self._verdict = self._verdict or verdicts.out_of_memory(self._spec.memory_bytes)
        if self._verdict is None and ended.code:
            why = " | ".join(log.last) or ended.start_error or f"uv ended with exit code {ended.code}"
            environment.fail(why, clock.boottime())
            raise environments.Unbuildable(why)
        if self._verdict is None:
            environment.finish()
            self._log.say(f"the environment is built, in {time.monotonic() - began:.1f} s")

    def _end_building(self, log: OutputLog) -> None:
        self._running = None
        for action in (self._give_up_building, self._look_at_memory, self._kill):
            self._timers.pop(action, None)
        for reader in self._outputs:
            reader.read_rest()
            with suppress(KeyError):  # its end was heard
                self._poller.unregister(reader.fd)
            del self._actions[reader.fd]
            reader.close()
        self._outputs.clear()
        self._peak_bytes = 0
        log.close()

    def _give_up_building(self) -> None:
        self._stop(verdicts.environment_failed(f"it was not built within {environments.WITHIN_S:g} s"), 0)

    def _set_timers(self, leased_s: float) -> None:
        self._timers[self._poke] = self._started_at + FIRST_POKE_S
        if self._spec.leased:
            self._timers[self._look_at_lease] = self._started_at + min(leased_s, LEASE_LOOK_S)
        if self._spec.time_limit_s is not None:
            self._timers[self._reach_time_limit] = self._started_at + self._spec.time_limit_s
            if self._spec.warn_signal:
                warned_s = max(0, self._spec.time_limit_s - self._spec.warn_before_s)
                self._timers[self._warn_of_limit] = self._started_at + warned_s
        if self._spec.memory_bytes > 0:
            self._timers[self._look_at_memory] = self._started_at + MEMORY_LOOK_S
        if self._spec.hang_after_s:
            self._timers[self._look_for_hang] = self._hang.begin()
        self._sampler = Sampler()
        self._timers[self._sample] = self._started_at + EVERY_S

    def _sample(self) -> None:
        if self._running is None:
            return
        self._meter.note(self._sampler.sample(processes.descendants(os.getpid()), self._running.cpu_s))
        self._timers[self._sample] = time.monotonic() + EVERY_S
        self._poke_soon()

    def _look_for_hang(self) -> None:
        if self._running is None or self._verdict is not None:
            return
        self._timers[self._look_for_hang] = time.monotonic() + self._hang.every_s
        ended_cpu_s = self._executor.usage(self._running).cpu_s
        if verdict := self._hang.judge(self._replica, ended_cpu_s, rests=self._freeze in self._timers):
            self._log.say(verdict.message)
            if self._spec.hang_action is HangAction.WARN:
                self._report(ReplicaState.RUNNING, verdict)
            else:
                self._stop(verdict, self._spec.grace_s)
            self._poke_soon()

    def _on(self, fd: int, action: Callable[[], None]) -> None:
        self._actions[fd] = action
        self._poller.register(fd, select.POLLIN)

    # The loop

    def _watch(self, running: Running) -> Exit:
        while True:
            if self._child_ended:
                self._child_ended = False
                if ended := self._executor.poll(running):
                    return ended
                if running.ended is not None:  # killing what it left behind
                    self._timers[self._notice_children] = time.monotonic() + SWEEP_EVERY_S
            self._wait()

    def _wait(self) -> None:
        """Hear what comes next, or do what is due."""
        due = min(self._timers.values(), default=_NEVER)
        timeout_ms = None if due == _NEVER else max(0, math.ceil((due - time.monotonic()) * 1000))
        for fd, _ in self._poller.poll(timeout_ms):
            self._actions[fd]()
        self._run_timers()

    def _run_timers(self) -> None:
        now = time.monotonic()
        for action, due in list(self._timers.items()):
            if due <= now:
                del self._timers[action]
                action()

    def _notice_children(self) -> None:
        self._child_ended = True

    # What it hears

    def _hear_signals(self) -> None:
        for signum in os.read(self._heard, 4096):
            if signum == signal.SIGCHLD:
                self._child_ended = True
            elif signum == signal.SIGTERM:  # a second one is in earnest
                self._stop(verdicts.NODE_STOPPED, 0.0 if self._verdict else self._spec.grace_s)
            elif signum == signal.SIGUSR1:
                self._obey_wish()

    def _hear_metrics(self) -> None:
        if self._meter.read():
            self._poke_soon()

    def _hear_output(self, reader: LineReader) -> None:
        if not reader.read():
            self._poller.unregister(reader.fd)
        self._hang.stir()
        self._poke_soon()

    # Ending it

    def _obey_wish(self) -> None:
        if wish := read_json(self._replica.stop):
            self._stop(verdicts.BY_REASON[StopReason(wish["reason"])], wish["grace_s"])
        if self._running is None or self._verdict is not None or not self._started_at:
            return  # what makes its environment is not held still: it stands still once its own program runs
        if wish := read_json(self._replica.pause):
            if wish["paused"]:
                self._pause(wish["checkpoint_s"])
            else:
                self._go_on(self._running)

    def _stop(self, verdict: Verdict, grace_s: float) -> None:
        """TERM, and KILL after `grace_s`. A second reason can only make it sooner, or silent."""
        first = self._verdict is None
        if first or verdict.silent:
            self._verdict = verdict
        if self._running is None:
            return
        now = time.monotonic()
        if self._still:
            grace_s = 0.0  # what it ran on is no longer its own: it may not even end there by itself
        elif first:
            saves = self._spec.checkpoint and verdict not in (verdicts.CANCELLED, verdicts.NODE_CUT_OFF)
            if saves and grace_s > 0:
                self._ask_to_save(now + grace_s * SAVE_SHARE)
            else:
                self._executor.signal(self._running, signal.SIGTERM)
            if self._timers.pop(self._freeze, None) is not None:  # some of it may stand still already
                self._executor.signal(self._running, signal.SIGCONT)
        self._timers[self._kill] = min(self._timers.get(self._kill, _NEVER), now + grace_s)

    def _ask_to_save(self, until: float) -> None:
        """Wish for a checkpoint from a program that listens to wishes; TERM when it has saved, or at `until`."""
        folder = CheckpointFolder(self._replica)
        if folder.listens():
            before = folder.marker()
            with suppress(OSError):  # a full disk: TERM still tells it
                folder.ask()
            self._save_by = (until, before)
        self._await_save()

    def _await_save(self) -> None:
        until, before = self._save_by
        if self._running is None:
            return
        if time.monotonic() >= until or CheckpointFolder(self._replica).marker() != before:
            self._executor.signal(self._running, signal.SIGTERM)
        else:
            self._timers[self._await_save] = time.monotonic() + SAVE_LOOK_S

    def _kill(self) -> None:
        if self._running is None:
            return
        self._executor.signal(self._running, signal.SIGKILL)
        self._timers[self._kill] = time.monotonic() + SWEEP_EVERY_S  # until nothing is left

    def _warn_of_limit(self) -> None:
        left_s = min(self._spec.warn_before_s, self._spec.time_limit_s or 0)
        heard = self._warn()
        how = f"told by {self._spec.warn_signal}" if heard else f"no process of it handles {self._spec.warn_signal}"
        self._log.say(f"the time limit is reached in {left_s} s: {how}")
        self._poke_soon()

    def _warn(self) -> bool:
        """Send its warning signal to whoever listens to that; whether anybody does."""
        if self._running is None or not self._spec.warn_signal:
            return False
        return self._executor.warn(self._running, signal.Signals[f"SIG{self._spec.warn_signal}"])

    def _reach_time_limit(self) -> None:
        self._stop(verdicts.TIME_LIMIT, self._spec.grace_s)

    def _look_at_lease(self) -> None:
        left_s = self._leased_s()
        if left_s <= 0:
            self._stop(verdicts.NODE_CUT_OFF, min(CUT_OFF_GRACE_S - CUT_OFF_RESERVE_S, self._spec.grace_s))
        else:  # a machine that slept counts on for the lease, not for timers: look now and then
            self._timers[self._look_at_lease] = time.monotonic() + min(left_s, LEASE_LOOK_S)

    def _leased_s(self) -> float:
        return lease.deadline(self._home) - clock.boottime()

    def _look_at_memory(self) -> None:
        if self._running is None:
            return
        usage = self._executor.usage(self._running)
        self._peak_bytes = max(self._peak_bytes, usage.memory_bytes)
        if usage.over or usage.memory_bytes > self._spec.memory_bytes:  # without some of them it is not the same job
            self._verdict = self._verdict or verdicts.out_of_memory(self._spec.memory_bytes)
            self._kill()
        self._timers[self._look_at_memory] = time.monotonic() + MEMORY_LOOK_S

    def _judge(self, ended: Exit) -> Verdict:
        # Nobody of ours sent this KILL, and it was about to hold more than it may: the kernel was first.
        nearly_full = 0 < self._spec.memory_bytes < self._peak_bytes * 10 / 9
        if ended.out_of_memory or (ended.signal == signal.SIGKILL and nearly_full):
            return verdicts.out_of_memory(self._spec.memory_bytes)
        return verdicts.of_exit(ended)

    # Holding it still

    def _pause(self, checkpoint_s: float) -> None:
        """Hold it still, after it had its time to save its state."""
        if not self._still and self._freeze not in self._timers:
            self._timers[self._freeze] = time.monotonic() + self._ask_for_checkpoint(checkpoint_s)

    def _ask_for_checkpoint(self, within_s: float) -> float:
        """Have it save its state, if it can be told to; how many seconds to wait for that at the most."""
        if not within_s:
            return 0.0
        folder = CheckpointFolder(self._replica)
        if self._spec.checkpoint and folder.listens():
            before = folder.marker()
            with suppress(OSError):  # a full disk: it stands still without
                folder.ask()
            self._save_by = (time.monotonic() + within_s, before)
            self._timers[self._rest_when_saved] = time.monotonic() + SAVE_LOOK_S
            return within_s
        return within_s if self._warn() else 0.0

    def _rest_when_saved(self) -> None:
        """It need not use up all of its time to save."""
        if self._freeze not in self._timers or self._verdict is not None:
            return
        if CheckpointFolder(self._replica).marker() != self._save_by[1]:
            self._timers[self._freeze] = time.monotonic()
        else:
            self._timers[self._rest_when_saved] = time.monotonic() + SAVE_LOOK_S

    def _freeze(self) -> None:
        if self._running is None or self._verdict is not None:
            return
        now = time.monotonic()
        if not self._executor.freeze(self._running):
            self._timers[self._freeze] = now + SWEEP_EVERY_S
            return
        self._still.begin(now)
        self._report(ReplicaState.SUSPENDED)
        self._poke_soon()

    def _go_on(self, running: Running) -> None:
        if self._timers.pop(self._freeze, None) is None and not self._still:
            return
        self._executor.signal(running, signal.SIGCONT)
        if self._still:
            self._still.end(time.monotonic())
            self._hang.stir()
            self._report(ReplicaState.RUNNING)
            self._poke_soon()

    # Telling

    def _finish(self, ended: Exit, verdict: Verdict) -> None:
        for reader in self._outputs:
            reader.read_rest()
        self._meter.read()
        if self._meter.dropped:
            self._log.say(f"{self._meter.dropped} metric points came faster than they could be kept, and were dropped")
        if self._meter.refused:
            self._log.say(f"{self._meter.refused} messages on the metric socket were no metric points")
        if self._spec.debug and self._running:
            now = time.monotonic()
            rested_s = self._still.total_s(now)
            usage = self._executor.usage(self._running)
            self._log.say(debugging.told_at_end(ended, usage, now - self._started_at - rested_s, rested_s))
        for remark in ended.remarks:
            self._log.say(remark)
        hooking.run_epilog(self._ground, self._spec, ended, verdict)
        if not verdict.silent:
            self._report(verdict.state, verdict, ended)
            while not self._journal.settle():  # nothing runs any more: an end that is told late beats one that is lost
                time.sleep(FULL_DISK_LOOK_S)
        self._let_go()
        for _ in range(100):
            if pokes.poke(self._home.poke, self._name):
                return
            time.sleep(POKE_EVERY_S)

    def _let_go(self) -> None:
        """Keep nothing of this replica: the process may be given another. The lock last: who sees it free tidies up."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_BACK)
        self._timers.clear()
        self._actions.clear()
        for reader in self._outputs:
            reader.close()
        for file in (self._meter, self._log, self._journal):
            file.close()
        if self._held is not None:
            os.close(self._held)
        self._replica.lock.unlink(missing_ok=True)

    def _report(self, state: ReplicaState, verdict: Verdict | None = None, ended: Exit | None = None) -> None:
        report = Report(self._spec.replica_id, self._spec.fence, 0, state, clock.stamp())
        if verdict:
            report = replace(report, cause=verdict.cause, message=verdict.message)
        if ended and self._running:
            report = self._measured(report, self._running, ended)
        self._journal.append(report)
        self._settle_journal()

    def _settle_journal(self) -> None:
        if not self._journal.settle():
            self._timers[self._settle_journal] = time.monotonic() + FULL_DISK_LOOK_S

    def _measured(self, report: Report, running: Running, ended: Exit) -> Report:
        usage, now = self._executor.usage(running), time.monotonic()
        return replace(
            report,
            exit_code=ended.code,
            signal=ended.signal,
            run_s=round(now - self._started_at - self._still.total_s(now), 6),
            cpu_s=round(usage.cpu_s, 6),
            peak_memory_bytes=max(self._peak_bytes, usage.peak_memory_bytes),
        )

    @property
    def _name(self) -> bytes:
        return f"{self._replica.path.name}\n".encode()

    def _poke_soon(self) -> None:
        due = self._poked_at + POKE_EVERY_S
        if due <= time.monotonic():
            self._poke()
        else:
            self._timers.setdefault(self._poke, due)

    def _poke(self) -> None:
        self._poked_at = time.monotonic()
        self._timers.pop(self._poke, None)
        if not pokes.poke(self._home.poke, self._name):
            self._timers[self._poke] = self._poked_at + POKE_EVERY_S
