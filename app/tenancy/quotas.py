"""Quotas: how much an organisation, a project, or an actor in a project may have.

Hard limits hold always. On jobs (pending and running together) they refuse a submission; on amounts they keep what is
held at once within bounds: a job that asks for more than that is refused, others wait until there is room. A burst
goes beyond them for a while, and rests before the next. Going over a soft limit is told, and hinders nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import ColumnElement, Select, exists, select

from app.core.access import Permission
from app.core.amounts import NAMES, Amounts, Limits
from app.core.uow import UnitOfWork
from app.tenancy.models import Membership, Organisation, Project, Quota, ServiceAccount
from app.tenancy.usage import Usage, Who, open_jobs_of, usage_by_actor
from trellis.errors import Field, Invalid, NotFound, QuotaExceeded
from trellis.units import format_bytes

WORDS = {"cpu_milli": "cpus", "memory_bytes": "memory", "gpu_milli": "gpus"}


@dataclass(frozen=True, slots=True)
class Subject:
    """Whose quota: an organisation's, a project's, or that of an actor in a project."""

    organisation_id: UUID | None = None
    project_id: UUID | None = None
    actor_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Level:
    """Amounts held at once, and jobs that have not ended; None: no limit."""

    amounts: Limits = field(default_factory=Limits)
    jobs: int | None = None


@dataclass(frozen=True, slots=True)
class Burst:
    """So much more for `for_s` seconds, counted from the moment when it is first needed, once in `every_s`."""

    amounts: Limits = field(default_factory=Limits)
    for_s: int = 0
    every_s: int = 0


@dataclass(frozen=True, slots=True)
class QuotaSpec:
    """A quota as it is set, whole."""

    hard: Level = field(default_factory=Level)
    soft: Level = field(default_factory=Level)
    burst: Burst = field(default_factory=Burst)


@dataclass(frozen=True, slots=True)
class QuotaReport:
    """A quota (an unstored one of version 0 where there is none), what holds of it now, and what is used."""

    quota: Quota
    most: Limits
    usage: Usage
    burst_until: datetime | None


@dataclass(frozen=True, slots=True)
class QuotaInForce:
    """What a subject may hold at once now: what a plan must keep to."""

    subject: Subject
    most: Limits


def get_quota(uow: UnitOfWork, subject: Subject) -> QuotaReport:
    """The subject's quota and how much of it is used. Raises NotFound."""
    _require_subject(uow, subject, write=False)
    quota = uow.session.execute(select(Quota).where(_is(subject))).scalar_one_or_none() or _unlimited(subject)
    return _report(uow, quota)


def set_quota(uow: UnitOfWork, subject: Subject, spec: QuotaSpec, version: int | None) -> QuotaReport:
    """Set the subject's quota, whole. That of a project or an organisation is the platform's to set.

    Raises: Invalid for a soft limit above the hard one or a burst above none, NotFound, StaleVersion.
    """
    _require_subject(uow, subject, write=True)
    _check(spec)
    locked = select(Quota).where(_is(subject)).with_for_update(key_share=True)
    quota = uow.session.execute(locked.execution_options(populate_existing=True)).scalar_one_or_none()
    quota = quota or _unlimited(subject)
    uow.expect_version(quota, version)
    before, after = _told(quota), _columns(spec)
    changed = [name for name in after if after[name] != before[name]]
    if changed:
        for name in changed:
            setattr(quota, name, after[name])
        quota.version += 1
        uow.session.add(quota)
        uow.session.flush()
        told = {"before": {n: before[n] for n in changed}, "after": {n: after[n] for n in changed}}
        uow.emit("quota.changed", quota, **told, **_whose(quota))
    return _report(uow, quota)


def hold(uow: UnitOfWork, project_id: UUID, jobs: int, largest: Amounts) -> None:
    """Let `jobs` more be submitted to a project, of which none holds more than `largest` at once.

    Whoever submits there at the same moment waits for our commit, so that no two pass where one may.
    Raises: QuotaExceeded that says whose quota it is, and what of it.
    """
    _require_submission(uow, _lock(uow, project_id), jobs, largest)


def require_submission(uow: UnitOfWork, project_id: UUID, jobs: int, largest: Amounts) -> None:
    """Judge as `hold` does what nobody is about to submit: nothing is locked. Raises QuotaExceeded."""
    _require_submission(uow, uow.session.execute(_concerning(uow, project_id)).scalars().all(), jobs, largest)


def _require_submission(uow: UnitOfWork, quotas: Sequence[Quota], jobs: int, largest: Amounts) -> None:
    for quota in quotas:
        _require_it_can_ever_start(quota, largest)
        if quota.hard_jobs is not None:
            there = open_jobs_of(uow, _projects_of(quota), quota.actor_id)
            if there + jobs > quota.hard_jobs:
                may = f"{_who(quota)} may have {quota.hard_jobs} jobs that have not ended"
                raise QuotaExceeded(f"{may}; there are {there}, and {jobs} would come")


