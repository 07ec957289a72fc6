"""Holding a replica still, and having it save its state before that or before it is told to end."""

import signal
import time
from contextlib import suppress

from agent.checkpoint_folder import CheckpointFolder, Marker
from agent.standstill import Standstill
from agent.ward import Ward
from trellis.vocabulary import ReplicaState

# How often it is looked at while it saves, and while it comes to a stop.
SAVE_LOOK_S, FREEZE_LOOK_S = 0.05, 0.02


class Holding:
    """One replica's."""

    def __init__(self, ward: Ward, still: Standstill) -> None:
        self._ward = ward
        self._timers = ward.loop.timers
        self.still = still
        self._save_by: tuple[float, Marker | None] = (0.0, None)

    @property
    def rests_soon(self) -> bool:
        """Whether it is about to stand still."""
        return self._freeze in self._timers

    def pause(self, checkpoint_s: float) -> None:
        """Hold it still, after it had its time to save its state."""
        if not self.still and self._freeze not in self._timers:
            self._timers[self._freeze] = time.monotonic() + self._ask_for_checkpoint(checkpoint_s)

    def go_on(self) -> None:
        """Let it go on, or never mind."""
        if self._timers.pop(self._freeze, None) is None and not self.still:
            return
        self._ward.signal(signal.SIGCONT)
        if self.still:
            self.still.end(time.monotonic())
            self._ward.hang.stir()
            self._ward.teller.tell(ReplicaState.RUNNING)
            self._ward.teller.poke_soon()

    def give_up(self) -> None:
        """It is to end: if it was to stand still, it is not any more, though some of it may already."""
        if self._timers.pop(self._freeze, None) is not None:
            self._ward.signal(signal.SIGCONT)

    def end_when_saved(self, until: float) -> None:
        """Wish for a checkpoint from a program that listens to wishes; TERM when it has saved, or at `until`."""
        folder = CheckpointFolder(self._ward.replica)
        plan = self._ward.spec.checkpoint
        if folder.listens() or (plan and not plan.saves):  # another saves for it
            self._ask(folder, until)
        self._await_save()

    def _ask(self, folder: CheckpointFolder, until: float) -> None:
        before = folder.marker()
        with suppress(OSError):  # a full disk: TERM still tells it, and it stands still without
            folder.ask()
        self._save_by = (until, before)

    def _await_save(self) -> None:
        until, before = self._save_by
        if self._ward.running is None:
            return
        if time.monotonic() >= until or CheckpointFolder(self._ward.replica).marker() != before:
            self._ward.signal(signal.SIGTERM)
        else:
            self._timers[self._await_save] = time.monotonic() + SAVE_LOOK_S

    def _ask_for_checkpoint(self, within_s: float) -> float:
        """Have it save its state, if it can be told to; how many seconds to wait for that at the most."""
        if not within_s:
            return 0.0
        folder = CheckpointFolder(self._ward.replica)
        if self._ward.spec.checkpoint and folder.listens():
            self._ask(folder, time.monotonic() + within_s)
            self._timers[self._rest_when_saved] = time.monotonic() + SAVE_LOOK_S
            return within_s
        return within_s if self._ward.warn() else 0.0

    def _rest_when_saved(self) -> None:
        """It need not use up all of its time to save."""
        if self._freeze not in self._timers or self._ward.verdict is not None:
            return
        if CheckpointFolder(self._ward.replica).marker() != self._save_by[1]:
            self._timers[self._freeze] = time.monotonic()
        else:
            self._timers[self._rest_when_saved] = time.monotonic() + SAVE_LOOK_S

    def _freeze(self) -> None:
        ward = self._ward
        if ward.running is None or ward.verdict is not None:
            return
        now = time.monotonic()
        if not ward.executor.freeze(ward.running):
            self._timers[self._freeze] = now + FREEZE_LOOK_S
            return
        self.still.begin(now)
        ward.teller.tell(ReplicaState.SUSPENDED)
        ward.teller.poke_soon()
