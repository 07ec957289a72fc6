"""Who held how much of what, over time: from the allocations themselves, in one statement.

What is held counts from when it is granted to when it is given back, whatever came of it; while a job stands still,
suspended, it holds nothing. Devices that did nothing while they were held are told apart.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, Boolean, DateTime, Interval, Uuid, bindparam, text

from app.core.access import Permission
from app.core.uow import UnitOfWork
from trellis.errors import Field, Invalid

MOST_BUCKETS = 1000
MOST_ROWS = 20_000
LONGEST = timedelta(days=366)
KEYS = ("project", "user", "queue", "gpu_type")
# Of a partitioned device a slice holds memory slots, of which there are eight.
_SLOT_MILLI = 125
# Readings this far apart say nothing of the time between them.
_GAP = timedelta(minutes=3)

_HELD = text(
    """
    WITH span AS (
        SELECT starts, least(starts + :step, :until) AS ends
        FROM generate_series(:since, :until - interval '1 microsecond', :step) AS starts
    ), held AS (
        SELECT a.job_id, a.project_id, a.owner_name, a.cpu_milli, a.memory_bytes, n.gpu_model,
               a.created_at AS began, coalesce(a.released_at, :now) AS ended,
               coalesce(whole.milli, 0) + coalesce(sliced.milli, 0) AS gpu_milli, coalesce(whole.idle, 0) AS idle
        FROM allocations a
        JOIN nodes n ON n.id = a.node_id
        LEFT JOIN LATERAL (
            SELECT sum(g.milli) AS milli, sum(g.milli * g.idle_s) AS idle
            FROM allocation_gpus g WHERE g.allocation_id = a.id
        ) whole ON true
        LEFT JOIN LATERAL (
            SELECT count(*) * :slot_milli AS milli FROM allocation_slots s WHERE s.allocation_id = a.id
        ) sliced ON true
        WHERE a.created_at < :until AND (a.released_at > :since OR a.released_at IS NULL)
          AND (:every OR a.project_id = ANY(:projects))
    ), part AS (
        SELECT span.starts, held.*,
               extract(epoch FROM least(held.ended, span.ends) - greatest(held.began, span.starts)) AS seconds,
               extract(epoch FROM held.ended - held.began) AS lasted
        FROM held JOIN span ON held.began < span.ends AND held.ended > span.starts
    )
    SELECT part.starts AS starts_at,
           CASE WHEN :by_project THEN projects.name END AS project,
           CASE WHEN :by_user THEN coalesce(jobs.actor_name, part.owner_name) END AS user_name,
           CASE WHEN :by_queue THEN coalesce(queues.name, '') END AS queue,
           CASE WHEN :by_gpu_type THEN CASE WHEN part.gpu_milli > 0 THEN part.gpu_model ELSE '' END END AS gpu_type,
           sum(part.seconds * part.cpu_milli) AS cpu, sum(part.seconds * part.gpu_milli) AS gpu,
           sum(part.seconds * part.memory_bytes) AS memory,
           sum(CASE WHEN part.lasted > 0
               THEN least(part.idle * part.seconds / part.lasted, part.gpu_milli * part.seconds) ELSE 0 END) AS idle,
           count(DISTINCT part.job_id) AS jobs
    FROM part
    JOIN projects ON projects.id = part.project_id
    LEFT JOIN jobs ON jobs.id = part.job_id
    LEFT JOIN queues ON queues.id = jobs.queue_id
    GROUP BY 1, 2, 3, 4, 5
    ORDER BY 1, 2, 3, 4, 5
    LIMIT :most
    """
).bindparams(
    bindparam("since", type_=DateTime(timezone=True)), bindparam("until", type_=DateTime(timezone=True)),
    bindparam("now", type_=DateTime(timezone=True)), bindparam("step", type_=Interval),
    bindparam("projects", type_=ARRAY(Uuid)), bindparam("every", type_=Boolean),
    *(bindparam(f"by_{key}", type_=Boolean) for key in KEYS),
)  # fmt: skip
_NOTE_IDLE = text(
    """
    WITH seen AS (
        SELECT held.allocation_id, held.gpu_id, coalesce((reading ->> 'utilisation_percent')::int, 100) < 1
               AND (nodes.profile = '' OR nodes.executors ? 'simulated') AND nodes.last_seen_at > :now - :gap AS idles
        FROM allocation_gpus held
        JOIN gpus ON gpus.id = held.gpu_id
        JOIN nodes ON nodes.id = gpus.node_id
        LEFT JOIN LATERAL (
            SELECT one AS reading FROM jsonb_array_elements(nodes.telemetry -> 'gpus') one
            WHERE (one ->> 'index')::bigint = gpus.index LIMIT 1
        ) told ON true
        WHERE held.live
    )
    UPDATE allocation_gpus SET
        idle_s = idle_s + CASE WHEN seen.idles AND idle_seen_at > :now - :gap
                               THEN greatest(0, extract(epoch FROM :now - idle_seen_at))::bigint ELSE 0 END,
        idle_seen_at = CASE WHEN seen.idles THEN :now END
    FROM seen
    WHERE allocation_gpus.allocation_id = seen.allocation_id AND allocation_gpus.gpu_id = seen.gpu_id
      AND (seen.idles OR allocation_gpus.idle_seen_at IS NOT NULL)
    """
).bindparams(bindparam("now", type_=DateTime(timezone=True)), bindparam("gap", type_=Interval))


@dataclass(frozen=True, slots=True)
class UsageQuery:
    """What is asked: over [since, until), or without `since` over the `last_s` before `until`; in pieces of `bucket_s` (None: as one), apart `by` some of KEYS."""

    since: datetime | None = None
    until: datetime | None = None
    last_s: int = 7 * 86_400
    bucket_s: int | None = None
    by: tuple[str, ...] = ()
    project_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Used:
    """What was held over a piece of time, by whoever the keys name; those that were not asked for are None.

    `idle_gpu_hours` are those of `gpu_hours` in which the device did nothing, as far as its node told.
    """

    starts_at: datetime
    cpu_hours: float
    memory_gib_hours: float
    gpu_hours: float
    idle_gpu_hours: float
    jobs: int
    project: str | None = None
    user: str | None = None
    queue: str | None = None
    gpu_type: str | None = None


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Over which time, and who used what of it."""

    since: datetime
    until: datetime
    items: Sequence[Used]


