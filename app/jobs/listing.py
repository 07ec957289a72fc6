"""Jobs as they are shown: filtered, sorted, paged, and with the words on why one waits."""

import operator
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, select

from app.core.events import Event
from app.core.paging import Page, PageRequest, Sort, page
from app.core.uow import UnitOfWork
from app.jobs.asks import Asks, RoleAsks, roles_in
from app.jobs.groups import Summary, is_first
from app.jobs.models import Attempt, ClassVerdict, Dependency, Job, Replica
from app.jobs.validator import Place
from app.queues.models import Queue
from app.resources.models import Node
from app.tenancy.models import Project
from trellis.errors import Field, Invalid
from trellis.vocabulary import ENDED_JOB_STATES, LIVING_NODE_STATES, JobState, OnNodeLost

SORTS = {
    "submitted_at": Sort(Job.created_at, descending=False),
    "-submitted_at": Sort(Job.created_at, descending=True),
    "priority": Sort(Job.priority, descending=False),
    "-priority": Sort(Job.priority, descending=True),
    "name": Sort(Job.name, descending=False),
    "-name": Sort(Job.name, descending=True),
}
LIVE = frozenset(JobState) - ENDED_JOB_STATES
_TIMES = {
    "submitted_after": ("created_at", operator.ge),
    "submitted_before": ("created_at", operator.lt),
    "started_after": ("started_at", operator.ge),
    "started_before": ("started_at", operator.lt),
    "ended_after": ("ended_at", operator.ge),
    "ended_before": ("ended_at", operator.lt),
}


@dataclass(frozen=True, slots=True)
class Names:
    """What ids of other domains are called."""

    projects: dict[UUID, str]
    queues: dict[UUID, str]
    verdicts: dict[str, ClassVerdict]
    silent: dict[UUID, str] = field(default_factory=dict)


def list_jobs(uow: UnitOfWork, filters: dict[str, Any], request: PageRequest) -> Page[Job]:
    """One page of the jobs that pass every filter. Raises Invalid for a filter that can't be understood."""
    conditions = partial(_conditions, uow, filters)
    statement = uow.visible(Job).where(*conditions(Job))
    return page(uow, statement.where(is_first(conditions)) if filters.get("grouped") else statement, Job, request)


def _conditions(uow: UnitOfWork, filters: dict[str, Any], jobs: Any) -> list[ColumnElement[bool]]:
    """What the filters ask of a row of `jobs`, be it by that name or by another."""
    conditions: list[ColumnElement[bool]] = [
        compare(getattr(jobs, column), filters[name])
        for name, (column, compare) in _TIMES.items()
        if filters.get(name) is not None
    ]
    if filters.get("state"):
        conditions.append(jobs.state.in_(filters["state"]))
    if filters.get("project"):
        conditions.append(jobs.project_id.in_(_ids(uow.visible(Project), Project, filters["project"])))
    if filters.get("queue"):
        conditions.append(jobs.queue_id.in_(_ids(uow.visible(Queue), Queue, filters["queue"])))
    if filters.get("user"):
        conditions.append(jobs.actor_name == filters["user"])
    equal = ("name", "array_id", "workflow_id")
    conditions += [getattr(jobs, name) == filters[name] for name in equal if filters.get(name)]
    conditions += [jobs.labels.contains(_label(i, text)) for i, text in enumerate(filters.get("label") or ())]
    return conditions


def _ids(visible: Select[Any], model: Any, given: str) -> Select[tuple[UUID]]:
    try:
        condition = model.id == UUID(given)
    except ValueError:
        condition = model.name == given
    return visible.with_only_columns(model.id).where(condition)


def _label(number: int, text: str) -> dict[str, str]:
    name, colon, value = text.partition(":")
    if not (colon and name):
        raise Invalid(Field(f"/label/{number}", "must be name:value"))
    return {name: value}


def names_for(uow: UnitOfWork, jobs: Collection[Job]) -> Names:
    """The names that a page of jobs needs, in three statements whatever its length."""
    projects = select(Project.id, Project.name).where(Project.id.in_({job.project_id for job in jobs}))
    queues = select(Queue.id, Queue.name).where(Queue.id.in_({job.queue_id for job in jobs}))
    waiting = {job.class_key for job in jobs if job.state is JobState.QUEUED}
    verdicts = {}
    if waiting:
        statement = select(ClassVerdict).where(ClassVerdict.class_key.in_(waiting))
        verdicts = {verdict.class_key: verdict for verdict in uow.session.execute(statement).scalars()}
    return Names(
        {row.id: row.name for row in uow.session.execute(projects)},
        {row.id: row.name for row in uow.session.execute(queues)},
        verdicts,
        _silent(uow, [job.id for job in jobs if job.state in LIVE and job.spec.get("on_node_lost") == OnNodeLost.WAIT]),
    )


