"""How long a job will run, judged by its owner's last ones: what decides rank, never what decides a promise.

A prediction that proves wrong costs some job its rank, and delays none that was owed room: claims and backfill go by
limits. Source of the idea: Tsafrir, Etsion and Feitelson, Backfilling Using System-Generated Predictions Rather than
User Runtime Estimates, TPDS 2007 (there: the plain mean of the last two).
"""

from collections import deque

REMEMBERED = 10
"""How many of an owner's jobs are looked back on."""


class Predictions:
    """The last run times of every owner.

    Their mean is weighted by the run times themselves (sum of squares over sum): jobs of a second that are run to look
    short hardly count beside one of an hour, so that a long job is hidden only by ending `REMEMBERED` others after it.
    """

    def __init__(self) -> None:
        self._last: dict[str, deque[float]] = {}

    def learn(self, owner: str, run_s: float) -> None:
        """Note that a job of `owner` ended after `run_s` seconds, however it ended."""
        self._last.setdefault(owner, deque(maxlen=REMEMBERED)).append(max(run_s, 1.0))

    def expect(self, owner: str, limit_s: float | None) -> float | None:
        """Return how long the owner's next job will run, never more than its limit; None where nothing is known."""
        last = self._last.get(owner)
        if not last:
            return limit_s
        mean = sum(run_s * run_s for run_s in last) / sum(last)
        return mean if limit_s is None else min(mean, limit_s)
