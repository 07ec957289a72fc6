"""The node's own doctor: looks now and then, in a thread of its own, so that a device that hangs delays no heartbeat."""

import logging
from collections.abc import Iterable, Sequence
from threading import Event, Thread

from agent.ground import Hooks
from agent.health.checks import Check
from agent.hooks import run_hook
from trellis.vocabulary import Severity
from trellis.wire import Checkup, Finding

_log = logging.getLogger(__name__)
MOST_FINDINGS = 100
_SAYS = 300
# As monitoring plugins have it: 0 is well, 1 a warning, anything else is bad.
_SEVERITIES = {1: Severity.WARNING}


def check_by_hook(hooks: Hooks) -> Iterable[Finding]:
    """What the operator's own program finds."""
    ran = run_hook(hooks.health, "health", hooks, {})
    if ran.code:
        yield Finding("hook", _SEVERITIES.get(ran.code, Severity.BAD), f"the health check {ran.why}"[:_SAYS])


class HealthWatch:
    """Runs checks every `every_s`; `latest` is what the last round found."""

    def __init__(self, checks: Sequence[Check], every_s: float) -> None:
        self._checks = checks
        self._every_s = every_s
        self._latest = Checkup(0)
        self._stopping = Event()
        self._thread = Thread(target=self._run, name="health", daemon=True)

    @property
    def latest(self) -> Checkup | None:
        """The last round; None before the first has ended."""
        return self._latest if self._latest.number else None

    def start(self) -> None:
        """Begin with a round now."""
        self._thread.start()

    def stop(self) -> None:
        """End; a round that hangs is left behind."""
        self._stopping.set()
        self._thread.join(timeout=1.0)

    def look(self) -> Checkup:
        """One round."""
        found: list[Finding] = []
        for check in self._checks:
            try:
                found += check()
            except (OSError, ValueError) as error:  # a check that can't look says so, and the others go on
                found.append(Finding("check", Severity.WARNING, f"a health check could not look: {error}"[:_SAYS]))
        self._latest = Checkup(self._latest.number + 1, tuple(found[:MOST_FINDINGS]))
        return self._latest

    def _run(self) -> None:
        known: tuple[Finding, ...] = ()
        while not self._stopping.is_set():
            found = self.look().findings
            for finding in set(found) - set(known):
                _log.warning("health: %s: %s", finding.check, finding.message)
            known = found
            self._stopping.wait(self._every_s)
