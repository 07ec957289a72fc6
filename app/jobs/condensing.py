"""What grows old grows coarser: points become minutes, minutes quarters of an hour, and those end.

A point is in one place: what is taken from one level is added to the next by the same statement. So a question adds up all levels
and need not know where the borders lie, a crash loses nothing, and a point that comes late is added to what is there.
"""

from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy import TextClause, text

from app.core.uow import UnitOfWork

MINUTE_S, QUARTER_S = 60, 900
# Sums are kept times so much: exact, for it is a power of two, and even 2^64 of the largest numbers add up to a number.
SCALE = 2.0**-64
AT_ONCE = 20_000
_SERIES_AT_ONCE = 500
# A series is looked at once in so long, and not for each of its points that has just grown old enough.
_POINTS_SLACK, _BUCKETS_SLACK = timedelta(hours=1), timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Keeping:
    """For how long points, minutes and quarters of an hour are kept, counted from when they were measured."""

    points: timedelta
    minutes: timedelta
    quarters: timedelta


def condense(uow: UnitOfWork, keeping: Keeping) -> bool:
    """Condense some of what is old enough; whether there may be more. Safe to run twice, and by several at once."""
    now = uow.clock.now()
    levels = (
        (_DUE_POINTS, _CONDENSE_POINTS, now - keeping.points, _POINTS_SLACK),
        (_DUE_MINUTES, _CONDENSE_MINUTES, now - keeping.minutes, _BUCKETS_SLACK),
        (_DUE_QUARTERS, _FORGET_QUARTERS, now - keeping.quarters, _BUCKETS_SLACK),
    )
    more = False
    for due, act, before, slack in levels:
        ids = [row.id for row in uow.execute(due, {"due": before - slack, "most": _SERIES_AT_ONCE})]
        if ids:
            done = uow.execute(act, {"ids": ids, "before": before, "most": AT_ONCE}).scalar_one()
            uow.execute(_LOOK_AGAIN, {"ids": ids, "before": now - keeping.points})
            uow.execute(_FORGET_SERIES, {"ids": ids})
            more = more or done == AT_ONCE or len(ids) == _SERIES_AT_ONCE
    return more


def _due(level: str) -> TextClause:
    return text(
        f"SELECT id FROM metric_series WHERE {level}_from < :due ORDER BY {level}_from LIMIT :most "  # noqa: S608  # a word of ours
        "FOR NO KEY UPDATE SKIP LOCKED"
    )


_DUE_POINTS, _DUE_MINUTES, _DUE_QUARTERS = (_due(level) for level in ("points", "minutes", "quarters"))
_MERGE = """
    ON CONFLICT (series_id, width_s, at) DO UPDATE SET
        many = kept.many + excluded.many,
        scaled = kept.scaled + excluded.scaled,
        least = LEAST(kept.least, excluded.least),
        most = GREATEST(kept.most, excluded.most),
        last = CASE WHEN excluded.last_at >= kept.last_at THEN excluded.last ELSE kept.last END,
        last_step = CASE WHEN excluded.last_at >= kept.last_at THEN excluded.last_step ELSE kept.last_step END,
        last_at = GREATEST(kept.last_at, excluded.last_at)
"""
_CONDENSE_POINTS = text(
    f"""
    WITH old AS MATERIALIZED (
        SELECT point.row FROM unnest(CAST(:ids AS bigint[])) AS due(id) CROSS JOIN LATERAL (
            SELECT ctid AS row FROM metric_points WHERE series_id = due.id AND at < :before ORDER BY at LIMIT :most
        ) AS point LIMIT :most
    ), taken AS (
        DELETE FROM metric_points WHERE ctid = ANY(ARRAY(SELECT row FROM old))
        RETURNING series_id, at, seq, value, step
    ), added AS (
        INSERT INTO metric_buckets AS kept
            (series_id, width_s, at, many, scaled, least, most, last, last_at, last_step)
        SELECT series_id, {MINUTE_S}, date_bin('{MINUTE_S} s', at, '1970-01-01Z'), count(*), sum(value * {SCALE!r}),
            min(value), max(value), (array_agg(value ORDER BY at DESC, seq DESC))[1], max(at),
            (array_agg(step ORDER BY at DESC, seq DESC))[1]
        FROM taken GROUP BY 1, 3 {_MERGE}
    ) SELECT count(*) FROM taken
    """  # noqa: S608  # numbers of ours
)
_CONDENSE_MINUTES = text(
    f"""
    WITH old AS MATERIALIZED (
        SELECT minute.row FROM unnest(CAST(:ids AS bigint[])) AS due(id) CROSS JOIN LATERAL (
            SELECT ctid AS row FROM metric_buckets
            WHERE series_id = due.id AND width_s = {MINUTE_S} AND at < :before ORDER BY at LIMIT :most
        ) AS minute LIMIT :most
    ), taken AS (
        DELETE FROM metric_buckets WHERE ctid = ANY(ARRAY(SELECT row FROM old)) RETURNING *
    ), added AS (
        INSERT INTO metric_buckets AS kept
            (series_id, width_s, at, many, scaled, least, most, last, last_at, last_step)
        SELECT series_id, {QUARTER_S}, date_bin('{QUARTER_S} s', at, '1970-01-01Z'), sum(many), sum(scaled),
            min(least), max(most), (array_agg(last ORDER BY last_at DESC))[1], max(last_at),
            (array_agg(last_step ORDER BY last_at DESC))[1]
        FROM taken GROUP BY 1, 3 {_MERGE}
    ) SELECT count(*) FROM taken
    """  # noqa: S608  # numbers of ours
)
_FORGET_QUARTERS = text(
    f"""
    WITH old AS MATERIALIZED (
        SELECT quarter.row FROM unnest(CAST(:ids AS bigint[])) AS due(id) CROSS JOIN LATERAL (
            SELECT ctid AS row FROM metric_buckets
            WHERE series_id = due.id AND width_s = {QUARTER_S} AND at < :before ORDER BY at LIMIT :most
        ) AS quarter LIMIT :most
    ), taken AS (DELETE FROM metric_buckets WHERE ctid = ANY(ARRAY(SELECT row FROM old)) RETURNING 1)
    SELECT count(*) FROM taken
    """  # noqa: S608  # numbers of ours
)
# A replica that goes on may just now be sent points that nobody sees yet: it is looked at again in any case.
_LOOK_AGAIN = text(
    f"""
    UPDATE metric_series AS series SET
        points_from = COALESCE(
            (SELECT min(at) FROM metric_points WHERE series_id = series.id),
            CASE WHEN replica.ended_at IS NULL THEN CAST(:before AS timestamptz) END
        ),
        minutes_from = (SELECT min(at) FROM metric_buckets WHERE series_id = series.id AND width_s = {MINUTE_S}),
        quarters_from = (SELECT min(at) FROM metric_buckets WHERE series_id = series.id AND width_s = {QUARTER_S})
    FROM replicas AS replica
    WHERE series.id = ANY(CAST(:ids AS bigint[])) AND replica.id = series.replica_id
    """  # noqa: S608  # numbers of ours
)
_FORGET_SERIES = text(
    """
    DELETE FROM metric_series WHERE id = ANY(CAST(:ids AS bigint[]))
        AND points_from IS NULL AND minutes_from IS NULL AND quarters_from IS NULL
    """
)
