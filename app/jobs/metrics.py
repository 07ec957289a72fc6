"""What jobs measure of themselves."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert, select
from sqlalchemy.dialects.postgresql import distinct_on

from app.core.uow import UnitOfWork
from app.jobs.models import Job, Metric, Replica
from trellis import wire


def append_points(uow: UnitOfWork, replicas: Mapping[UUID, Replica], points: Iterable[wire.MetricPoint]) -> None:
    """Add the points that are new for their (locked) replicas."""
    rows: list[dict[str, Any]] = []
    for point in sorted(points, key=lambda p: p.seq):
        replica = replicas.get(UUID(point.replica_id))
        if replica is None or point.seq <= replica.metric_seq:
            continue
        rows.append(
            {
                "replica_id": replica.id,
                "seq": point.seq,
                "job_id": replica.job_id,
                "name": point.name[:200],
                "value": point.value,
                "step": point.step,
                "at": datetime.fromisoformat(point.at),
            }
        )
        replica.metric_seq = point.seq
    if rows:
        uow.session.execute(insert(Metric), rows)


def latest(uow: UnitOfWork, job: Job) -> dict[str, dict[str, Any]]:
    """The newest value of every metric of a job."""
    statement = (
        select(Metric)
        .where(Metric.job_id == job.id)
        .ext(distinct_on(Metric.name))
        .order_by(Metric.name, Metric.at.desc(), Metric.seq.desc())
        .limit(1000)
    )
    return {metric.name: _point(metric) for metric in uow.session.execute(statement).scalars()}


def series(uow: UnitOfWork, job: Job, name: str, limit: int) -> list[dict[str, Any]]:
    """The newest `limit` points of one metric, oldest first."""
    statement = (
        select(Metric)
        .where(Metric.job_id == job.id, Metric.name == name)
        .order_by(Metric.at.desc(), Metric.seq.desc())
        .limit(limit)
    )
    return [_point(metric) for metric in reversed(uow.session.execute(statement).scalars().all())]


def _point(metric: Metric) -> dict[str, Any]:
    return {"value": metric.value, "step": metric.step, "at": metric.at.isoformat()}
