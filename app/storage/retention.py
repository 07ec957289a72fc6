"""Which checkpoints of one replica are kept; pure."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from trellis.vocabulary import MetricMode


@dataclass(frozen=True, slots=True)
class Keep:
    """What its owner wants kept: the newest `last`; the first of each hour for `hours`; the `best` by a metric."""

    last: int = 3
    hours: int = 0
    best: int = 0
    metric: str = ""
    mode: MetricMode = MetricMode.MIN


@dataclass(frozen=True, slots=True)
class Held:
    """What a decision needs to know of a checkpoint."""

    id: UUID
    created_at: datetime
    metric: float | None = None
    damaged: bool = False


def decide_removed(held: Collection[Held], keep: Keep, now: datetime) -> list[UUID]:
    """The ids of those that nothing keeps, oldest first. A damaged one is kept by nothing but being asked for."""
    ordered = sorted((one for one in held if not one.damaged), key=lambda one: (one.created_at, one.id))
    kept = {one.id for one in [*ordered[-keep.last :], *_hourly(ordered, keep, now), *_best(ordered, keep)]}
    return [one.id for one in sorted(held, key=lambda one: (one.created_at, one.id)) if one.id not in kept]


def _hourly(ordered: Sequence[Held], keep: Keep, now: datetime) -> Collection[Held]:
    """The first of each hour of the clock: it stays the first, whatever comes after it."""
    first: dict[datetime, Held] = {}
    for one in ordered:
        if one.created_at > now - timedelta(hours=keep.hours):
            first.setdefault(one.created_at.replace(minute=0, second=0, microsecond=0), one)
    return first.values()


def _best(ordered: Sequence[Held], keep: Keep) -> Sequence[Held]:
    """Among equals the newer one is the better."""
    sign = 1 if keep.mode is MetricMode.MIN else -1
    measured = [(sign * one.metric, one) for one in reversed(ordered) if one.metric is not None]
    return [one for _, one in sorted(measured, key=lambda pair: pair[0])[: keep.best]]
