"""Keeps services running: starts them in order, starts again what dies, stops them in the opposite order.

One thread a service waits for its process in the kernel, so a death is seen at once and an idle stack costs nothing.
"""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum

from app.cli.errors import StackError
from app.cli.services import Service, last_lines, spawn

PROBE_S = 0.03
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
STEADY_S = 20.0  # one that lived this long was well: its next death is a new story


class ServiceState(StrEnum):
    """Where a service is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    RESTARTING = "restarting"
    STOPPED = "stopped"


class Keeper:
    """Keeps one service running from `start` to `stop`."""

    def __init__(self, service: Service, changed: Callable[[], None]) -> None:
        self.service = service
        self.state = ServiceState.STOPPED
        self.restarts = 0
        self.failure = ""
        self.reason = ""
        self.process: subprocess.Popen[bytes] | None = None
        self._changed = changed
        self._lock = threading.Lock()  # between starting a process and deciding that there shall be none
        self._stopping = threading.Event()
        self._settled = threading.Event()  # the first start has come to an end, good or bad
        self._thread = threading.Thread(target=self._keep, name=f"keep-{service.name}", daemon=True)

    def start(self) -> None:
        """Start the process; `wait_ready` tells whether it came up."""
        self._become(ServiceState.STARTING)
        self._thread.start()

    def wait_ready(self) -> None:
        """Wait for the first start. Raises StackError with the end of the log if it failed."""
        self._settled.wait()
        if self.failure:
            raise StackError(self.failure)

    def signal(self, number: signal.Signals) -> None:
        """From now on nothing is started again; what runs gets the signal."""
        self._stopping.set()
        with self._lock:
            if self.process and self.process.poll() is None:
                self.process.send_signal(number)

    def wait_stopped(self) -> None:
        """Wait for the end within the service's limit, then make it end."""
        if self._thread.ident is None:
            return
        self._thread.join(self.service.stop_s)
        if self._thread.is_alive():
            self.signal(signal.SIGKILL)
            self._thread.join()
        if self.service.after_stop:
            self.service.after_stop()

    def _keep(self) -> None:
        pause_s = FIRST_PAUSE_S
        while self._launch():
            began = time.monotonic()
            self._probe(began)
            code = self._wait()
            if self.failure or self._stopping.is_set():
                break
            pause_s = FIRST_PAUSE_S if time.monotonic() - began > STEADY_S else pause_s
            self.restarts += 1
            self._become(ServiceState.RESTARTING, f"ended with {describe_exit(code)}")
            self._stopping.wait(pause_s)
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
        self._become(ServiceState.STOPPED)
        self._settled.set()

    def _launch(self) -> bool:
        with self._lock:
            if self._stopping.is_set():
                return False
            try:
                self.process = spawn(self.service)
            except OSError as error:
                self.failure = f"{self.service.name} can't be started: {error.strerror}: {error.filename}"
                return False
            return True

    def _probe(self, began: float) -> None:
        process = self.process
        assert process is not None
        while process.poll() is None and not self._stopping.is_set():
            if self.service.ready():
                self._become(ServiceState.RUNNING)
                self._settled.set()
                return
            if time.monotonic() - began > self.service.ready_s:
                self._fail(f"was not ready after {self.service.ready_s:.0f} s")
                process.kill()
                return
            self._stopping.wait(PROBE_S)
        if not self._stopping.is_set():
            self._fail(f"ended with {describe_exit(process.returncode)} while it started")

    def _fail(self, what: str) -> None:
        if self._settled.is_set():
            return  # it was up before: it is started again, and again
        end = last_lines(self.service.log)
        self.failure = f"{self.service.name} {what}. Its log is {self.service.log}" + (f":\n{end}" if end else ".")

    def _wait(self) -> int:
        process = self.process
        assert process is not None
        code = process.wait()
        if self.service.sweep:
            # Workers of a killed server would hold its port, or its shared memory, against the next one.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
        return code

    def _become(self, state: ServiceState, why: str = "") -> None:
        self.state = state
        self.reason = why
        self._changed()


class Supervisor:
    """All keepers, in the order in which they were started."""

    def __init__(self, changed: Callable[["Supervisor"], None] = lambda _: None) -> None:
        self._groups: list[list[Keeper]] = []
        self._told = changed
        self._lock = threading.Lock()  # keepers change side by side; who listens is told of one change at a time

    @property
    def keepers(self) -> list[Keeper]:
        """Every service, first started first."""
        return [keeper for group in self._groups for keeper in group]

    def start(self, *groups: Sequence[Service]) -> None:
        """Start the services of all groups at once and wait until each is ready; groups only order the stopping.

        Raises: StackError when one does not come up; those that did are left for `stop`.
        """
        new = [[Keeper(service, self._tell) for service in group] for group in groups]
        self._groups.extend(new)
        for keeper in (keeper for group in new for keeper in group):
            keeper.start()
        for keeper in (keeper for group in new for keeper in group):
            keeper.wait_ready()

    def stop(self, told: Callable[[str], None] = lambda _: None) -> None:
        """Stop the groups, last started first; the services of one group together."""
        while self._groups:
            group = self._groups[-1]
            told(", ".join(keeper.service.name for keeper in group))
            for keeper in group:
                keeper.signal(keeper.service.stop_signal)
            for keeper in group:
                keeper.wait_stopped()
            self._groups.pop()

    def kill(self) -> None:
        """Make every process end now. `stop`, which may be under way, then has nothing to wait for."""
        for keeper in self.keepers:
            keeper.signal(signal.SIGKILL)

    def _tell(self) -> None:
        with self._lock:
            self._told(self)


def describe_exit(code: int) -> str:
    """`exit code 1` or `signal SIGKILL`, as Popen counts."""
    return f"exit code {code}" if code >= 0 else f"signal {signal.Signals(-code).name}"
