"""The sums of what is free, over time: where they do not suffice nothing fits, and nobody need look at nodes."""

from bisect import bisect_left, bisect_right
from math import inf

from scheduler.snapshot import Amounts


class Timeline:
    """Steps of free amounts from now on; the last one lasts for ever."""

    def __init__(self, free: Amounts, now: float) -> None:
        self._times = [now]
        self._levels = tuple([amount] for amount in free)

    def advance(self, now: float) -> None:
        """Forget what is past."""
        passed = bisect_right(self._times, now) - 1
        if passed > 0:
            del self._times[:passed]
            for level in self._levels:
                del level[:passed]
        self._times[0] = now

    def give(self, starts_at: float, ends_at: float, amounts: Amounts) -> None:
        """Have so much more between two moments, of which the first is not past; taking is giving less than nothing."""
        first = self._split(starts_at)
        last = len(self._times) if ends_at == inf else self._split(ends_at)
        for level, amount in zip(self._levels, amounts, strict=True):
            if amount:
                level[first:last] = [free + amount for free in level[first:last]]

    def find(self, since: float, length_s: float, amounts: Amounts, before: float = inf) -> float | None:
        """Return the first moment `since` and `before` two others from which so much is free so long; None: never."""
        times, count = self._times, len(self._times)
        wanted = [pair for pair in zip(self._levels, amounts, strict=True) if pair[1]]
        place = max(bisect_right(times, since) - 1, 0)
        at = max(since, times[0])
        while at < before:
            until = at + length_s
            look = place
            while look < count and times[look] < until:
                if any(level[look] < amount for level, amount in wanted):
                    break
                look += 1
            else:
                return at
            place = look + 1
            if place == count:
                return None
            at = times[place]
        return None

    def next_step(self, at: float) -> float:
        """Return when something changes after `at`, `inf` for never."""
        place = bisect_right(self._times, at)
        return self._times[place] if place < len(self._times) else inf

    def _split(self, at: float) -> int:
        place = bisect_left(self._times, at)
        if place == len(self._times) or self._times[place] != at:
            self._times.insert(place, at)
            for level in self._levels:
                level.insert(place, level[place - 1])
        return place
