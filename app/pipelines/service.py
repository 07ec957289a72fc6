"""Pipelines and their versions: apply, look up, remove."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.orm import undefer

from app.core.access import Permission
from app.core.ids import new_id, read_id
from app.core.locks import wait_lock
from app.core.uow import UnitOfWork
from app.jobs.code import Pins
from app.jobs.service import read_spec
from app.jobs.spec import JobSpec
from app.jobs.validator import find_place, pools_named, validate_spec
from app.pipelines.definition import Flow, PipelineSpec, digest_of, read_flow
from app.pipelines.models import Pipeline, PipelineVersion
from app.pipelines.schedules import set_schedule
from app.tenancy.models import Project
from trellis.errors import Field, Invalid, NotFound


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a definition: `changed` where it is a new version."""

    pipeline: Pipeline
    version: PipelineVersion
    changed: bool


@dataclass(frozen=True, slots=True)
class Recipe:
    """A version as runs use it: its flow, and what each stage asks of a job."""

    flow: Flow
    jobs: Mapping[str, JobSpec]
    zone: str


def apply_pipeline(uow: UnitOfWork, spec: PipelineSpec) -> Applied:
    """Make a pipeline, or a new version of it; the same definition again changes nothing. With `dry_run` nothing is kept.

    Raises: Invalid with every fault, by the stage at fault.
    """
    place = find_place(uow, spec.project, "default")
    uow.require(Permission.PIPELINE_WRITE, place.project_id)
    jobs = _accept(uow, spec, place.project_id)
    wait_lock(uow, f"pipeline/{place.project_id}/{spec.name}")  # two that apply the same name take turns
    pipeline = _named(uow, place.project_id, spec.name)
    digest = digest_of([spec.source, jobs])
    newest = None if pipeline is None else version_of(uow, pipeline, pipeline.number)
    if pipeline is not None and newest is not None and newest.digest == digest:
        return Applied(pipeline, newest, changed=False)
    number = 1 if pipeline is None else pipeline.number + 1
    if pipeline is None:
        pipeline = Pipeline(
            id=new_id(), version=1, project_id=place.project_id, name=spec.name, actor_name=uow.actor.name,
            created_at=uow.clock.now(),
        )  # fmt: skip
    version = PipelineVersion(
        id=new_id(), version=1, project_id=place.project_id, pipeline_id=pipeline.id, number=number, digest=digest,
        definition=dict(spec.source), jobs=jobs, actor_name=uow.actor.name, created_at=uow.clock.now(),
    )  # fmt: skip
    pipeline.description, pipeline.concurrency = spec.description, spec.concurrency
    if spec.dry_run:
        pipeline.number = number
        uow.session.expunge_all()
        return Applied(pipeline, version, changed=True)
    pipeline.version = number if number == 1 else pipeline.version + 1
    pipeline.number = number
    uow.session.add(pipeline)
    uow.session.flush()
    uow.session.add(version)
    set_schedule(uow, pipeline, spec.schedule)
    uow.session.flush()
    uow.emit("pipeline.applied", pipeline, name=pipeline.name, number=number)
    return Applied(pipeline, version, changed=True)


def _accept(uow: UnitOfWork, spec: PipelineSpec, project_id: UUID) -> dict[str, Any]:
    """What each stage asks for, as it is kept, with its code looked up. Raises Invalid."""
    pins = Pins(uow, lock=not spec.dry_run)
    kept: dict[str, Any] = {}
    faults: list[Field] = []
    queues: set[str] = set()
    for number, (name, job) in enumerate(spec.jobs.items()):
        try:
            if job.queue not in queues:
                find_place(uow, str(project_id), job.queue)
                queues.add(job.queue)
            validate_spec(uow, job, project_id)
            pools_named(uow, [job])
            pinned = pins.pin(replace(job, project=""), project_id)
            kept[name] = {"spec": pinned.stored(), "labels": pinned.labels}
        except Invalid as error:
            faults += [Field(f"/stages/{number}{f.pointer}", f"{f.message} (stage {name!r})") for f in error.fields]
    if faults:
        raise Invalid(*faults)
    return kept


def _named(uow: UnitOfWork, project_id: UUID, name: str) -> Pipeline | None:
    statement = select(Pipeline).where(
        Pipeline.project_id == project_id, Pipeline.name == name, Pipeline.removed_at.is_(None)
    )
    return uow.session.execute(statement.with_for_update(key_share=True)).scalar_one_or_none()


def find_pipeline(uow: UnitOfWork, pipeline_id: UUID, *, lock: bool = False) -> Pipeline:
    """The pipeline of that id. Raises NotFound, also for one that was removed."""
    pipeline = uow.get(Pipeline, pipeline_id, lock=lock)
    if pipeline.removed_at is not None:
        raise NotFound(f"there is no pipeline {pipeline_id}")
    return pipeline


def version_of(uow: UnitOfWork, pipeline: Pipeline, number: int) -> PipelineVersion:
    """That version of it, with its definition. Raises Invalid."""
    statement = select(PipelineVersion).where(
        PipelineVersion.pipeline_id == pipeline.id, PipelineVersion.number == number
    )
    everything = undefer(PipelineVersion.definition), undefer(PipelineVersion.jobs)
    found = uow.session.execute(statement.options(*everything)).scalar_one_or_none()
    if found is None:
        raise Invalid(Field("/version", f"is none of {pipeline.name}: the newest is {pipeline.number}"))
    return found


def versions_of(uow: UnitOfWork, pipeline: Pipeline) -> Sequence[PipelineVersion]:
    """Its versions, the newest first; of many the newest 200."""
    statement = select(PipelineVersion).where(PipelineVersion.pipeline_id == pipeline.id)
    return uow.session.execute(statement.order_by(PipelineVersion.number.desc()).limit(200)).scalars().all()


def remove_pipeline(uow: UnitOfWork, pipeline_id: UUID) -> None:
    """Run it no more; what ran stays to be looked at, and its name is free again."""
    pipeline = find_pipeline(uow, pipeline_id, lock=True)
    uow.require(Permission.PIPELINE_WRITE, pipeline.project_id)
    pipeline.removed_at = uow.clock.now()
    pipeline.version += 1
    set_schedule(uow, pipeline, None)
    uow.emit("pipeline.removed", pipeline, name=pipeline.name)


class Recipes:
    """Versions that were read lately: they never change, and every step of a run asks for its one."""

    MOST = 128

    def __init__(self) -> None:
        self._read = lru_cache(self.MOST)(lambda _: _Slot())

    def get(self, uow: UnitOfWork, version_id: UUID) -> Recipe:
        """The recipe of that version."""
        slot = self._read(version_id)
        if slot.recipe is None:
            slot.recipe = _recipe(uow, version_id)
        return slot.recipe


class _Slot:
    recipe: Recipe | None = None


def _recipe(uow: UnitOfWork, version_id: UUID) -> Recipe:
    wanted = select(PipelineVersion.definition, PipelineVersion.jobs).where(PipelineVersion.id == version_id)
    row = uow.execute(wanted).one()
    jobs = {name: read_spec(kept["spec"], kept["labels"]) for name, kept in row.jobs.items()}
    zone = (row.definition.get("schedule") or {}).get("timezone", "UTC")
    return Recipe(read_flow(row.definition), jobs, zone)


RECIPES = Recipes()


def projects_called(uow: UnitOfWork, word: str) -> Sequence[UUID]:
    """The projects of that name or id that the actor may see."""
    named = Project.id == project_id if (project_id := read_id(word)) else Project.name == word
    return uow.session.execute(uow.visible(Project).with_only_columns(Project.id).where(named)).scalars().all()
