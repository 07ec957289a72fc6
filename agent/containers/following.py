"""One container's output, and its end: a thread beside the supervisor, which has only itself to wait for."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread

from agent.containers.engine import Answer, Engine, EngineError, EngineGone

# For how long an engine that went away is waited for, once its container is seen to have ended.
PATIENCE_S = 60.0
_AGAIN_S = 0.5
_HEADER, _PIECE = 8, 1 << 16


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it ended; without a code nobody knows, and `fault` says why."""

    code: int | None
    out_of_memory: bool = False
    fault: str = ""


class Follower:
    """Copies what it prints to the supervisor's own descriptors; `outcome` is there once it and that are over.

    The supervisor is told by a signal as of a child of its own.
    """

    def __init__(self, engine: Engine, container: str, outputs: tuple[int, int], alive: Callable[[], bool]) -> None:
        """`outputs` take its output and its errors; they are copied. `alive` is whether it is seen to run."""
        self.outcome: Outcome | None = None
        self._engine = engine
        self._container = container
        self._alive = alive
        self._outputs = {1 + number: os.dup(fd) for number, fd in enumerate(outputs)}
        self._copied = dict.fromkeys(self._outputs, 0)
        self._thread = Thread(target=self._run, name="follower", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread, which is about to be over once there is an outcome."""
        self._thread.join()

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the supervisor's
        try:
            self.outcome = self._follow()
        finally:
            for fd in self._outputs.values():
                os.close(fd)
            os.kill(os.getpid(), signal.SIGCHLD)

    def _follow(self) -> Outcome:
        ended_at: float | None = None
        while True:
            try:
                self._copy()
                if outcome := self._look():
                    return outcome
            except (EngineError, EngineGone, ValueError) as error:
                if not self._alive():
                    ended_at = ended_at or time.monotonic()
                    if time.monotonic() > ended_at + PATIENCE_S:
                        return Outcome(None, fault=f"the container engine does not say how it ended: {error}")
            time.sleep(_AGAIN_S)

    def _look(self) -> Outcome | None:
        """Its end; None where the engine hung up on us while it goes on."""
        found = self._engine.inspect(self._container)
        if found is None:
            return Outcome(None, fault="its container was removed by somebody else")
        if found["State"]["Running"] or found["State"]["Status"] in ("paused", "stopping"):
            return None
        return Outcome(self._engine.wait(self._container), bool(found["State"].get("OOMKilled")))

    def _copy(self) -> None:
        """All it prints, from the beginning; what was copied before is left out."""
        answer = self._engine.logs(self._container)
        seen = dict.fromkeys(self._outputs, 0)
        try:
            while len(header := answer.read(_HEADER)) == _HEADER:
                self._copy_frame(answer, header[0], int.from_bytes(header[4:], "big"), seen)
        finally:
            answer.close()

    def _copy_frame(self, answer: Answer, stream: int, left: int, seen: dict[int, int]) -> None:
        while left > 0 and (piece := answer.read(min(left, _PIECE))):
            left -= len(piece)
            if stream in self._outputs:
                fresh = piece[max(0, self._copied[stream] - seen[stream]) :]
                seen[stream] += len(piece)
                self._copied[stream] = max(self._copied[stream], seen[stream])
                _write_all(self._outputs[stream], fresh)


def _write_all(fd: int, block: bytes) -> None:
    with suppress(BrokenPipeError):  # nobody listens any more: its end is what is waited for
        while block:
            block = block[os.write(fd, block) :]
