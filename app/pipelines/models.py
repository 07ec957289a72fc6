"""Tables of pipelines, their versions, runs and stages, and of when they run."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, Index, String, UniqueConstraint, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.access import Permission
from app.core.tables import ProjectOwned, Word
from trellis.vocabulary import ActorKind, BackfillState, CatchUp, PipelineRunState, StageState


class Pipeline(ProjectOwned):
    """A named pipeline of a project; `number` is that of its newest version."""

    __tablename__ = "pipelines"
    __table_args__ = (
        Index("uq_pipelines_name", "project_id", "name", unique=True, postgresql_where=text("removed_at IS NULL")),
        CheckConstraint("concurrency BETWEEN 1 AND 1000", name="concurrency"),
    )
    read = Permission.PIPELINE_READ

    name: Mapped[str] = mapped_column(String(63))
    description: Mapped[str] = mapped_column(default="")
    number: Mapped[int]
    concurrency: Mapped[int]
    actor_name: Mapped[str] = mapped_column(String(200))
    removed_at: Mapped[datetime | None]


class PipelineVersion(ProjectOwned):
    """A definition as it was applied; never changed. `jobs` is what each stage asks of a job (`JobSpec.stored`)."""

    __tablename__ = "pipeline_versions"
    __table_args__ = (UniqueConstraint("pipeline_id", "number"),)
    read = Permission.PIPELINE_READ

    pipeline_id: Mapped[UUID] = mapped_column(ForeignKey("pipelines.id"))
    number: Mapped[int]
    digest: Mapped[str] = mapped_column(String(64))
    definition: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    jobs: Mapped[dict[str, Any]] = mapped_column(deferred=True)
    actor_name: Mapped[str] = mapped_column(String(200))


class PipelineSchedule(ProjectOwned):
    """When a pipeline runs by itself: by `cron` in `zone`, or every `every_s`. `fires_at` is the next time; null: never.

    Runs are whoever's it was that applied it. `late_s` after its fire time a run that has not ended is told of.
    """

    __tablename__ = "pipeline_schedules"
    __table_args__ = (
        UniqueConstraint("pipeline_id"),
        Index("ix_pipeline_schedules_due", "fires_at", postgresql_where=text("fires_at IS NOT NULL")),
    )
    read = Permission.PIPELINE_READ

    pipeline_id: Mapped[UUID] = mapped_column(ForeignKey("pipelines.id"))
    cron: Mapped[str] = mapped_column(String(200))
    zone: Mapped[str] = mapped_column(String(64))
    every_s: Mapped[int | None]
    starts_at: Mapped[datetime]
    catch_up: Mapped[CatchUp] = mapped_column(Word(CatchUp))
    parameters: Mapped[dict[str, Any]]
    late_s: Mapped[int | None]
    paused_at: Mapped[datetime | None]
    fires_at: Mapped[datetime | None]
    actor_kind: Mapped[ActorKind] = mapped_column(Word(ActorKind))
    actor_id: Mapped[UUID | None]
    actor_name: Mapped[str] = mapped_column(String(200))


class Backfill(ProjectOwned):
    """Runs for the fire times of a range, at most `parallel` at once; those before `next_at` have been made."""

    __tablename__ = "backfills"
    __table_args__ = (CheckConstraint("parallel BETWEEN 1 AND 100", name="parallel"),)
    read = Permission.PIPELINE_READ

    pipeline_id: Mapped[UUID] = mapped_column(ForeignKey("pipelines.id"), index=True)
    state: Mapped[BackfillState] = mapped_column(Word(BackfillState), default=BackfillState.RUNNING)
    starts_at: Mapped[datetime]
    ends_at: Mapped[datetime]
    next_at: Mapped[datetime]
    parallel: Mapped[int]
    parameters: Mapped[dict[str, Any]]
    made: Mapped[int] = mapped_column(default=0)
    actor_kind: Mapped[ActorKind] = mapped_column(Word(ActorKind))
    actor_id: Mapped[UUID | None]
    actor_name: Mapped[str] = mapped_column(String(200))
    ended_at: Mapped[datetime | None]


class PipelineRun(ProjectOwned):
    """One run of one version. Its stages' jobs are whoever's it is.

    `fire_at` is the moment of a schedule that it is for: there is one run for it, whoever fires. `look_at` is when to look
    at it again though nothing happens.
    """

    __tablename__ = "pipeline_runs"
    __table_args__ = (
        UniqueConstraint("pipeline_id", "fire_at"),
        Index("ix_pipeline_runs_list", "pipeline_id", "created_at", "id"),
        Index("ix_pipeline_runs_live", "pipeline_id", "state", "id", postgresql_where=text("ended_at IS NULL")),
        Index("ix_pipeline_runs_late", "late_at", postgresql_where=text("ended_at IS NULL AND late_at IS NOT NULL")),
        Index("ix_pipeline_runs_backfill", "backfill_id", postgresql_where=text("ended_at IS NULL")),
    )
    read = Permission.PIPELINE_READ

    pipeline_id: Mapped[UUID] = mapped_column(ForeignKey("pipelines.id"))
    pipeline: Mapped[str] = mapped_column(String(63))
    version_id: Mapped[UUID] = mapped_column(ForeignKey("pipeline_versions.id"))
    number: Mapped[int]
    state: Mapped[PipelineRunState] = mapped_column(Word(PipelineRunState), default=PipelineRunState.QUEUED)
    parameters: Mapped[dict[str, Any]]
    wanted: Mapped[dict[str, Any]]
    actor_kind: Mapped[ActorKind] = mapped_column(Word(ActorKind))
    actor_id: Mapped[UUID | None]
    actor_name: Mapped[str] = mapped_column(String(200))
    fire_at: Mapped[datetime | None]
    late_at: Mapped[datetime | None]
    backfill_id: Mapped[UUID | None]
    again_of: Mapped[UUID | None]
    look_at: Mapped[datetime | None]
    cancel_asked_at: Mapped[datetime | None]
    message: Mapped[str] = mapped_column(default="")
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]


class StageRun(ProjectOwned):
    """One stage of a run, or one element of a mapped one (`element`).

    `output_of` is the job whose artifacts are what it made: its own, or an earlier one's where that is reused.
    `output_digest` names what they hold, `cache_key` all that they were made of.
    """

    __tablename__ = "stage_runs"
    __table_args__ = (
        Index("uq_stage_runs", "run_id", "stage", "element", unique=True, postgresql_nulls_not_distinct=True),
        Index("ix_stage_runs_cache", "cache_key", "id", postgresql_where=text("cache_key IS NOT NULL")),
        Index("ix_stage_runs_job", "job_id", postgresql_where=text("state = 'running'")),
    )
    read = Permission.PIPELINE_READ

    run_id: Mapped[UUID] = mapped_column(ForeignKey("pipeline_runs.id"))
    stage: Mapped[str] = mapped_column(String(63))
    element: Mapped[int | None]
    state: Mapped[StageState] = mapped_column(Word(StageState), default=StageState.WAITING)
    job_id: Mapped[UUID | None]
    output_of: Mapped[UUID | None]
    output_digest: Mapped[str | None] = mapped_column(String(64))
    cache_key: Mapped[str | None] = mapped_column(String(64))
    value: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    result: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    message: Mapped[str] = mapped_column(default="")
    started_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
