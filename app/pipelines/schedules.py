"""When pipelines run by themselves: one run for each fire time, whatever number of beats look."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice, takewhile
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from app.core.access import Permission
from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.pipelines.definition import ScheduleSpec
from app.pipelines.models import Backfill, Pipeline, PipelineRun, PipelineSchedule, PipelineVersion
from app.pipelines.timetable import Timetable
from trellis.errors import Conflict, Field, Invalid
from trellis.vocabulary import BackfillState, CatchUp, PipelineRunState

AT_ONCE = 100
MOST_FIRES = 10_000
# A fire time that is seen so much later was missed: beats look every two seconds.
MISSED = timedelta(seconds=60)


class NoSchedule(Conflict):
    """A pipeline without a schedule has no fire times."""

    code = "no_schedule"
    title = "The pipeline has no schedule"


def times_of(schedule: PipelineSchedule) -> Timetable:
    """Its fire times."""
    return Timetable(schedule.cron, schedule.zone, schedule.every_s, schedule.starts_at)


def set_schedule(uow: UnitOfWork, pipeline: Pipeline, spec: ScheduleSpec | None) -> None:
    """Let a (locked) pipeline run as `spec` says from now on; None: by itself no more."""
    schedule = schedule_of(uow, pipeline.id)
    if spec is None:
        if schedule is not None:
            uow.session.delete(schedule)
        return
    now, actor = uow.clock.now(), uow.actor
    if schedule is None:
        schedule = PipelineSchedule(id=new_id(), version=0, project_id=pipeline.project_id, pipeline_id=pipeline.id)
        schedule.paused_at = now if spec.paused else None
        uow.session.add(schedule)
    schedule.cron, schedule.zone, schedule.every_s = spec.times.cron, spec.times.zone, spec.times.every_s
    schedule.starts_at = spec.times.starts_at or now
    schedule.catch_up, schedule.parameters, schedule.late_s = spec.catch_up, dict(spec.parameters or {}), spec.late_s
    schedule.actor_kind, schedule.actor_id, schedule.actor_name = actor.kind, actor.id, actor.name
    schedule.fires_at = None if schedule.paused_at else times_of(schedule).next_after(now)
    schedule.version += 1


def schedule_of(uow: UnitOfWork, pipeline_id: UUID, *, lock: bool = False) -> PipelineSchedule | None:
    """The schedule of a pipeline that the actor may see."""
    statement = select(PipelineSchedule).where(PipelineSchedule.pipeline_id == pipeline_id)
    if lock:
        statement = statement.with_for_update().execution_options(populate_existing=True)
    return uow.session.execute(statement).scalar_one_or_none()


def pause_schedule(uow: UnitOfWork, pipeline: Pipeline, *, paused: bool) -> PipelineSchedule:
    """Hold a schedule back, or let it go on from now: what it missed while it was held is not caught up.

    Raises: NoSchedule.
    """
    uow.require(Permission.PIPELINE_WRITE, pipeline.project_id)
    schedule = schedule_of(uow, pipeline.id, lock=True)
    if schedule is None:
        raise NoSchedule(f"pipeline {pipeline.name} has no schedule: apply a definition that has one")
    if paused != (schedule.paused_at is not None):
        schedule.paused_at = uow.clock.now() if paused else None
        schedule.fires_at = None if paused else times_of(schedule).next_after(uow.clock.now())
        schedule.version += 1
        uow.emit("pipeline_schedule.changed", schedule, before={"paused": not paused}, after={"paused": paused})
    return schedule


def fire_due(uow: UnitOfWork) -> bool:
    """Make the runs whose time has come; True while there may be more.

    Each schedule is locked while its next time is set forward in the same transaction, and a run's fire time is unique:
    however many look at once, there is one run.
    """
    now = uow.clock.now()
    due = (
        select(PipelineSchedule, Pipeline.name, PipelineVersion.id, PipelineVersion.number)
        .join(Pipeline, Pipeline.id == PipelineSchedule.pipeline_id)
        .join(
            PipelineVersion,
            (PipelineVersion.pipeline_id == Pipeline.id) & (PipelineVersion.number == Pipeline.number),
        )
        .where(PipelineSchedule.fires_at <= now)
        .order_by(PipelineSchedule.fires_at)
        .limit(AT_ONCE)
        .with_for_update(of=PipelineSchedule, skip_locked=True)
    )
    rows = uow.session.execute(due).all()
    wanted: list[Wanted] = []
    for schedule, name, version_id, number in rows:
        times, schedule.fires_at = fires(schedule, now)
        late = None if schedule.late_s is None else timedelta(seconds=schedule.late_s)
        wanted += [
            Wanted(
                schedule, name, version_id, number, at, schedule.parameters, late_at=None if late is None else at + late
            )
            for at in times
        ]
    make_runs(uow, wanted)
    return len(rows) == AT_ONCE


def fires(schedule: PipelineSchedule, now: datetime) -> tuple[list[datetime], datetime | None]:
    """The times to fire for now, and the next to come, of a schedule that is due."""
    if schedule.fires_at is None:
        return [], None
    times = times_of(schedule)
    if schedule.catch_up is CatchUp.ALL:
        # What is more comes with the next look.
        due = [schedule.fires_at, *takewhile(lambda at: at <= now, islice(times.after(schedule.fires_at), AT_ONCE))]
        return due[:AT_ONCE], times.next_after(due[:AT_ONCE][-1])
    last = max(schedule.fires_at, times.last_until(now) or schedule.fires_at)
    missed = schedule.catch_up is CatchUp.SKIP and now - last >= MISSED
    return [] if missed else [last], times.next_after(now)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run to make for a fire time: `of` is whose it is."""

    of: PipelineSchedule | Backfill
    pipeline: str
    version_id: UUID
    number: int
    at: datetime
    parameters: Mapping[str, Any]
    late_at: datetime | None = None


