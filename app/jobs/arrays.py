"""Arrays: one submission, many jobs that differ in their index alone.

The database makes the elements out of one or two of them, or ten thousand would cost as many objects and statements.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Uuid, bindparam, column, exists, func, insert, literal, select
from sqlalchemy.orm import aliased

from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.jobs.dependencies import add_dependencies, wait_for
from app.jobs.models import Dependency, Job
from app.jobs.service import accept, make_job, queue_all
from app.jobs.spec import ArraySpec, JobSpec
from app.jobs.validator import Place
from trellis.vocabulary import DependencyKind

SHOWN = 50


@dataclass(frozen=True, slots=True)
class Array:
    """Elements that were made: how many, and the SHOWN first of them."""

    id: UUID
    jobs: Sequence[Job]
    count: int


def submit_array(uow: UnitOfWork, spec: JobSpec, array: ArraySpec) -> tuple[Array, Place]:
    """Accept an array: a job an index. With `dry_run` nothing is kept. Raises like `submit_job`."""
    spec, place = accept(uow, spec)
    return _submit_elements(uow, spec, array, place), place


def _submit_elements(uow: UnitOfWork, spec: JobSpec, array: ArraySpec, place: Place) -> Array:
    array_id, ids = new_id(), [new_id() for _ in array.indexes]
    free = array.max_parallel or len(ids)
    parts = [(ids[:free], array.indexes[:free]), (ids[free:], array.indexes[free:])]
    shown: list[Job] = []
    for number, (part, indexes) in enumerate(parts):
        if not part:
            continue
        job = make_job(uow, spec, place)
        job.id, job.array_id, job.array_index = part[0], array_id, indexes[0]
        shown += [_like(job, element, index) for element, index in zip(part[:SHOWN], indexes, strict=False)]
        if spec.dry_run:
            continue
        job.waiting_for += number  # those after the first `max_parallel` wait for one of the array each
        waits = add_dependencies(uow, [job], spec.depends_on) if spec.depends_on else []
        queue_all(uow, [job])
        _store(uow, job, part, indexes)
        uow.echo(job, part[1:])
        for wait in waits:
            _wait(uow, part, [wait.on_job_id] * len(part), wait)
        for one in shown[-len(part[:SHOWN]) :]:
            one.state, one.queued_at, one.waiting_for = job.state, job.queued_at, job.waiting_for
            one.version, one.message = job.version, job.message
    if not spec.dry_run and len(ids) > free:
        # Each waits for the end of the one `max_parallel` before it.
        chained = Dependency(kind=DependencyKind.AFTER_ANY, met=False)
        _wait(uow, ids[free:], ids[: len(ids) - free], chained)
    return Array(array_id, shown[:SHOWN], len(ids))


def join_lines(uow: UnitOfWork, array_id: UUID, made: Sequence[Job]) -> list[Dependency]:
    """Have new elements of a (locked) array wait, so that as many run at once as it was submitted for.

    Each waits behind the last of a line; there are as many lines as elements that waited for none at the beginning.
    """
    ahead = aliased(Job)
    in_line = exists().where(
        Dependency.job_id == Job.id, ahead.id == Dependency.on_job_id, ahead.array_id == Job.array_id
    )
    first = (Job.array_id == array_id, Job.retry_of.is_(None))
    lines, count = uow.execute(select(func.count().filter(~in_line), func.count()).where(*first)).one()
    if lines == count:  # there was no bound
        return []
    behind = aliased(Job)
    followed = exists().where(
        Dependency.on_job_id == Job.id, behind.id == Dependency.job_id, behind.array_id == Job.array_id,
        behind.ended_at.is_(None),
    )  # fmt: skip
    last = select(Job).where(Job.array_id == array_id, Job.ended_at.is_(None), ~followed).order_by(Job.id)
    tails = uow.session.execute(last).scalars().all()
    queue: list[Job | None] = [*([None] * (lines - len(tails))), *tails, *made]
    pairs = zip(made, queue, strict=False)
    return [wait_for(job, other, DependencyKind.AFTER_ANY) for job, other in pairs if other is not None]


def _like(job: Job, job_id: UUID, index: int) -> Job:
    values = {name: value for name, value in job.__dict__.items() if not name.startswith("_")}
    return Job(**values | {"id": job_id, "array_index": index})


def _store(uow: UnitOfWork, job: Job, ids: Sequence[UUID], indexes: Sequence[int]) -> None:
    """Store one job an id, each like `job`."""
    columns = Job.__table__.c
    values = {name: value for name, value in job.__dict__.items() if not name.startswith("_")}
    for name, default in _DEFAULTS.items():
        values.setdefault(name, default)
    same = {
        name: literal(value, columns[name].type) for name, value in values.items() if name not in ("id", "array_index")
    }
    each = select(*same.values(), _ELEMENTS.c.id, _ELEMENTS.c.number)
    uow.execute(
        insert(Job).from_select([*same, "id", "array_index"], each), {"ids": list(ids), "numbers": list(indexes)}
    )


def _wait(uow: UnitOfWork, ids: Sequence[UUID], others: Sequence[UUID], wait: Dependency) -> None:
    """Have each of `ids` wait for the one of `others` at its place, as `wait` says."""
    columns = Dependency.__table__.c
    how = (literal(wait.kind, columns.kind.type), literal(wait.met, columns.met.type))
    each = select(_PAIRS.c.id, _PAIRS.c.other, *how)
    statement = insert(Dependency).from_select(["job_id", "on_job_id", "kind", "met"], each)
    uow.execute(statement, {"ids": list(ids), "others": list(others)})


_DEFAULTS = {one.name: one.default.arg for one in Job.__table__.c if one.default is not None and one.default.is_scalar}
_IDS = bindparam("ids", type_=ARRAY(Uuid))
_ELEMENTS = (
    func.unnest(_IDS, bindparam("numbers", type_=ARRAY(BigInteger)))
    .table_valued(column("id", Uuid()), column("number", BigInteger()), name="element")
    .render_derived()
)
_PAIRS = (
    func.unnest(_IDS, bindparam("others", type_=ARRAY(Uuid)))
    .table_valued(column("id", Uuid()), column("other", Uuid()), name="pair")
    .render_derived()
)
