"""What jobs measure of themselves: taken in once each, and read as it was reported."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    Text,
    Uuid,
    any_,
    bindparam,
    column,
    func,
    insert,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import distinct_on

from app.core.uow import UnitOfWork
from app.jobs.condensing import MINUTE_S, QUARTER_S, SCALE
from app.jobs.models import Job, MetricBucket, MetricPoint, MetricSeries, Replica
from trellis import wire
from trellis.errors import Field, Invalid
from trellis.units import LARGEST

# More than a node lets a job have (`agent.metering`) together with the platform's own: only a node gone wrong gets here.
MOST_NAMES = 400
NAME_LENGTH = 200
# A node's clock may be wrong, but not so far that its points lie where nobody looks, or stay for ever.
EARLY, LATE = timedelta(days=1), timedelta(hours=1)
_SHOWN = 1000
Key = tuple[UUID, str]

# Of 1000 points at a time this takes 6 us each and INSERT 12 to 18; of 30, 13 and 27.
_COPY = "COPY metric_points (series_id, at, seq, value, step) FROM STDIN (FORMAT BINARY)"
_TYPES = ("int8", "timestamptz", "int8", "float8", "int8")
_WANTED = (
    func.unnest(bindparam("replica_ids", type_=ARRAY(Uuid)), bindparam("names", type_=ARRAY(Text)))
    .table_valued(column("replica_id", Uuid()), column("name", Text()), name="wanted")
    .render_derived()
)
_FIND = select(MetricSeries.id, MetricSeries.replica_id, MetricSeries.name, MetricSeries.points_from).join(
    _WANTED, (MetricSeries.replica_id == _WANTED.c.replica_id) & (MetricSeries.name == _WANTED.c.name)
)
_COUNT = (
    select(MetricSeries.replica_id, func.count())
    .where(MetricSeries.replica_id == any_(bindparam("replica_ids", type_=ARRAY(Uuid))))
    .group_by(MetricSeries.replica_id)
)
_RETURN = (
    update(MetricSeries)
    .where(MetricSeries.id == bindparam("series_id"))
    .values(points_from=func.least(MetricSeries.points_from, bindparam("begin")))
)


@dataclass(slots=True)
class _Known:
    """A series, and from when it has points."""

    id: int
    points_from: datetime | None


@dataclass(frozen=True, slots=True)
class _Fresh:
    """A point that is new."""

    key: Key
    at: datetime
    point: wire.MetricPoint


def append_points(uow: UnitOfWork, replicas: Mapping[UUID, Replica], points: Iterable[wire.MetricPoint]) -> None:
    """Add the points that are new for their (locked) replicas. A name beyond MOST_NAMES of one replica is left out.

    Raises Invalid for a time, a value or a step that is none.
    """
    fresh: list[_Fresh] = []
    for point in sorted(points, key=lambda p: p.seq):
        replica = replicas.get(UUID(point.replica_id))
        if replica is not None and point.seq > replica.metric_seq:
            _check(point)
            fresh.append(_Fresh((replica.id, point.name[:NAME_LENGTH]), _time_of(uow, replica, point), point))
            replica.metric_seq = point.seq
    if not fresh:
        return
    series = _series_of(uow, replicas, fresh)
    kept = ((series[one.key].id, one.at, one.point) for one in fresh if one.key in series)
    uow.copy(_COPY, _TYPES, ((number, at, point.seq, point.value, point.step) for number, at, point in kept))


def _check(point: wire.MetricPoint) -> None:
    if not math.isfinite(point.value):
        raise Invalid(Field("/metrics", f"hold the value {point.value}: values are finite numbers"))
    if point.seq > LARGEST or (point.step is not None and abs(point.step) > LARGEST):
        raise Invalid(Field("/metrics", f"hold a step or a number beyond {LARGEST}"))


def _time_of(uow: UnitOfWork, replica: Replica, point: wire.MetricPoint) -> datetime:
    try:
        at = datetime.fromisoformat(point.at)
    except ValueError as error:
        raise Invalid(Field("/metrics", f"hold the time {point.at[:40]!r}: times are ISO 8601")) from error
    at = at if at.tzinfo else at.replace(tzinfo=UTC)
    return min(max(at, replica.created_at - EARLY), uow.clock.now() + LATE)


def _series_of(uow: UnitOfWork, replicas: Mapping[UUID, Replica], fresh: Sequence[_Fresh]) -> dict[Key, _Known]:
    """The series of these points, made where they are new; nobody else makes any of these replicas, which are locked."""
    begins: dict[Key, datetime] = {}
    for one in fresh:
        begins[one.key] = min(one.at, begins.get(one.key, one.at))
    named = {"replica_ids": [key[0] for key in begins], "names": [key[1] for key in begins]}
    known = {(row.replica_id, row.name): _Known(row.id, row.points_from) for row in uow.execute(_FIND, named)}
    if missing := [key for key in begins if key not in known]:
        known |= _new_series(uow, replicas, _bounded(uow, missing), begins)
    # Seldom: points come in order, but for a clock that was set back, and for a series that had grown empty.
    earlier = [
        {"series_id": one.id, "begin": begins[key]}
        for key, one in known.items()
        if one.points_from is None or begins[key] < one.points_from
    ]
    if earlier:
        uow.execute(_RETURN, earlier)
    return known


def _bounded(uow: UnitOfWork, missing: Sequence[Key]) -> list[Key]:
    """As many of the new series as their replicas may still have."""
    asked = uow.execute(_COUNT, {"replica_ids": [key[0] for key in missing]})
    have: dict[UUID, int] = {row[0]: row[1] for row in asked}
    allowed = []
    for key in missing:
        have[key[0]] = have.get(key[0], 0) + 1
        if have[key[0]] <= MOST_NAMES:
            allowed.append(key)
    return allowed


def _new_series(
    uow: UnitOfWork, replicas: Mapping[UUID, Replica], keys: Sequence[Key], begins: Mapping[Key, datetime]
) -> dict[Key, _Known]:
    if not keys:
        return {}
    rows = [
        {"job_id": replicas[key[0]].job_id, "replica_id": key[0], "name": key[1], "points_from": begins[key]}
        for key in keys
    ]
    made = insert(MetricSeries).returning(MetricSeries.id, MetricSeries.replica_id, MetricSeries.name)
    return {
        (row.replica_id, row.name): _Known(row.id, begins[row.replica_id, row.name])
        for row in uow.session.execute(made, rows)
    }


_POINTS = select(MetricPoint.at, MetricPoint.value, MetricPoint.step, MetricPoint.seq).where(
    MetricPoint.series_id == MetricSeries.id
)
_NEWEST_POINT = _POINTS.order_by(MetricPoint.at.desc(), MetricPoint.seq.desc())


def _newest_bucket(width_s: int) -> Any:
    return (
        select(MetricBucket.last_at, MetricBucket.last, MetricBucket.last_step, literal(0))
        .where(MetricBucket.series_id == MetricSeries.id, MetricBucket.width_s == width_s)
        .order_by(MetricBucket.at.desc())
        .limit(1)
    )


def latest(uow: UnitOfWork, job: Job) -> dict[str, dict[str, Any]]:
    """The newest value of every metric of a job, of the first 1000 by name."""
    newest = _NEWEST_POINT.limit(1).union_all(_newest_bucket(MINUTE_S), _newest_bucket(QUARTER_S)).lateral("newest")
    statement = (
        select(MetricSeries.name, newest.c.at, newest.c.value, newest.c.step)
        .join(newest, literal(True))
        .where(MetricSeries.job_id == job.id)
        .ext(distinct_on(MetricSeries.name))
        .order_by(MetricSeries.name, newest.c.at.desc(), newest.c.seq.desc())
        .limit(_SHOWN)
    )
    return {row.name: _point(row) for row in uow.session.execute(statement)}


def series(uow: UnitOfWork, job: Job, name: str, limit: int) -> list[dict[str, Any]]:
    """The newest `limit` points of one metric, oldest first; of what is condensed, the means."""
    mean = (MetricBucket.scaled / MetricBucket.many / SCALE).label("value")
    condensed = (
        select(MetricBucket.at, mean, MetricBucket.last_step, literal(0))
        .where(MetricBucket.series_id == MetricSeries.id)
        .order_by(MetricBucket.at.desc())
    )
    newest = _NEWEST_POINT.limit(limit).union_all(condensed.limit(limit)).lateral("newest")
    statement = (
        select(newest.c.at, newest.c.value, newest.c.step)
        .select_from(MetricSeries)
        .join(newest, literal(True))
        .where(MetricSeries.job_id == job.id, MetricSeries.name == name)
        .order_by(newest.c.at.desc(), newest.c.seq.desc())
        .limit(limit)
    )
    return [_point(row) for row in reversed(uow.session.execute(statement).all())]


def _point(row: Any) -> dict[str, Any]:
    return {"value": row.value, "step": row.step, "at": row.at.isoformat()}
