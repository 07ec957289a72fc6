"""Metrics over time: one value for each step of it."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select
from sqlalchemy.dialects.postgresql import aggregate_order_by

from app.core.uow import UnitOfWork
from app.jobs.models import Job, Metric, Replica
from trellis.errors import Field, Invalid

AGGREGATES: dict[str, ColumnElement[Any]] = {
    "mean": func.avg(Metric.value),
    "min": func.min(Metric.value),
    "max": func.max(Metric.value),
    "sum": func.sum(Metric.value),
    "last": func.array_agg(aggregate_order_by(Metric.value, Metric.at.desc(), Metric.seq.desc()))[1],
}
MOST_SERIES = 50
MOST_POINTS = 10_000
_USUAL_POINTS = 200
_STEPS = (1, 5, 10, 30, 60, 300, 600, 1800, 3600, 10_800, 21_600, 86_400)
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


@dataclass(frozen=True, slots=True)
class Table:
    """Metrics over time, by name."""

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
        least = math.ceil(span_s * len(names) / MOST_POINTS)
        message = f"gives more than {MOST_POINTS} points: ask for {least} s or more, for less time or for fewer names"
        raise Invalid(Field("/resolution", message))
    points: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for row in _buckets(uow, job, query, (start, end, step_s), names):
        points[row.name].append({"at": row.at, "value": row.value, "count": row.many})
    return Table(query.agg, step_s, [{"name": name, "points": each} for name, each in points.items()])


def _buckets(
    uow: UnitOfWork, job: Job, query: SeriesQuery, window: tuple[datetime, datetime, int], names: list[str]
) -> Iterable[Any]:
    start, end, step_s = window
    # Counted from the epoch, so that the same question asked later gives the same steps.
    at = func.date_bin(timedelta(seconds=step_s), Metric.at, _EPOCH).label("at")
    statement = (
        select(Metric.name, at, AGGREGATES[query.agg].label("value"), func.count().label("many"))
        .where(Metric.job_id == job.id, Metric.name.in_(names), Metric.at >= start, Metric.at < end)
        .group_by(Metric.name, at)
        .order_by(Metric.name, at)
    )
    if query.replica is not None:
        those = select(Replica.id).where(Replica.job_id == job.id, Replica.index == query.replica)
        statement = statement.where(Metric.replica_id.in_(those))
    return uow.execute(statement)


def _names(uow: UnitOfWork, job: Job) -> list[str]:
    """The first so many by name, each found by a step through the index and not by reading all points."""
    first = select(func.min(Metric.name).label("name")).where(Metric.job_id == job.id).cte("names", recursive=True)
    after = select(func.min(Metric.name)).where(Metric.job_id == job.id, Metric.name > first.c.name).scalar_subquery()
    every = first.union_all(select(after).where(first.c.name.is_not(None)))
    found = select(every.c.name).where(every.c.name.is_not(None)).limit(MOST_SERIES)
    return list(uow.session.execute(found).scalars())


def _step(span_s: float) -> int:
    """The smallest step that gives few enough points to look at."""
    return next((step for step in _STEPS if span_s / step <= _USUAL_POINTS), math.ceil(span_s / _USUAL_POINTS))