def make_runs(uow: UnitOfWork, wanted: list[Wanted]) -> int:
    """Make these runs, but for those whose fire time has one already; how many were made."""
    if not wanted:
        return 0
    runs = {one.id: one for one in map(_run, wanted)}
    for run in runs.values():
        run.created_at = uow.clock.now()
    names = ("id", "version", "created_at", "project_id", *_COLUMNS)
    rows = [{name: getattr(run, name) for name in names} for run in runs.values()]
    statement = insert(PipelineRun).on_conflict_do_nothing(index_elements=["pipeline_id", "fire_at"])
    made = uow.execute(statement.values(rows).returning(PipelineRun.id)).scalars().all()
    for run_id in made:
        uow.emit("pipeline_run.queued", runs[run_id], fire_at=str(runs[run_id].fire_at))
    return len(made)


_COLUMNS = (
    "pipeline_id", "pipeline", "version_id", "number", "state", "parameters", "wanted", "actor_kind", "actor_id",
    "actor_name", "fire_at", "late_at", "backfill_id", "message",
)  # fmt: skip


def _run(one: Wanted) -> PipelineRun:
    of = one.of
    return PipelineRun(
        id=new_id(), version=1, project_id=of.project_id, pipeline_id=of.pipeline_id, pipeline=one.pipeline,
        version_id=one.version_id, number=one.number, state=PipelineRunState.QUEUED, parameters=dict(one.parameters),
        wanted={}, actor_kind=of.actor_kind, actor_id=of.actor_id, actor_name=of.actor_name, fire_at=one.at,
        late_at=one.late_at, backfill_id=of.id if isinstance(of, Backfill) else None, message="",
    )  # fmt: skip


def tell_late(uow: UnitOfWork) -> None:
    """Tell of runs that should have ended by now, once each."""
    late = select(PipelineRun).where(PipelineRun.late_at <= uow.clock.now(), PipelineRun.ended_at.is_(None))
    for run in uow.session.execute(
        late.order_by(PipelineRun.late_at).limit(500).with_for_update(skip_locked=True)
    ).scalars():
        uow.emit("pipeline_run.late", run, due=str(run.late_at), pipeline=run.pipeline)
        run.late_at = None


@dataclass(frozen=True, slots=True)
class BackfillSpec:
    """Runs for the fire times in [starts_at, ends_at), so many at once."""

    starts_at: datetime
    ends_at: datetime
    parallel: int = 1
    parameters: Mapping[str, Any] | None = None
    dry_run: bool = False