def report_usage(uow: UnitOfWork, query: UsageQuery) -> UsageReport:
    """What was held in the projects that the actor may see. Raises Invalid for a time that is none, or too much of it."""
    projects = uow.projects_with(Permission.JOB_READ)
    if query.project_id is not None:
        uow.require(Permission.JOB_READ, query.project_id)
        projects = [query.project_id]
    now = uow.clock.now()
    until = min(query.until or now, now)
    since = query.since or _so_long_before(until, query.last_s)
    step = until - since if query.bucket_s is None else timedelta(seconds=query.bucket_s)
    _check(since, until, step)
    values = {
        "since": since, "until": until, "now": now, "step": step, "slot_milli": _SLOT_MILLI, "most": MOST_ROWS + 1,
        "every": projects is None, "projects": projects or [],
    }  # fmt: skip
    rows = uow.execute(_HELD, values | {f"by_{key}": key in query.by for key in KEYS}).all()
    if len(rows) > MOST_ROWS:
        raise Invalid(Field("/bucket", f"makes more than {MOST_ROWS} lines: ask for longer ones, or for less"))
    return UsageReport(since, until, [_used(row) for row in rows])


def note_idle(uow: UnitOfWork) -> None:
    """Add the time since the last look to devices that are held and did nothing at both. Safe to repeat."""
    uow.execute(_NOTE_IDLE, {"now": uow.clock.now(), "gap": _GAP})


def _so_long_before(until: datetime, seconds: int) -> datetime:
    try:
        return until - timedelta(seconds=seconds)
    except OverflowError as error:
        raise Invalid(Field("/to", "lies too long ago")) from error


def _check(since: datetime, until: datetime, step: timedelta) -> None:
    if not since < until <= since + LONGEST:
        raise Invalid(Field("/from", f"must be before `to`, and not in the future, by at most {LONGEST.days} days"))
    if (until - since) / step > MOST_BUCKETS:
        raise Invalid(Field("/bucket", f"makes more than {MOST_BUCKETS} pieces: ask for longer ones"))


def _used(row: Any) -> Used:
    return Used(
        starts_at=row.starts_at,
        cpu_hours=float(row.cpu) / 3_600_000,
        memory_gib_hours=float(row.memory) / 3600 / 2**30,
        gpu_hours=float(row.gpu) / 3_600_000,
        idle_gpu_hours=float(row.idle) / 3_600_000,
        jobs=row.jobs,
        project=row.project,
        user=row.user_name,
        queue=row.queue,
        gpu_type=row.gpu_type,
    )
