"""Which requests are popular: what free devices ought to be good for."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from sqlalchemy import func, select

from app.core.uow import UnitOfWork
from app.jobs.asks import Asks
from app.jobs.models import Job
from app.scheduling.classes import request_of
from scheduler.snapshot import Request, Shape

LOOKED_BACK_ON = 2000
"""How many of the jobs that were submitted last count."""

COVERED_PERCENT = 95
"""The most popular shapes that make up so much of all are those that count."""

_NEWEST = select(
    Job.cpu_milli, Job.gpu_milli, Job.gpu_model, Job.replicas, Job.asks
).order_by(Job.created_at.desc(), Job.id.desc()).limit(LOOKED_BACK_ON).subquery()  # fmt: skip
_ROLES = _NEWEST.c.asks["roles"]
_COUNTED = select(
    _NEWEST.c.cpu_milli, _NEWEST.c.gpu_milli, _NEWEST.c.gpu_model, _ROLES.label("roles"),
    func.sum(_NEWEST.c.replicas).label("replicas"), func.count().label("jobs"),
).group_by(_NEWEST.c.cpu_milli, _NEWEST.c.gpu_milli, _NEWEST.c.gpu_model, _ROLES)  # fmt: skip


def popular_shapes(uow: UnitOfWork) -> tuple[Shape, ...]:
    """The requests for devices of most replicas that were asked for lately, the most popular first."""
    counts = Counter[Request]()
    for row in uow.execute(_COUNTED):
        for request, replicas in _requests(row):
            if request.gpu_milli or request.mig_profile:
                counts[request] += replicas
    return tuple(_most_of(counts))


def _requests(row: Any) -> Iterator[tuple[Request, int]]:
    """What rows that look alike ask for, and for how many replicas; memory is no part of a shape."""
    if row.roles is None:
        models = (row.gpu_model,) if row.gpu_model else ()
        yield Request(row.cpu_milli, 0, row.gpu_milli, models), int(row.replicas)
    for role in Asks.read({"roles": row.roles or []}).roles:
        yield replace(request_of(role), memory_bytes=0), role.least * row.jobs


def _most_of(counts: Counter[Request]) -> Iterator[Shape]:
    total, covered = counts.total(), 0
    for request, count in sorted(counts.items(), key=lambda item: (-item[1], repr(item[0]))):
        if covered * 100 >= total * COVERED_PERCENT:
            return
        covered += count
        yield Shape(request, float(count))