def _silent(uow: UnitOfWork, job_ids: Collection[UUID]) -> dict[UUID, str]:
    """The names of the silent nodes that these jobs wait for."""
    if not job_ids:
        return {}
    held = (
        select(Replica.job_id, Node.name)
        .join(Node, Node.id == Replica.node_id)
        .where(Replica.job_id.in_(job_ids), Replica.ended_at.is_(None), Node.state.not_in(LIVING_NODE_STATES))
    )
    return {row.job_id: row.name for row in uow.session.execute(held)}


def names_at(place: Place) -> Names:
    """The same for jobs that were just submitted: nothing has been decided of them."""
    return Names({place.project_id: place.project}, {place.queue_id: place.queue}, {})


def present(job: Job, names: Names, now: datetime) -> dict[str, Any]:
    """A job as it is answered."""
    verdict = names.verdicts.get(job.class_key) if job.state is JobState.QUEUED else None
    asks, roles = Asks.read(job.asks), roles_in(job)
    began = job.started_at
    return {
        "id": job.id,
        "name": job.name,
        "project_id": job.project_id,
        "project": names.projects.get(job.project_id, ""),
        "queue": names.queues.get(job.queue_id, ""),
        "user": job.actor_name,
        "state": job.state,
        "priority": job.priority,
        "submitted_at": job.created_at,
        "started_at": began,
        "ended_at": job.ended_at,
        "wait_s": round(((began or job.ended_at or now) - job.created_at).total_seconds(), 3),
        "run_s": _run_s(job, began, now) if began else None,
        "attempt": job.attempt,
        "exit_code": job.exit_code,
        "cause": job.cause,
        "message": job.message,
        "why": _waits_for(job, names.silent[job.id]) if job.id in names.silent else why(job, verdict),
        "expected_start_at": verdict.starts_at if verdict and verdict.head_job_id == job.id else None,
        "resources": _resources(roles[0]) if len(roles) == 1 else _most_of(job),
        "replicas": job.replicas,
        "max_replicas": sum(role.most for role in roles),
        "roles": _roles(job.spec, roles),
        "constraints": job.spec.get("constraints", {}),
        "preemptible": asks.preemptible,
        "checkpointable": asks.checkpointable,
        "deadline": job.deadline_at,
        "bundle": job.spec.get("code"),
        "features": job.spec.get("features", []),
        "labels": job.labels,
        "retry_of": job.retry_of,
        "array_id": job.array_id,
        "array_index": job.array_index,
        "workflow_id": job.workflow_id,
        "workflow": job.workflow,
        "version": job.version,
    }


def _run_s(job: Job, began: datetime, now: datetime) -> float:
    """How long it has run, without the time that it stood still."""
    elapsed_s = ((job.ended_at or job.parked_at or now) - began).total_seconds()
    return round(max(0.0, elapsed_s - job.paused_ms / 1000), 3)


def _resources(role: RoleAsks) -> dict[str, Any]:
    models = list(role.gpu_types)
    said = {
        "cpu_milli": role.cpu_milli, "memory_bytes": role.memory_bytes, "gpu_milli": role.gpu_milli,
        "gpu_type": models[0] if len(models) == 1 else "",
    }  # fmt: skip
    if len(models) > 1:
        said["gpu_types"] = models
    return said | ({"mig_profile": role.mig_profile} if role.mig_profile else {})


def _most_of(job: Job) -> dict[str, Any]:
    return _resources(
        RoleAsks(1, 1, job.cpu_milli, job.memory_bytes, job.gpu_milli, tuple(filter(None, [job.gpu_model])))
    )


def _roles(spec: Mapping[str, Any], roles: Sequence[RoleAsks]) -> list[dict[str, Any]]:
    """Roles under the names they were given; none where the job has none."""
    return [
        {"name": said["name"], "min_replicas": role.least, "max_replicas": role.most, "resources": _resources(role)}
        for said, role in zip(spec.get("roles", ()), roles, strict=False)
    ]