def require_room(uow: UnitOfWork, project_id: UUID, more: Amounts) -> None:
    """Let so much more be held at once, without a job. Raises QuotaExceeded."""
    quotas = _lock(uow, project_id)
    usage = usage_of(uow, quotas) if quotas else {}
    for quota in quotas:
        most = in_force(quota, uow.clock.now())
        if name := most.first_exceeded(usage[quota.id].held + more):
            held = _amount(name, getattr(usage[quota.id].held, name))
            may = f"{_who(quota)} may hold {_amount(name, getattr(most, name))} at once"
            raise QuotaExceeded(f"{may}; it holds {held}", Field(f"/{WORDS[name]}", "is more than the quota leaves"))


def require_within(uow: UnitOfWork, project_id: UUID, claimed: Amounts) -> None:
    """Let so much be claimed for later. Raises QuotaExceeded."""
    for quota in _lock(uow, project_id):
        _require_it_can_ever_start(quota, claimed)


def in_force(quota: Quota, now: datetime) -> Limits:
    """What may be held at once now: with the burst while it lasts, and while it may begin."""
    hard = Limits.read(quota.hard)
    return hard if _is_spent(quota, now) else hard.plus(Limits.read(quota.burst))


def list_quotas(uow: UnitOfWork) -> list[QuotaInForce]:
    """All of them, as they hold now."""
    now = uow.clock.now()
    return [
        QuotaInForce(Subject(quota.organisation_id, quota.project_id, quota.actor_id), in_force(quota, now))
        for quota in uow.session.execute(select(Quota).order_by(Quota.id)).scalars()
    ]


def watch_quotas(uow: UnitOfWork) -> None:
    """Note who went over a soft limit, whose burst began, and whose may begin again."""
    quotas = uow.session.execute(select(Quota).order_by(Quota.id).with_for_update(key_share=True)).scalars().all()
    usage, now = (usage_of(uow, quotas) if quotas else {}), uow.clock.now()
    for quota in quotas:
        _watch_soft(uow, quota, usage[quota.id])
        _watch_burst(uow, quota, usage[quota.id].held, now)


def usage_of(uow: UnitOfWork, quotas: Sequence[Quota]) -> Mapping[UUID, Usage]:
    """What the subject of each has now, by the quota's id."""
    by_actor = usage_by_actor(uow)
    roofs = {row.id: row.organisation_id for row in uow.session.execute(select(Project.id, Project.organisation_id))}
    return {
        quota.id: sum((u for who, u in by_actor.items() if _counts(quota, who, roofs)), start=Usage())
        for quota in quotas
    }


def _counts(quota: Quota, who: Who, roofs: Mapping[UUID, UUID]) -> bool:
    project_id, actor_id = who
    if quota.organisation_id is not None:
        return roofs.get(project_id) == quota.organisation_id
    return quota.project_id == project_id and quota.actor_id in (None, actor_id)


def _watch_soft(uow: UnitOfWork, quota: Quota, usage: Usage) -> None:
    over = Limits.read(quota.soft).first_exceeded(usage.held) is not None
    over = over or (quota.soft_jobs is not None and usage.jobs > quota.soft_jobs)
    if over and quota.soft_exceeded_at is None:
        quota.soft_exceeded_at = uow.clock.now()
        held = {name: getattr(usage.held, name) for name in NAMES}
        uow.emit("quota.soft_exceeded", quota, usage=held | {"jobs": usage.jobs}, **_whose(quota))
    elif not over:
        quota.soft_exceeded_at = None


def _watch_burst(uow: UnitOfWork, quota: Quota, held: Amounts, now: datetime) -> None:
    began = quota.burst_began_at
    if began is not None and now >= began + timedelta(seconds=quota.burst_every_s):
        quota.burst_began_at = None
        uow.emit("quota.burst_rested", quota, **_whose(quota))
    if quota.burst_s and quota.burst_began_at is None and Limits.read(quota.hard).first_exceeded(held):
        quota.burst_began_at = now
        until = now + timedelta(seconds=quota.burst_s)
        uow.emit("quota.burst_began", quota, until=until.isoformat(), **_whose(quota))


def _is_spent(quota: Quota, now: datetime) -> bool:
    began = quota.burst_began_at
    if began is None:
        return False
    return began + timedelta(seconds=quota.burst_s) <= now < began + timedelta(seconds=quota.burst_every_s)


def _require_it_can_ever_start(quota: Quota, amounts: Amounts) -> None:
    most = Limits.read(quota.hard).plus(Limits.read(quota.burst))
    if name := most.first_exceeded(amounts):
        asked, limit = _amount(name, getattr(amounts, name)), _amount(name, getattr(most, name))
        raise QuotaExceeded(f"it asks for {asked} at once, of which {_who(quota)} may never hold more than {limit}")


def are_set_for(project: type[Project]) -> ColumnElement[bool]:
    """Whether any quota concerns the project of a statement that selects it."""
    here = (Quota.project_id == project.id) | (Quota.organisation_id == project.organisation_id)
    return exists().where(here)


