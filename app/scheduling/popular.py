"""Which requests are popular: what free devices ought to be good for."""

from sqlalchemy import func, select

from app.core.uow import UnitOfWork
from app.jobs.models import Job
from scheduler.snapshot import Request, Shape

LOOKED_BACK_ON = 2000
"""How many of the jobs that were submitted last count."""

_NEWEST = (
    select(Job.cpu_milli, Job.gpu_milli, Job.gpu_model, Job.replicas)
    .order_by(Job.created_at.desc(), Job.id.desc()).limit(LOOKED_BACK_ON).subquery()
)  # fmt: skip
_SHAPE = (_NEWEST.c.cpu_milli, _NEWEST.c.gpu_milli, _NEWEST.c.gpu_model)
_COUNTED = select(*_SHAPE, func.sum(_NEWEST.c.replicas)).where(_NEWEST.c.gpu_milli > 0).group_by(*_SHAPE)


def popular_shapes(uow: UnitOfWork) -> tuple[Shape, ...]:
    """The requests for devices of the jobs that came last, weighed by their replicas, the most popular first."""
    found = [
        Shape(Request(cpu_milli, 0, gpu_milli, (model,) if model else ()), float(count))
        for cpu_milli, gpu_milli, model, count in uow.execute(_COUNTED)
    ]
    return tuple(sorted(found, key=lambda shape: (-shape.weight, shape.request.gpu_milli, repr(shape.request))))