def present_group(summary: Summary) -> dict[str, Any]:
    """A group as it is answered."""
    first = summary.first
    return {
        "id": summary.group.id,
        "kind": summary.group.kind,
        "name": first.workflow or first.name,
        "project_id": first.project_id,
        "user": first.actor_name,
        "submitted_at": first.created_at,
        "count": summary.count,
        "states": {str(state): count for state, count in sorted(summary.states.items())},
    }


def _waits_for(job: Job, node: str) -> str:
    return f"its node {node} is silent, and it waits for that: `trellis give-up {job.id}` has it run elsewhere"


def why(job: Job, verdict: ClassVerdict | None) -> str:
    """In words: why a job is not running yet; empty where it runs or has ended."""
    if job.state is JobState.PENDING:
        return f"waits for {job.waiting_for} other {'job' if job.waiting_for == 1 else 'jobs'} to end"
    if job.state is JobState.SUSPENDED and job.suspend_asked_at is None:
        return "is to go on: it waits for its processes to be gone from where they stood still"
    if job.state is JobState.SUSPENDED:
        there = "its processes stand still where they were" if job.parked_at else "it is held back"
        return f"is suspended: {there}; `trellis resume {job.id}` lets it go on"
    if job.state is JobState.RETRYING and job.run_after:
        return f"its last try ended ({job.cause}); the next may begin at {job.run_after:%Y-%m-%d %H:%M:%S} UTC"
    if job.state is JobState.QUEUED:
        return verdict.message if verdict else "is queued: the scheduler has not looked at it yet"
    if job.state in (JobState.SCHEDULED, JobState.STARTING):
        return "its node was told to start it"
    return ""


def history(uow: UnitOfWork, job: Job) -> dict[str, Any]:
    """What `verbose` adds: the spec, what the job waited for, its attempts with their replicas."""
    pairs = (
        select(Attempt, Replica)
        .join(Replica, Replica.attempt_id == Attempt.id)
        .where(Attempt.job_id == job.id)
        .order_by(Attempt.number.desc(), Replica.index)
        .limit(500)
    )
    attempts: dict[UUID, dict[str, Any]] = {}
    for attempt, replica in uow.session.execute(pairs):
        known = attempts.setdefault(attempt.id, _attempt(attempt))
        known["replicas"].append(_replica(replica, job.spec.get("roles", ())))
    waited = select(Dependency).where(Dependency.job_id == job.id).limit(1000)
    return {
        "spec": job.spec,
        "depends_on": [
            {"job": str(d.on_job_id), "kind": str(d.kind), "met": d.met} for d in uow.session.execute(waited).scalars()
        ],
        "attempts": list(attempts.values()),
    }


def _attempt(attempt: Attempt) -> dict[str, Any]:
    shown = ("number", "fence", "state", "reason", "started_at", "ended_at", "cause", "message")
    return {name: getattr(attempt, name) for name in shown} | {"replicas": []}


def _replica(replica: Replica, roles: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    shown = ("id", "index", "state", "exit_code", "gpus", "started_at", "ended_at", "peak_memory_bytes")
    return {name: getattr(replica, name) for name in shown} | {
        "role": roles[replica.role]["name"] if roles else "",
        "slices": replica.slices or [],
        "node": replica.node_name,
        "address": _address(replica.ready),
        "cpu_s": replica.cpu_ms / 1000,
    }


def _address(ready: Mapping[str, Any] | None) -> str:
    if ready is None:
        return ""
    return f"{ready['address']}:{ready['port']}" if ready["port"] else str(ready["address"])


def list_events(uow: UnitOfWork, job: Job, kind: str | None, after: int, limit: int) -> Sequence[Event]:
    """The events of a job and its attempts and replicas, oldest first, after event `after`."""
    statement = select(Event).where(Event.job_id == job.id, Event.id > after)
    if kind:
        statement = statement.where(Event.kind == kind)
    return uow.session.execute(statement.order_by(Event.id).limit(limit)).scalars().all()


def present_event(event: Event) -> dict[str, Any]:
    """An event as it is answered."""
    return {
        "id": event.id,
        "kind": event.kind,
        "at": event.at,
        "actor": {
            "kind": str(event.actor_kind),
            "id": event.actor_id and str(event.actor_id),
            "name": event.actor_name,
        },
        "subject": {"type": event.subject_type, "id": str(event.subject_id)},
        "before": event.data.get("before"),
        "after": event.data.get("after"),
        "reason": event.data.get("reason"),
        "data": {key: value for key, value in event.data.items() if key not in ("before", "after", "reason")},
    }
