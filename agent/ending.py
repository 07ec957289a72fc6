"""Ending a replica: because somebody wishes it, its time is up, its room is not its own any more, or it holds too much."""

import signal
import time

from agent import verdicts
from agent.executors.base import Exit
from agent.holding import Holding
from agent.loop import NEVER
from agent.rendezvous import ROBBED
from agent.sampling import consumed_by
from agent.standstill import Standstill
from agent.verdicts import Verdict
from agent.ward import Ward
from trellis.vocabulary import HangAction
from trellis.wire import CUT_OFF_GRACE_S

LEASE_LOOK_S = 5.0
# KILL comes so long before others may have the devices: it takes effect, and is noticed, on a busy machine.
CUT_OFF_RESERVE_S = 1.0
MEMORY_LOOK_S = 1.0
SWEEP_EVERY_S = 0.02
# How much of its grace a program that listens for wishes to save has before it is told to end.
SAVE_SHARE = 0.7


class Ending:
    """One replica's."""

    def __init__(self, ward: Ward) -> None:
        self._ward = ward
        self._timers = ward.loop.timers
        # Its time stands still with it.
        stops = (self._reach_time_limit, self._warn_of_limit, self._look_for_hang)
        self.holding = Holding(ward, Standstill(self._timers, stops))

    def stop(self, verdict: Verdict, grace_s: float) -> None:
        """TERM, and KILL after `grace_s`. A second reason can only make it sooner, or silent."""
        ward = self._ward
        first = ward.verdict is None
        if first or verdict.silent:
            ward.verdict = verdict
        if ward.running is None:
            return
        now = time.monotonic()
        if self.holding.still:
            grace_s = 0.0  # what it ran on is no longer its own: it may not even end there by itself
        elif first:
            saves = ward.spec.checkpoint and verdict not in (verdicts.CANCELLED, verdicts.NODE_CUT_OFF)
            if saves and grace_s > 0:
                self.holding.end_when_saved(now + grace_s * SAVE_SHARE)
            else:
                ward.signal(signal.SIGTERM)
            self.holding.give_up()
        self._timers[self.kill] = min(self._timers.get(self.kill, NEVER), now + grace_s)

    def kill(self) -> None:
        """KILL, until nothing is left."""
        if self._ward.running is None:
            return
        self._ward.signal(signal.SIGKILL)
        self._timers[self.kill] = time.monotonic() + SWEEP_EVERY_S

    def watch_lease(self, after_s: float = 0.0) -> None:
        """End it, before others may have its room, if the node hears nothing more. Does nothing where it has no lease."""
        if self._ward.spec.leased:
            self._timers[self.look_at_lease] = time.monotonic() + min(after_s, LEASE_LOOK_S)

    def look_at_lease(self) -> None:
        """Whether its room is still its own."""
        left_s = self._ward.leased_s()
        if left_s <= 0:
            self.stop(verdicts.NODE_CUT_OFF, min(CUT_OFF_GRACE_S - CUT_OFF_RESERVE_S, self._ward.spec.grace_s))
        else:  # a machine that slept counts on for the lease, not for timers: look now and then
            self.watch_lease(left_s)

    def watch_time(self) -> None:
        """End it at its time limit, and warn it before, where it has one."""
        spec, started_at = self._ward.spec, self._ward.started_at
        if spec.time_limit_s is not None:
            self._timers[self._reach_time_limit] = started_at + spec.time_limit_s
            if spec.warn_signal:
                self._timers[self._warn_of_limit] = started_at + max(0, spec.time_limit_s - spec.warn_before_s)

    def watch_memory(self) -> None:
        """End it when it holds more than it asked for. Does nothing where it asked for nothing."""
        if self._ward.spec.memory_bytes > 0:
            self._timers[self.look_at_memory] = time.monotonic() + MEMORY_LOOK_S

    def look_at_memory(self) -> None:
        """Whether it holds too much."""
        ward = self._ward
        if ward.running is None:
            return
        usage = ward.executor.usage(ward.running)
        ward.peak_bytes = max(ward.peak_bytes, usage.memory_bytes)
        if usage.over or usage.memory_bytes > ward.spec.memory_bytes:  # without some of them it is not the same job
            ward.verdict = ward.verdict or verdicts.out_of_memory(ward.spec.memory_bytes)
            self.kill()
        self.watch_memory()

    def watch_hang(self) -> None:
        """Look whether it does anything at all, where somebody minds."""
        if self._ward.spec.hang_after_s:
            self._timers[self._look_for_hang] = self._ward.hang.begin()

    def _look_for_hang(self) -> None:
        ward = self._ward
        if ward.running is None or ward.verdict is not None:
            return
        self._timers[self._look_for_hang] = time.monotonic() + ward.hang.every_s
        used_s = consumed_by(ward.executor.members(ward.running), ward.running.cpu_s).cpu_s
        verdict = ward.hang.judge(ward.replica, used_s, rests=self.holding.rests_soon)
        if verdict is None:
            return
        ward.log.say(verdict.message)
        if ward.spec.hang_action is HangAction.WARN:
            ward.teller.tell_of(verdict)
        else:
            self.stop(verdict, ward.spec.grace_s)
        ward.teller.poke_soon()

    def judge(self, ended: Exit) -> Verdict:
        """What to make of it that it ended so, where the platform did not end it."""
        ward = self._ward
        # Nobody of ours sent this KILL, and it was about to hold more than it may: the kernel was first.
        nearly_full = 0 < ward.spec.memory_bytes < ward.peak_bytes * 10 / 9
        if ended.out_of_memory or (ended.signal == signal.SIGKILL and nearly_full):
            return verdicts.out_of_memory(ward.spec.memory_bytes)
        robbed = ended.code and ward.seat and ward.seat.was_robbed(time.monotonic() - ward.started_at)
        return ROBBED if robbed else verdicts.of_exit(ended)

    def _warn_of_limit(self) -> None:
        spec = self._ward.spec
        left_s = min(spec.warn_before_s, spec.time_limit_s or 0)
        heard = self._ward.warn()
        how = f"told by {spec.warn_signal}" if heard else f"no process of it handles {spec.warn_signal}"
        self._ward.log.say(f"the time limit is reached in {left_s} s: {how}")
        self._ward.teller.poke_soon()

    def _reach_time_limit(self) -> None:
        self.stop(verdicts.TIME_LIMIT, self._ward.spec.grace_s)
