"""Metrics over time: one value for each step of it."""

import math
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    Double,
    Result,
    Select,
    case,
    cast,
    func,
    literal,
    null,
    select,
)
from sqlalchemy.dialects.postgresql import aggregate_order_by

from app.core.uow import UnitOfWork
from app.jobs.condensing import MINUTE_S, QUARTER_S, SCALE
from app.jobs.models import Job, MetricBucket, MetricPoint, MetricSeries, Replica
from trellis.errors import Field, Invalid


def _last(of: Any) -> ColumnElement[Any]:
    return func.array_agg(aggregate_order_by(of.last, of.last_at.desc(), of.seq.desc()))[1]


# Sums are of numbers made small (SCALE), for the sum of two may be larger than any number; a mean never is.
AGGREGATES: dict[str, Callable[[Any], ColumnElement[Any]]] = {
    "mean": lambda of: func.sum(of.scaled) / func.sum(of.many).cast(Double),
    "min": lambda of: func.min(of.least),
    "max": lambda of: func.max(of.most),
    "sum": lambda of: func.sum(of.scaled),
    "last": _last,
}
_SCALED = ("mean", "sum")
MOST_SERIES = 50
MOST_POINTS = 10_000
_USUAL_POINTS = 200
_STEPS = (1, 5, 10, 30, 60, 300, 900, 1800, 3600, 10_800, 21_600, 86_400)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class SeriesQuery:
    """Which metrics (none: all), of which time (none: the job's), how coarse (none: as suits the time)."""

    names: tuple[str, ...] = ()
    start: datetime | None = None
    end: datetime | None = None
    resolution_s: int | None = None
    agg: str = "mean"
    replica: int | None = None
    each_replica: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Metrics over time, by name; with `each_replica` by name and index of the replica."""

    agg: str
    resolution_s: int
    items: list[dict[str, Any]]


def over_time(uow: UnitOfWork, job: Job, query: SeriesQuery) -> Table:
    """One value for each step of time and metric. Raises Invalid for more steps than can be shown."""
    start = query.start or job.started_at or job.created_at
    end = query.end or (job.ended_at or uow.clock.now()) + timedelta(seconds=1)
    span_s = (end - start).total_seconds()
    if span_s <= 0:
        raise Invalid(Field("/to", "must be later than from, and than when the job began"))
    names = list(query.names) or _names(uow, job)
    step_s = query.resolution_s or _step(span_s)
    if span_s / step_s * len(names) > MOST_POINTS:
        raise _too_many(f"ask for {math.ceil(span_s * len(names) / MOST_POINTS)} s or more, for ")
    points: dict[tuple[str, int | None], list[dict[str, Any]]] = {(name, None): [] for name in names}
    rows = _buckets(uow, job, query, (start, end, step_s), names).all()
    if len(rows) > MOST_POINTS:
        raise _too_many("ask for a coarser one, for one replica, ")
    for row in rows:
        value = row.value / SCALE if query.agg in _SCALED else row.value
        point = {"at": row.at, "value": _finite(value), "count": int(row.many)}
        points.setdefault((row.name, row.replica), []).append(point)
    return Table(query.agg, step_s, list(_items(points)))


def _items(points: dict[tuple[str, int | None], list[dict[str, Any]]]) -> Iterable[dict[str, Any]]:
    """One item each; what has none of its own but some by replica is left out."""
    split = {name for name, replica in points if replica is not None}
    for (name, replica), each in points.items():
        if replica is not None:
            yield {"name": name, "replica": replica, "points": each}
        elif name not in split:
            yield {"name": name, "points": each}


def _too_many(advice: str) -> Invalid:
    message = f"gives more than {MOST_POINTS} points: {advice}less time or for fewer names"
    return Invalid(Field("/resolution", message))


def _finite(value: float) -> float:
    """A sum that no number can tell is the largest there is: JSON knows no infinity."""
    return max(-sys.float_info.max, min(value, sys.float_info.max))


def _buckets(
    uow: UnitOfWork, job: Job, query: SeriesQuery, window: tuple[datetime, datetime, int], names: list[str]
) -> Result[Any]:
    start, end, step_s = window
    wanted = [MetricSeries.job_id == job.id, MetricSeries.name.in_(names)]
    if query.replica is not None:
        those = select(Replica.id).where(Replica.job_id == job.id, Replica.index == query.replica)
        wanted.append(MetricSeries.replica_id.in_(those))
    index = Replica.index if query.each_replica else null()
    levels = _levels(wanted, start, end, index).subquery("levels")
    # Counted from the epoch, so that the same question asked later gives the same steps.
    at = func.date_bin(timedelta(seconds=step_s), levels.c.at, _EPOCH).label("at")
    value = AGGREGATES[query.agg](levels.c).label("value")
    many = func.sum(levels.c.many).label("many")
    of = (levels.c.name, levels.c.replica)
    statement = select(*of, at, value, many).group_by(*of, at).order_by(*of, at).limit(MOST_POINTS + 1)
    return uow.execute(statement)


def _levels(
    wanted: list[ColumnElement[bool]], start: datetime, end: datetime, index: Any
) -> CompoundSelect[*tuple[Any, ...]]:
    """All that is known of the time, as finely as it is kept: what is in one level is in no other."""
    point, bucket = MetricPoint, MetricBucket
    points: Select[*tuple[Any, ...]] = (
        select(
            MetricSeries.name, point.at.label("at"), literal(1).label("many"), (point.value * SCALE).label("scaled"),
            point.value.label("least"), point.value.label("most"), point.value.label("last"),
            point.at.label("last_at"), point.seq.label("seq"), cast(index, BigInteger).label("replica"),
        )
        .join(point, point.series_id == MetricSeries.id)
        .join(Replica, Replica.id == MetricSeries.replica_id)
        .where(*wanted, point.at >= start, point.at < end)
    )  # fmt: skip
    # One that began before the time belongs to it as well: who asks from 12:00:30 on is given the minute from 12:00 on.
    floors = {width_s: _floor(start, width_s) for width_s in (MINUTE_S, QUARTER_S)}
    begin = case(floors, value=bucket.width_s)
    buckets: Select[*tuple[Any, ...]] = (
        select(
            MetricSeries.name, bucket.at, bucket.many, bucket.scaled, bucket.least, bucket.most, bucket.last,
            bucket.last_at, literal(0), cast(index, BigInteger),
        )
        .join(bucket, bucket.series_id == MetricSeries.id)
        .join(Replica, Replica.id == MetricSeries.replica_id)
        .where(*wanted, bucket.width_s.in_(floors), bucket.at >= begin, bucket.at < end)
    )  # fmt: skip
    return points.union_all(buckets)


def _floor(at: datetime, width_s: int) -> datetime:
    return at - (at - _EPOCH) % timedelta(seconds=width_s)


def _names(uow: UnitOfWork, job: Job) -> list[str]:
    """The first so many by name, each found by a step through the index and not by reading all points."""
    mine, name = MetricSeries.job_id == job.id, MetricSeries.name
    first = select(func.min(name).label("name")).where(mine).cte("names", recursive=True)
    after = select(func.min(name)).where(mine, name > first.c.name).scalar_subquery()
    every = first.union_all(select(after).where(first.c.name.is_not(None)))
    found = select(every.c.name).where(every.c.name.is_not(None)).limit(MOST_SERIES)
    return list(uow.session.execute(found).scalars())


def _step(span_s: float) -> int:
    """The smallest step that gives few enough points to look at."""
    return next((step for step in _STEPS if span_s / step <= _USUAL_POINTS), math.ceil(span_s / _USUAL_POINTS))
