"""A job's life as its owner drives it: submit, cancel, retry."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy import exists, select

from app.core.access import Permission
from app.core.amounts import NAMES, Amounts
from app.core.constraints import Constraints
from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.jobs.asks import asks_of, class_key, count
from app.jobs.code import Pins, of_stored, pin
from app.jobs.dependencies import add_dependencies
from app.jobs.models import Dependency, Job, Replica
from app.jobs.spec import CheckpointSpec, JobSpec, Resources, Retries, RoleSpec
from app.jobs.validator import Place, find_place, pools_named, validate_spec
from app.queues.models import Queue
from app.tenancy import quotas
from app.tenancy.features import features_of
from app.tenancy.models import Project
from trellis.errors import Conflict, Field, Invalid
from trellis.features import FEATURES
from trellis.vocabulary import (
    ENDED_JOB_STATES,
    Cause,
    ExecutorKind,
    HangAction,
    JobState,
    NetworkPolicy,
    OnNodeLost,
    OnReplicaFailure,
    OnResize,
    PullPolicy,
    StopReason,
)


class NotEnded(Conflict):
    """Only what has ended can be tried again."""

    code = "not_ended"
    title = "The job has not ended"


def submit_job(uow: UnitOfWork, spec: JobSpec) -> tuple[Job, Place]:
    """Accept one job. With `dry_run` nothing is kept."""
    spec, place = accept(uow, spec)
    job = make_job(uow, spec, place)
    if not spec.dry_run:
        store(uow, [job], _begin(uow, spec, job))
    return job, place


def accept(uow: UnitOfWork, spec: JobSpec) -> tuple[JobSpec, Place]:
    """A submission with its code looked up, and where it goes: its place, its faults and the quotas have been looked at.

    Raises: Invalid, QuotaExceeded.
    """
    place = find_place(uow, spec.project, spec.queue)
    validate_spec(uow, spec, place.project_id)
    if spec.hang_after_s is None and place.hang_after_s is not None:
        spec = replace(spec, hang_after_s=place.hang_after_s)
    spec = pin(uow, spec, place.project_id, lock=not spec.dry_run)
    hold_quotas(uow, [(spec, place)])
    return spec, place


def draft_job(uow: UnitOfWork, spec: JobSpec) -> tuple[Job, Place]:
    """The job that `spec` would become, judged as `submit_job` does but for quotas, and kept nowhere.

    Nothing is written or locked, so a unit that may only read will do. Raises like `submit_job`.
    """
    place = find_place(uow, spec.project, spec.queue)
    validate_spec(uow, spec, place.project_id)
    return make_job(uow, pin(uow, spec, place.project_id, lock=False), place), place


def require_submission(uow: UnitOfWork, spec: JobSpec, place: Place, copies: int) -> None:
    """Raises QuotaExceeded where the quotas on submissions would refuse so many copies; locks nothing."""
    if place.limited:
        quotas.require_submission(uow, place.project_id, copies, spec.least())


@dataclass(frozen=True, slots=True)
class Owner:
    """What jobs run for: it hears of them, and they are shown as one group under its id and name."""

    kind: str
    id: UUID
    name: str


def submit_batch(uow: UnitOfWork, specs: Sequence[JobSpec], owner: Owner | None = None) -> list[Job]:
    """Accept all of `specs` or none; faults are named under `/jobs/<number>`."""
    places: dict[tuple[str, str], Place] = {}
    pins = Pins(uow)
    wanted: list[tuple[JobSpec, Place]] = []
    for number, spec in enumerate(specs):
        try:
            where = (spec.project, spec.queue)
            if where not in places:
                places[where] = find_place(uow, spec.project, spec.queue)
            validate_spec(uow, spec, places[where].project_id)
            if spec.array is not None:
                raise Invalid(Field("/array", "is not for batches: submit it on its own"))
            spec = pins.pin(spec, places[where].project_id)  # noqa: PLW2901  # the same, looked up
        except Invalid as error:
            raise Invalid(*(Field(f"/jobs/{number}{f.pointer}", f.message) for f in error.fields)) from error
        wanted.append((spec, places[where]))
    hold_quotas(uow, wanted)
    jobs: list[Job] = []
    kept: list[Job] = []
    waits: list[Dependency] = []
    pools = pools_named(uow, specs)
    for spec, place in wanted:
        job = make_job(uow, spec, place, pools)
        if owner is not None:
            job.owner_kind, job.owner_id, job.workflow_id, job.workflow = owner.kind, owner.id, owner.id, owner.name
        jobs.append(job)
        if not spec.dry_run:
            kept.append(job)
            waits += _begin(uow, spec, job)
    store(uow, kept, waits)
    return jobs


def cancel_job(uow: UnitOfWork, job_id: UUID, version: int | None, *, reason: str = "", force: bool = False) -> Job:
    """End a job. What waits ends at once; what runs is told to (TERM, after its grace KILL; `force`: KILL).

    Asking again is harmless; a job that has ended by itself raises IllegalTransition.
    """
    job = uow.get(Job, job_id, lock=True)
    uow.require(Permission.JOB_WRITE, job.project_id)
    uow.expect_version(job, version)
    end_job(uow, job, live_replicas(uow, job), reason=reason, force=force)
    return job


def end_job(uow: UnitOfWork, job: Job, live: Sequence[Replica], *, reason: str, force: bool) -> None:
    """The same for a locked job with these live replicas."""
    if not live:
        job.message = reason
        job.cause = Cause.CANCELLED
        uow.move(job, JobState.CANCELLED, reason=reason)
    elif job.cancel_asked_at is None or force:
        job.cancel_asked_at = uow.clock.now()
        job.message = reason
        job.version += 1
        uow.emit("job.cancel_asked", job, reason=reason, force=force)
        grace_s = 0 if force else int(job.spec["grace_s"])
        for replica in live:
            ask_stop(uow, replica, StopReason.CANCELLED, grace_s)


def retry_job(uow: UnitOfWork, job_id: UUID) -> Job:
    """Submit an ended job again as a new one that remembers where it comes from; a deadline that has passed is none."""
    job = uow.get(Job, job_id)
    uow.require(Permission.JOB_WRITE, job.project_id)
    if job.state not in ENDED_JOB_STATES:
        raise NotEnded(f"job {job.id} is {job.state}: cancel it first, or wait")
    (again,) = submit_again(uow, [job])
    return again


def submit_again(
    uow: UnitOfWork, jobs: Sequence[Job], line_up: Callable[[Sequence[Job]], list[Dependency]] | None = None
) -> list[Job]:
    """The same for ended jobs of one project and queue; `line_up` says what the new ones wait for."""
    project, queue = uow.get(Project, jobs[0].project_id), uow.get(Queue, jobs[0].queue_id)
    place = Place(project.id, project.name, queue.id, queue.name)
    wanted, pins = [], Pins(uow)
    for job in jobs:
        ahead = job.deadline_at is not None and job.deadline_at > uow.clock.now()
        spec = replace(spec_of(job), deadline_at=job.deadline_at if ahead else None)
        wanted.append((pins.pin(spec, job.project_id), place))
    hold_quotas(uow, wanted)
    made = []
    pools = pools_named(uow, [spec for spec, _ in wanted])
    for job, (spec, _) in zip(jobs, wanted, strict=True):
        again = make_job(uow, spec, place, pools)
        again.retry_of, again.array_id, again.array_index = job.id, job.array_id, job.array_index
        made.append(again)
    waits = [] if line_up is None else line_up(made)
    queue_all(uow, made)
    store(uow, made, waits)
    return made


def ask_stop(uow: UnitOfWork, replica: Replica, reason: StopReason, grace_s: int) -> None:
    """Wish that a live replica ends; its node obeys at its next heartbeat, which the event hurries."""
    replica.stop_reason = reason
    replica.stop_grace_s = grace_s
    replica.stop_asked_at = uow.clock.now()
    replica.version += 1
    uow.emit("replica.stop_asked", replica, node_id=str(replica.node_id), fence=replica.fence, reason=str(reason))


def end_overdue(uow: UnitOfWork) -> None:
    """End the jobs whose deadline has passed."""
    lives = exists().where(Replica.job_id == Job.id, Replica.ended_at.is_(None))
    past = (Job.deadline_at <= uow.clock.now(), Job.ended_at.is_(None))
    # Who was told already, and takes its time or is out of reach, is not asked after again: others come first.
    untold = ~lives | lives.where(Replica.stop_reason.is_(None))
    overdue = select(Job).where(*past, untold).order_by(Job.id).limit(500)
    for job in uow.session.execute(overdue.with_for_update(key_share=True, skip_locked=True)).scalars():
        live = live_replicas(uow, job)
        for replica in live:
            if replica.stop_reason is None:
                ask_stop(uow, replica, StopReason.TIMED_OUT, int(job.spec["grace_s"]))
        if not live:
            job.message = f"its deadline passed before it could {'start' if job.fence == 0 else 'go on'}"
            uow.move(job, JobState.TIMED_OUT, reason=job.message)


def requeue_due(uow: UnitOfWork) -> None:
    """Queue again the jobs whose pause before the next try is over."""
    due = (
        select(Job)
        .where(Job.state.in_((JobState.RETRYING, JobState.PREEMPTED)), Job.run_after <= uow.clock.now())
        .order_by(Job.id)
        .limit(500)
    )
    for job in uow.session.execute(due.with_for_update(key_share=True, skip_locked=True)).scalars():
        uow.move(job, JobState.QUEUED)


def spec_of(job: Job) -> JobSpec:
    """What was asked for, as it was stored."""
    return read_spec(job.spec, job.labels)


def read_spec(stored: Mapping[str, Any], labels: Mapping[str, str]) -> JobSpec:
    """What `JobSpec.stored` wrote."""
    kept: dict[str, Any] = dict(stored)
    kept["resources"] = _resources(kept["resources"])
    kept["retries"] = Retries.read(kept["retries"])
    kept["on_node_lost"] = OnNodeLost(kept.get("on_node_lost", OnNodeLost.REQUEUE))
    kept["on_replica_failure"] = OnReplicaFailure(kept.get("on_replica_failure", OnReplicaFailure.FAIL))
    kept["on_resize"] = OnResize(kept.get("on_resize", OnResize.JOIN))
    kept["command"] = None if kept["command"] is None else tuple(kept["command"])
    kept["arguments"] = tuple(kept["arguments"])
    kept["hang_action"] = HangAction(kept.get("hang_action", HangAction.WARN))
    kept["network"] = NetworkPolicy(kept["network"])
    kept["executor"] = ExecutorKind(kept["executor"])
    kept["pull"] = PullPolicy(kept.get("pull", PullPolicy.MISSING))
    kept["roles"] = tuple(map(_role, kept.get("roles", ())))
    kept["constraints"] = Constraints.read(kept.get("constraints", {}))
    kept["code"] = of_stored(kept.get("code"))
    if "checkpoint" in kept:
        kept["checkpoint"] = CheckpointSpec.read(kept["checkpoint"])
    if "from_checkpoint" in kept:
        kept["from_checkpoint"] = UUID(kept["from_checkpoint"])
    had = kept.pop("features", ())
    kept["features"] = {name: name in had for name in FEATURES}  # as they were, whatever has been switched since
    return JobSpec(**kept, labels=dict(labels))


def _resources(kept: dict[str, Any]) -> Resources:
    return Resources(**kept | {"gpu_types": tuple(kept.get("gpu_types", ()))})


def _role(kept: dict[str, Any]) -> RoleSpec:
    command = None if kept["command"] is None else tuple(kept["command"])
    return RoleSpec(**kept | {"resources": _resources(kept["resources"]), "command": command})


def hold_quotas(
    uow: UnitOfWork,
    wanted: Sequence[tuple[JobSpec, Place]],
    judge: Callable[[UnitOfWork, UUID, int, Amounts], None] = quotas.hold,
) -> None:
    """Let the quotas of every project that is concerned have their say, once each."""
    for project_id in sorted({place.project_id for _, place in wanted if place.limited}):
        specs = [spec for spec, place in wanted if place.project_id == project_id]
        jobs = sum(len(spec.array.indexes) if spec.array else 1 for spec in specs)
        needs = [spec.least() for spec in specs]
        largest = Amounts(*(max(getattr(each, name) for each in needs) for name in NAMES))
        judge(uow, project_id, jobs, largest)


def _begin(uow: UnitOfWork, spec: JobSpec, job: Job) -> list[Dependency]:
    """Queue a new job, or let it wait for others: what it waits for is still to be stored, as it is."""
    waits = add_dependencies(uow, [job], spec.depends_on) if spec.depends_on else []
    queue_all(uow, [job])
    return waits


def store(uow: UnitOfWork, jobs: Sequence[Job], waits: Sequence[Dependency]) -> None:
    """Store new jobs, and what they wait for."""
    uow.insert(jobs)
    uow.insert(waits)


def queue_all(uow: UnitOfWork, jobs: Sequence[Job]) -> None:
    """Queue new jobs that wait for nothing."""
    for job in jobs:
        uow.emit("job.submitted", job, name=job.name)
        if job.waiting_for == 0 and job.state is JobState.PENDING:
            uow.move(job, JobState.QUEUED)


def make_job(uow: UnitOfWork, spec: JobSpec, place: Place, pools: Mapping[str, UUID] | None = None) -> Job:
    """The job that `spec` becomes there, not stored yet; whoever makes many looks up the `pools` they name before."""
    known = pools_named(uow, [spec]) if pools is None else pools
    asks = asks_of(spec, known.get(spec.constraints.pool)).stored()
    each, features = spec.largest(), features_of(spec.features, place.features)
    return Job(
        id=new_id(),
        created_at=uow.clock.now(),
        version=1,
        project_id=place.project_id,
        queue_id=place.queue_id,
        actor_kind=uow.actor.kind,
        actor_id=uow.actor.id,
        actor_name=uow.actor.name,
        name=spec.name or spec.default_name(),
        state=JobState.PENDING,
        priority=spec.priority,
        spec=spec.stored() | ({"features": features} if features else {}),
        labels=spec.labels,
        class_key=class_key(spec, (place.project_id, place.queue_id, uow.actor.id), asks),
        asks=asks,
        replicas=count(spec),
        cpu_milli=each.cpu_milli,
        memory_bytes=each.memory_bytes,
        gpu_milli=each.gpu_milli,
        gpu_model=each.gpu_type,
        time_limit_s=spec.time_limit_s,
        deadline_at=spec.deadline_at,
        waiting_for=0,
        fence=0,
        attempt=0,
        retries=0,
        preemptions=0,
        message="",
        bundle_id=spec.code and spec.code.id,
    )


def live_replicas(uow: UnitOfWork, job: Job) -> list[Replica]:
    """The replicas of a (locked) job that have not ended, by index."""
    if job.fence == 0:
        return []
    statement = select(Replica).where(Replica.job_id == job.id, Replica.ended_at.is_(None)).order_by(Replica.index)
    return list(uow.session.execute(statement.execution_options(populate_existing=True)).scalars())