def fire_times(uow: UnitOfWork, pipeline: Pipeline, spec: BackfillSpec) -> list[datetime]:
    """The fire times of a range. Raises NoSchedule; Invalid for an empty range, or one of too many."""
    schedule = schedule_of(uow, pipeline.id)
    if schedule is None:
        raise NoSchedule(f"pipeline {pipeline.name} has no schedule, so it has no fire times")
    if spec.ends_at <= spec.starts_at:
        raise Invalid(Field("/ends_at", "must be after starts_at"))
    times = Timetable(schedule.cron, schedule.zone, schedule.every_s)
    found: list[datetime] = []
    for at in times.after(spec.starts_at - timedelta(microseconds=1)):
        if at >= spec.ends_at:
            break
        if len(found) == MOST_FIRES:
            raise Invalid(Field("/ends_at", f"the range holds more than {MOST_FIRES} fire times: take a part of it"))
        found.append(at)
    if not found:
        raise Invalid(Field("/starts_at", "the range holds no fire time of the schedule"))
    return found


def start_backfill(uow: UnitOfWork, pipeline: Pipeline, spec: BackfillSpec) -> tuple[Backfill, list[datetime]]:
    """Begin to make the runs of a range; with `dry_run` only say which. Fire times that had their run keep it."""
    uow.require(Permission.PIPELINE_WRITE, pipeline.project_id)
    times = fire_times(uow, pipeline, spec)
    actor = uow.actor
    backfill = Backfill(
        id=new_id(), version=1, created_at=uow.clock.now(), project_id=pipeline.project_id, pipeline_id=pipeline.id,
        state=BackfillState.RUNNING, starts_at=spec.starts_at, ends_at=spec.ends_at, next_at=times[0],
        parallel=spec.parallel, parameters=dict(spec.parameters or {}), made=0, actor_kind=actor.kind,
        actor_id=actor.id, actor_name=actor.name,
    )  # fmt: skip
    if not spec.dry_run:
        uow.session.add(backfill)
        uow.session.flush()
        go_on_with(uow, backfill.id)
    return backfill, times


def cancel_backfill(uow: UnitOfWork, backfill_id: UUID) -> Backfill:
    """Make no more of its runs; those that were made go on. Raises IllegalTransition where it has ended."""
    backfill = uow.get(Backfill, backfill_id, lock=True)
    uow.require(Permission.PIPELINE_WRITE, backfill.project_id)
    uow.move(backfill, BackfillState.CANCELLED)
    return backfill


def go_on_with(uow: UnitOfWork, backfill_id: UUID) -> None:
    """Make the next runs of a backfill, as many as there is room for; end it once all have been made and have ended."""
    locked = select(Backfill).where(Backfill.id == backfill_id).with_for_update()
    backfill = uow.session.execute(locked.execution_options(populate_existing=True)).scalar_one()
    schedule = schedule_of(uow, backfill.pipeline_id)
    if backfill.state is not BackfillState.RUNNING:
        return
    live = select(PipelineRun.id).where(PipelineRun.backfill_id == backfill.id, PipelineRun.ended_at.is_(None))
    living = len(uow.session.execute(live).scalars().all())
    newest = (
        select(Pipeline.name, PipelineVersion.id, PipelineVersion.number)
        .join(PipelineVersion, PipelineVersion.pipeline_id == Pipeline.id)
        .where(Pipeline.id == backfill.pipeline_id, PipelineVersion.number == Pipeline.number)
    )
    name, version_id, number = uow.session.execute(newest).one()
    while schedule is not None and living < backfill.parallel and backfill.next_at < backfill.ends_at:
        times = Timetable(schedule.cron, schedule.zone, schedule.every_s)
        wanted = Wanted(backfill, name, version_id, number, backfill.next_at, backfill.parameters)
        made = make_runs(uow, [wanted])
        living, backfill.made = living + made, backfill.made + made
        backfill.next_at = times.next_after(backfill.next_at) or backfill.ends_at
    if living == 0:
        uow.move(backfill, BackfillState.DONE)
