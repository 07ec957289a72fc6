"""`client.pipelines`: apply, run, look, end, run for the past."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trellis.answers import Answer, answer
from trellis.errors import Field, Invalid, NotFound
from trellis.nouns.paging import pages
from trellis.transport import Call, Transport, path
from trellis.vocabulary import PipelineRunState

ENDED = frozenset({PipelineRunState.SUCCEEDED, PipelineRunState.FAILED, PipelineRunState.CANCELLED})
LOOK_S = 0.5


@dataclass(frozen=True, kw_only=True)
class PipelineSchedule(Answer):
    """When a pipeline runs by itself; `fires_at` is the next time."""

    cron: str = ""
    timezone: str = "UTC"
    every_s: int | None = None
    catch_up: str = ""
    paused_at: datetime | None = None
    fires_at: datetime | None = None
    user: str = ""


@dataclass(frozen=True, kw_only=True)
class Pipeline(Answer):
    """A pipeline; `number` is that of its newest version, `changed` whether what was just applied made one."""

    id: str = ""
    project_id: str = ""
    name: str = ""
    description: str = ""
    number: int = 0
    concurrency: int = 1
    user: str = ""
    created_at: datetime | None = None
    version: int = 0
    changed: bool = False
    definition: Mapping[str, Any] = field(default_factory=dict)
    schedule: PipelineSchedule | None = None


@dataclass(frozen=True, kw_only=True)
class StageOfRun(Answer):
    """A stage of a run, what it waited for, and its job; `elements` of a mapped one are counted by state."""

    name: str = ""
    after: tuple[str, ...] = ()
    state: str = ""
    job_id: str | None = None
    job_state: str | None = None
    attempt: int | None = None
    exit_code: int | None = None
    output_of: str | None = None
    message: str = ""
    elements: Mapping[str, int] = field(default_factory=dict)
    started_at: datetime | None = None
    ended_at: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class PipelineRun(Answer):
    """A run of one version of a pipeline; `stages` come with `show`."""

    id: str = ""
    pipeline_id: str = ""
    pipeline: str = ""
    number: int = 0
    state: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    user: str = ""
    message: str = ""
    fire_at: datetime | None = None
    again_of: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None
    stages: tuple[StageOfRun, ...] = ()

    @property
    def ended(self) -> bool:
        """Whether it goes on no more."""
        return self.state in ENDED


@dataclass(frozen=True, kw_only=True)
class Element(Answer):
    """One value that a stage is mapped over, and its job."""

    element: int = 0
    value: Any = None
    state: str = ""
    job_id: str | None = None
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class Backfill(Answer):
    """Runs for a range of the past: of `count` fire times `made` have their run; `times` come with a dry run."""

    id: str = ""
    state: str = ""
    count: int = 0
    made: int = 0
    parallel: int = 1
    next_at: datetime | None = None
    times: tuple[datetime, ...] = ()


class Pipelines:
    """Everything about pipelines. Where one is wanted, a `Pipeline`, its id or its name will do."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def apply(self, definition: Mapping[str, Any], *, project: str | None = None, dry_run: bool = False) -> Pipeline:
        """Make a pipeline or a new version of it; the same again changes nothing. Raises Invalid with every fault."""
        body = {**definition, **({"project": project} if project else {}), **({"dry_run": True} if dry_run else {})}
        return answer(Pipeline, self._transport.json(Call("POST", "/pipelines", body=body)))

    def list(self, *, name: str | None = None, project: str | None = None) -> Iterator[Pipeline]:
        """Every pipeline of one's projects, by name."""
        return pages(self._transport, "/pipelines", Pipeline, {"name": name, "project": project})

    def get(self, pipeline: Pipeline | str, *, project: str | None = None) -> Pipeline:
        """A pipeline with its newest definition and its schedule. Raises NotFound; Invalid where several match."""
        return answer(Pipeline, self._transport.json(Call("GET", path("pipelines", self._id(pipeline, project)))))

    def remove(self, pipeline: Pipeline | str) -> None:
        """Run it no more; its runs stay to be looked at."""
        self._transport.json(Call("DELETE", path("pipelines", self._id(pipeline))))

    def run(
        self, pipeline: Pipeline | str, *, parameters: Mapping[str, Any] | None = None, version: int | None = None,
        start: Sequence[str] = (), to: Sequence[str] = (), only: Sequence[str] = (), fresh: bool = False,
        debug: bool = False,
    ) -> PipelineRun:  # fmt: skip
        """Have a pipeline run: the stages from `start` on, those that lead `to` some, `only` some, or all.

        `fresh` uses nothing again that was made before. Raises Invalid for parameters and stages that there are not.
        """
        said: dict[str, Any] = {
            "parameters": dict(parameters or {}), "version": version, "from": list(start), "to": list(to),
            "only": list(only), "fresh": fresh, "debug": debug,
        }  # fmt: skip
        body = {name: value for name, value in said.items() if value not in (None, [], {}, False)}
        return answer(PipelineRun, self._post(path("pipelines", self._id(pipeline), "runs"), body))

    def runs(self, pipeline: Pipeline | str) -> Iterator[PipelineRun]:
        """The runs of a pipeline, the newest first."""
        return pages(self._transport, path("pipelines", self._id(pipeline), "runs"), PipelineRun)

    def show(self, run: PipelineRun | str) -> PipelineRun:
        """A run with its stages. Raises NotFound."""
        return answer(PipelineRun, self._transport.json(Call("GET", path("pipelines", "runs", _run_id(run)))))

    def elements(self, run: PipelineRun | str, stage: str) -> tuple[Element, ...]:
        """The elements of a mapped stage."""
        found = self._transport.json(Call("GET", path("pipelines", "runs", _run_id(run), "stages", stage, "elements")))
        return tuple(answer(Element, item) for item in found["items"])

    def wait(
        self, run: PipelineRun | str, timeout: float | None = None, *, told: Callable[[PipelineRun], None] | None = None
    ) -> PipelineRun:
        """Look until the run has ended; `told` hears of each look. Raises TimeoutError; the run goes on."""
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            found = self.show(run)
            if told is not None:
                told(found)
            if found.ended:
                return found
            if ends is not None and time.monotonic() > ends:
                raise TimeoutError(f"run {found.id} has not ended within {timeout:g} s")
            time.sleep(LOOK_S)

    def cancel(self, run: PipelineRun | str, *, reason: str = "", force: bool = False) -> PipelineRun:
        """End a run and its jobs. Raises IllegalTransition where it has ended."""
        body = {"reason": reason, "force": force}
        return answer(PipelineRun, self._post(path("pipelines", "runs", _run_id(run), "cancel"), body, repeatable=True))

    def again(self, run: PipelineRun | str, *, whole: bool = False) -> PipelineRun:
        """Do again what did not succeed of an ended run, or the `whole`; the new run. Raises Conflict."""
        return answer(PipelineRun, self._post(path("pipelines", "runs", _run_id(run), "again"), {"whole": whole}))

    def pause(self, pipeline: Pipeline | str, *, paused: bool = True) -> PipelineSchedule:
        """Hold its schedule back, or let it go on from now. Raises Conflict where it has none."""
        call = Call(
            "PATCH", path("pipelines", self._id(pipeline), "schedule"), body={"paused": paused}, repeatable=True
        )
        return answer(PipelineSchedule, self._transport.json(call))

    def backfill(
        self, pipeline: Pipeline | str, starts_at: datetime | str, ends_at: datetime | str, *, parallel: int = 1,
        parameters: Mapping[str, Any] | None = None, dry_run: bool = False,
    ) -> Backfill:  # fmt: skip
        """Run for each fire time in [starts_at, ends_at), `parallel` at once; a dry run only says which."""
        body: dict[str, Any] = {"starts_at": _time(starts_at), "ends_at": _time(ends_at), "parallel": parallel}
        body |= {"parameters": dict(parameters)} if parameters else {}
        body |= {"dry_run": True} if dry_run else {}
        return answer(Backfill, self._post(path("pipelines", self._id(pipeline), "backfills"), body))

    def backfill_of(self, backfill_id: str) -> Backfill:
        """How far a backfill is."""
        return answer(Backfill, self._transport.json(Call("GET", path("pipelines", "backfills", backfill_id))))

    def cancel_backfill(self, backfill_id: str) -> Backfill:
        """Make no more of its runs."""
        return answer(Backfill, self._post(path("pipelines", "backfills", backfill_id, "cancel"), {}, repeatable=True))

    def _post(self, where: str, body: Any, *, repeatable: bool | None = None) -> Any:
        return self._transport.json(Call("POST", where, body=body, repeatable=repeatable))

    def _id(self, pipeline: Pipeline | str, project: str | None = None) -> str:
        if isinstance(pipeline, Pipeline):
            return pipeline.id
        if len(pipeline) == 36 and pipeline.count("-") == 4:
            return pipeline
        found = list(self.list(name=pipeline, project=project))
        if not found:
            raise NotFound(f"there is no pipeline {pipeline!r}")
        if len(found) > 1:
            raise Invalid(Field("/pipeline", f"{pipeline!r} is in {len(found)} projects: give its id, or the project"))
        return found[0].id


def _run_id(run: PipelineRun | str) -> str:
    return run.id if isinstance(run, PipelineRun) else run


def _time(at: datetime | str) -> str:
    return at.astimezone().isoformat() if isinstance(at, datetime) else at
