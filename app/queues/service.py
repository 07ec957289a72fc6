"""Named queues: of one project, or shared by all."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from sqlalchemy import or_, select

from app.core.access import Permission
from app.core.amounts import Limits
from app.core.paging import Page, PageRequest, page
from app.core.uow import UnitOfWork
from app.queues.models import Queue
from app.resources.pools import find_pool
from scheduler.policies import POLICIES
from trellis.errors import AlreadyExists, Field, Invalid
from trellis.vocabulary import QueueState

DEFAULT_QUEUE = "default"


@dataclass(frozen=True, slots=True)
class QueueSpec:
    """A queue to be made; without a project all share it. `pool` is a name, "" for none; None: no limit."""

    name: str
    project_id: UUID | None = None
    weight: int = 1
    policy: str = ""
    second_policy: str = ""
    pool: str = ""
    most: Limits = field(default_factory=Limits)
    most_running: int | None = None


def create_queue(uow: UnitOfWork, spec: QueueSpec) -> Queue:
    """Make a queue. One that all share takes a platform administrator.

    Raises: AlreadyExists for a name in use, Invalid for an unknown policy or pool.
    """
    uow.require(Permission.QUEUE_WRITE, spec.project_id)
    said = {name: getattr(spec, name) for name in QueueSpec.__slots__ if name not in ("name", "project_id")}
    taken = select(Queue.id).where(Queue.name == spec.name, Queue.project_id.is_not_distinct_from(spec.project_id))
    if uow.session.execute(taken).first():
        raise AlreadyExists(f"there is a queue {spec.name} already")
    if spec.pool:
        uow.require(Permission.POOL_WRITE)
    queue = Queue(name=spec.name, project_id=spec.project_id, state=QueueState.OPEN, **_columns(uow, said))
    uow.session.add(queue)
    uow.session.flush()
    uow.emit("queue.created", queue, name=queue.name, weight=queue.weight, policy=queue.policy)
    return queue


def change_queue(uow: UnitOfWork, queue_id: UUID, changes: Mapping[str, Any], version: int | None) -> Queue:
    """Change fields of `QueueSpec`: weight, policies, limits; the pool takes whoever administers pools.

    Raises: Invalid for an unknown policy or pool, StaleVersion.
    """
    queue = uow.get(Queue, queue_id, lock=True)
    uow.require(Permission.QUEUE_WRITE, queue.project_id)
    uow.expect_version(queue, version)
    columns = _columns(uow, changes)
    before = {name: getattr(queue, name) for name in columns}
    changed = {name: value for name, value in columns.items() if value != before[name]}
    if "pool_id" in changed:
        uow.require(Permission.POOL_WRITE)
    if changed:
        for name, value in changed.items():
            setattr(queue, name, value)
        queue.version += 1
        uow.emit("queue.changed", queue, before=_told(before, changed), after=_told(changed, changed))
    return queue


def _columns(uow: UnitOfWork, said: Mapping[str, Any]) -> dict[str, Any]:
    """The columns for fields of a `QueueSpec`."""
    for name in ("policy", "second_policy"):
        if said.get(name) and said[name] not in POLICIES:
            raise Invalid(Field(f"/{name}", f"is no policy; there are {', '.join(sorted(POLICIES))}"))
    columns = {name: value.stored() if isinstance(value, Limits) else value for name, value in said.items()}
    if "pool" in columns:
        name = str(columns.pop("pool"))
        columns["pool_id"] = find_pool(uow, name).id if name else None
    return columns


def _told(values: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(values[name]) if isinstance(values[name], UUID) else values[name] for name in names}


def find_queue(uow: UnitOfWork, project_id: UUID, name: str) -> Queue:
    """The queue a job of that project means by `name`: the project's own, else the one that all share.

    Raises: Invalid that names the queues there are.
    """
    mine = or_(Queue.project_id == project_id, Queue.project_id.is_(None))
    statement = select(Queue).where(mine, Queue.name == name).order_by(Queue.project_id.is_(None)).limit(1)
    queue = uow.session.execute(statement).scalar_one_or_none()
    if queue is None:
        names = uow.session.execute(select(Queue.name).where(mine).distinct().order_by(Queue.name).limit(10)).scalars()
        raise Invalid(Field("/queue", f"is no queue of this project; there are: {', '.join(names) or 'none'}"))
    return queue


def list_queues(uow: UnitOfWork, request: PageRequest) -> Page[Queue]:
    """The shared ones, and those of the actor's projects."""
    return page(uow, uow.visible(Queue), Queue, request)


def pause_queue(uow: UnitOfWork, queue_id: UUID, reason: str, version: int | None) -> Queue:
    """Start no job of this queue until it is resumed; jobs that run go on. One that is paused stays so."""
    return _set(uow, queue_id, QueueState.PAUSED, reason, version)


def resume_queue(uow: UnitOfWork, queue_id: UUID, reason: str, version: int | None) -> Queue:
    """Start jobs of this queue again. One that is open stays so."""
    return _set(uow, queue_id, QueueState.OPEN, reason, version)


def _set(uow: UnitOfWork, queue_id: UUID, state: QueueState, reason: str, version: int | None) -> Queue:
    queue = uow.get(Queue, queue_id, lock=True)
    uow.require(Permission.QUEUE_WRITE, queue.project_id)
    uow.expect_version(queue, version)
    if queue.state is not state:
        uow.move(queue, state, reason=reason)
    return queue