def _lock(uow: UnitOfWork, project_id: UUID) -> Sequence[Quota]:
    """Every quota that concerns the actor's work in a project. Sorted by id: all lock them in one order."""
    locked = _concerning(uow, project_id).with_for_update(key_share=True)
    return uow.session.execute(locked.execution_options(populate_existing=True)).scalars().all()


def _concerning(uow: UnitOfWork, project_id: UUID) -> Select[Quota]:
    here = (Quota.project_id == project_id) & (Quota.actor_id.is_(None) | (Quota.actor_id == uow.actor.id))
    above = select(Project.organisation_id).where(Project.id == project_id).scalar_subquery()
    return select(Quota).where(here | (Quota.organisation_id == above)).order_by(Quota.id)


def _projects_of(quota: Quota) -> Select[Any]:
    if quota.organisation_id is None:
        return select(Project.id).where(Project.id == quota.project_id)
    return select(Project.id).where(Project.organisation_id == quota.organisation_id)


def _require_subject(uow: UnitOfWork, subject: Subject, *, write: bool) -> None:
    if subject.organisation_id is not None:
        uow.get(Organisation, subject.organisation_id)
        if write:
            uow.require(Permission.ORGANISATION_WRITE)
        return
    project = uow.get(Project, subject.project_id)  # type: ignore[arg-type]  # it is one of the two
    uow.require(Permission.QUOTA_READ, project.id)
    if write:
        # Who administers a project divides its quota among its people, and does not raise it.
        uow.require(*((Permission.QUOTA_WRITE, project.id) if subject.actor_id else (Permission.ORGANISATION_WRITE,)))
    if subject.actor_id is not None:
        member = select(Membership.id).where(
            Membership.project_id == project.id, Membership.user_id == subject.actor_id
        )
        robot = select(ServiceAccount.id).where(
            ServiceAccount.project_id == project.id, ServiceAccount.id == subject.actor_id
        )
        if uow.session.execute(member.union(robot)).first() is None:
            raise NotFound(f"{subject.actor_id} is no member of this project")


def _check(spec: QuotaSpec) -> None:
    faults = []
    for name, word in WORDS.items():
        hard, soft = getattr(spec.hard.amounts, name), getattr(spec.soft.amounts, name)
        if hard is not None and soft is not None and soft > hard:
            faults.append(Field(f"/soft/{word}", "is above the hard limit"))
        if getattr(spec.burst.amounts, name) and hard is None:
            faults.append(Field(f"/burst/{word}", "goes above a hard limit, and there is none"))
    if spec.hard.jobs is not None and spec.soft.jobs is not None and spec.soft.jobs > spec.hard.jobs:
        faults.append(Field("/soft/jobs", "is above the hard limit"))
    if spec.burst.every_s < spec.burst.for_s:
        faults.append(Field("/burst/every", "must be at least as long as the burst lasts"))
    if spec.burst.amounts != Limits() and not spec.burst.for_s:
        faults.append(Field("/burst/for", "is missing"))
    if faults:
        raise Invalid(*faults)


def _columns(spec: QuotaSpec) -> dict[str, Any]:
    return {
        "hard": spec.hard.amounts.stored(),
        "hard_jobs": spec.hard.jobs,
        "soft": spec.soft.amounts.stored(),
        "soft_jobs": spec.soft.jobs,
        "burst": spec.burst.amounts.stored(),
        "burst_s": spec.burst.for_s,
        "burst_every_s": spec.burst.every_s,
    }


def _told(quota: Quota) -> dict[str, Any]:
    return {name: getattr(quota, name) for name in _columns(QuotaSpec())}


def _whose(quota: Quota) -> dict[str, Any]:
    ids = {"organisation_id": quota.organisation_id, "actor_id": quota.actor_id}
    return {name: str(value) for name, value in ids.items() if value is not None}


def _is(subject: Subject) -> ColumnElement[bool]:
    whose = (getattr(Quota, name).is_not_distinct_from(getattr(subject, name)) for name in Subject.__slots__)
    first, second, third = whose
    found: ColumnElement[bool] = first & second & third
    return found


def _unlimited(subject: Subject) -> Quota:
    ids = {name: getattr(subject, name) for name in Subject.__slots__}
    return Quota(version=0, **ids, **_columns(QuotaSpec()))


def _report(uow: UnitOfWork, quota: Quota) -> QuotaReport:
    now, began = uow.clock.now(), quota.burst_began_at
    until = None if began is None else began + timedelta(seconds=quota.burst_s)
    ending = until if until is not None and until > now else None
    return QuotaReport(quota, in_force(quota, now), usage_of(uow, [quota])[quota.id], ending)


def _who(quota: Quota) -> str:
    if quota.organisation_id is not None:
        return "the organisation"
    return "the project" if quota.actor_id is None else "whoever this is in the project"


def _amount(name: str, amount: int) -> str:
    if name == "memory_bytes":
        return format_bytes(amount)
    noun = "CPU" if name == "cpu_milli" else "GPU"
    return f"{amount / 1000:g} {noun}{'' if amount == 1000 else 's'}"
