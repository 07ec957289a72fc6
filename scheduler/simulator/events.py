"""What happens when: a calendar that hands out one instant after the other."""

from enum import IntEnum
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Generic, NamedTuple, TypeVar

Subject = TypeVar("Subject")


class Kind(IntEnum):
    """What happens, in the order in which it does within one instant: what ends makes room for what arrives."""

    END = 0
    NODE_DOWN = 1
    NODE_UP = 2
    ARRIVAL = 3


class Event(NamedTuple, Generic[Subject]):
    """`number` tells events of one instant and kind apart, in the order in which they were entered."""

    at: float
    kind: Kind
    number: int
    subject: Subject


class Calendar(Generic[Subject]):
    """Everything that is still to happen."""

    def __init__(self) -> None:
        self._events: list[Event[Subject]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._events)

    @property
    def first_at(self) -> float:
        """When the next thing happens, `inf` where nothing is left."""
        return self._events[0].at if self._events else inf

    def enter(self, at: float, kind: Kind, subject: Subject) -> None:
        """Let something happen at `at`."""
        heappush(self._events, Event(at, kind, next(self._numbers), subject))

    def next_instant(self) -> tuple[float, list[Event[Subject]]]:
        """Take out all that happens at the earliest time. Raises IndexError where nothing is left."""
        events = self._events
        first = heappop(events)
        together = [first]
        while events and events[0].at == first.at:
            together.append(heappop(events))
        return first.at, together
