"""What a supervisor tells of its replica: reports in a journal, and pokes that something was written."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from agent import clock, pokes, workspace
from agent.executors.base import Exit, Usage
from agent.journal import Journal, read
from agent.layout import Home, ReplicaDir
from agent.loop import Loop
from agent.verdicts import Verdict
from trellis.vocabulary import ReplicaState
from trellis.wire import Ready, ReplicaSpec, Report

POKE_EVERY_S = 0.005
FULL_DISK_LOOK_S = 1.0
_LAST_POKES = 100


def rested_s(reports: Sequence[Report], now: str) -> float:
    """For how long a replica of which this was told has stood still; by the wall clock, as reports are."""
    ends = [*(report.at for report in reports[1:]), now]
    stood = [(one.at, end) for one, end in zip(reports, ends, strict=False) if one.state is ReplicaState.SUSPENDED]
    return sum(
        max(0.0, (datetime.fromisoformat(end) - datetime.fromisoformat(at)).total_seconds()) for at, end in stood
    )


class Teller:
    """One replica's."""

    def __init__(self, home: Home, replica: ReplicaDir, spec: ReplicaSpec, loop: Loop) -> None:
        """`state` is what was told last, `rested_s` for how long it stood still by what an earlier supervisor told."""
        self._home = home
        self._replica = replica
        self._spec = spec
        self._loop = loop
        self._journal = Journal(replica.journal)
        self.state: ReplicaState | None = None
        self.rested_s = 0.0
        self._name = f"{replica.path.name}\n".encode()
        self._poked_at = 0.0

    def go_on(self, replica: ReplicaDir) -> None:
        """Tell behind what an earlier supervisor told; `state` is what it said last."""
        self._journal = Journal.resume(replica.journal)
        told = read(replica.journal, 0)
        self.state = told[-1].report.state if told else None
        self.rested_s = rested_s([entry.report for entry in told], clock.stamp())

    def tell(self, state: ReplicaState, ready: Ready | None = None) -> None:
        """That it is in this state; of one of a gang also that it is ready to begin with the others."""
        self.state = state
        self._append(replace(self._report(state), ready=ready))

    def tell_of(self, verdict: Verdict) -> None:
        """Something about it that does not change its state."""
        state = self.state or verdict.state
        self._append(replace(self._report(state), cause=verdict.cause, message=verdict.message))

    def tell_end(self, verdict: Verdict, ended: Exit, usage: Usage | None, run_s: float) -> None:
        """How it ended; `usage` is None for one that never ran. Returns when that is on disk: late beats lost."""
        # No text to the control plane: NUL, and halves of characters. A report with one would be refused for ever.
        message = verdict.message.encode(errors="replace").decode().replace("\0", "?")
        report = replace(self._report(verdict.state), cause=verdict.cause, message=message)
        if usage:
            report = replace(
                report, exit_code=ended.code, signal=ended.signal, run_s=round(run_s, 6),
                cpu_s=round(usage.cpu_s, 6), peak_memory_bytes=usage.peak_memory_bytes,
            )  # fmt: skip
        self._append(report)
        if not self._journal.settle():
            workspace.clear(self._replica)
        while not self._journal.settle():  # nothing runs any more
            time.sleep(FULL_DISK_LOOK_S)

    def poke(self) -> None:
        """Say now that something was written."""
        self._poked_at = time.monotonic()
        self._loop.timers.pop(self.poke, None)
        if not pokes.poke(self._home.poke, self._name):
            self._loop.timers[self.poke] = self._poked_at + POKE_EVERY_S

    def poke_soon(self) -> None:
        """Say so, but not more often than somebody can look."""
        due = self._poked_at + POKE_EVERY_S
        if due <= time.monotonic():
            self.poke()
        else:
            self._loop.timers.setdefault(self.poke, due)

    def poke_last(self) -> None:
        """Say so once more, when nothing else is left to do."""
        for _ in range(_LAST_POKES):
            if pokes.poke(self._home.poke, self._name):
                return
            time.sleep(POKE_EVERY_S)

    def close(self) -> None:
        """Let go of the journal."""
        self._journal.close()

    def _report(self, state: ReplicaState) -> Report:
        return Report(self._spec.replica_id, self._spec.fence, 0, state, clock.stamp())

    def _append(self, report: Report) -> None:
        self._journal.append(report)
        self._settle()

    def _settle(self) -> None:
        if not self._journal.settle():
            self._loop.timers[self._settle] = time.monotonic() + FULL_DISK_LOOK_S
