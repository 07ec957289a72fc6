"""`trellis pipeline`: stages that are jobs, in order."""

import sys
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text
from rich.tree import Tree

from trellis.cli import directories
from trellis.cli.context import FAILED, AsJson, Here, here
from trellis.cli.files import read_yaml
from trellis.cli.options import when
from trellis.cli.tables import table
from trellis.cli.text import cell, moment, safe, span
from trellis.errors import Field, Invalid, NotFound
from trellis.flows import read_file
from trellis.nouns.pipelines import Pipeline, PipelineRun, StageOfRun
from trellis.vocabulary import PipelineRunState, StageState

pipeline = typer.Typer(help="Stages that are jobs, in order.\n\nFor example: trellis pipeline apply flow.yaml")
PipelineWord = Annotated[str, typer.Argument(metavar="PIPELINE", help="Its name or id.")]
RunWord = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, or a pipeline's name for its newest.")]
Parameters = Annotated[list[str] | None, typer.Option("--parameter", "-p", help="NAME=VALUE; may be given again.")]
ProjectWord = Annotated[str | None, typer.Option("--project", "-A", help="Name or id; yours if you have one.")]
_MARKS = {
    StageState.WAITING: (".", "bright_black"), StageState.RUNNING: (">", "bright_cyan"),
    StageState.SUCCEEDED: ("+", "green"), StageState.REUSED: ("=", "green"), StageState.LEFT_OUT: ("-", "bright_black"),
    StageState.FAILED: ("x", "red"), StageState.BLOCKED: ("x", "magenta"), StageState.SKIPPED: ("-", "bright_black"),
    StageState.CANCELLED: ("x", "bright_black"),
}  # fmt: skip
_MOST_SHOWN = 200


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(pipeline, name="pipeline")


@pipeline.command("apply")
def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML, JSON or Python (see the guide on pipelines).")],
    project: ProjectWord = None,
    directory: Annotated[
        Path | None, typer.Option("--dir", "-D", metavar="DIR", help="Send this directory; stages run in it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say whether it is good.")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a pipeline, or a new version of one; the same again changes nothing. A Python file sends its directory along.

    For example: trellis pipeline apply flow.py
    """
    run = here(context)
    body = _definition(file)
    if file.suffix == ".py":
        directory = directory or file.resolve().parent
        if file.resolve().parent != directory.resolve():
            raise Invalid(Field("--dir", f"{file} must lie at the top of the directory that is sent"))
    if directory is not None and not dry_run:
        sent = directories.push(run, directory, project)
        body["defaults"] = {**(body.get("defaults") or {}), "bundle": sent.id}
        project = project or sent.project_id
    made = run.client.pipelines.apply(body, project=project, dry_run=dry_run)
    run.answer(made, lambda: run.say(_applied(made, dry_run=dry_run)))


def _definition(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise Invalid(Field("FILE", f"there is no file {str(file)!r}"))
    body = read_file(file) if file.suffix == ".py" else read_yaml("FILE", file)
    body.setdefault("name", file.stem)
    return body


def _applied(made: Pipeline, *, dry_run: bool) -> str:
    stages = len(made.definition.get("stages", ()))
    what = f"pipeline {made.name}, version {made.number}, of {stages} stages"
    if dry_run:
        return f"It is good: {what}{'' if made.changed else ', as it is'}."
    return f"Applied {what}." if made.changed else f"Nothing has changed: {what}."


@pipeline.command("list")
def list_pipelines(context: typer.Context, project: ProjectWord = None, as_json: AsJson = False) -> None:
    """List pipelines.

    For example: trellis pipeline list
    """
    run = here(context)
    found = list(run.client.pipelines.list(project=project))
    rows = [(cell(one.name), cell(one.number), cell(one.user), cell(one.description), cell(one.id)) for one in found]
    shown = table(["NAME", "VERSION", "BY", "DESCRIPTION", "ID"], rows, right=("VERSION",), gives="DESCRIPTION")
    run.answer(found, lambda: run.out.print(shown) if found else run.say("There is no pipeline."))


@pipeline.command("run")
def run_pipeline(
    context: typer.Context,
    which: PipelineWord,
    parameter: Parameters = None,
    start: Annotated[list[str] | None, typer.Option("--from", help="From this stage on; may be given again.")] = None,
    to: Annotated[list[str] | None, typer.Option("--to", help="What leads to this stage; may be given again.")] = None,
    only: Annotated[list[str] | None, typer.Option("--only", help="This stage; may be given again.")] = None,
    version: Annotated[int | None, typer.Option(help="Of an earlier version.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Use nothing again that was made before.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="More of what nodes do in the logs.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have a pipeline run, and watch it: exits with 0 if it succeeds. Ctrl-C leaves it alone.

    For example: trellis pipeline run nightly --parameter day=2026-01-31
    """
    run = here(context)
    made = run.client.pipelines.run(
        which, parameters=_values(parameter), version=version, start=start or (), to=to or (), only=only or (),
        fresh=fresh, debug=debug,
    )  # fmt: skip
    if detach:
        run.answer(made, lambda: run.say(f"Started run {made.id}."))
    else:
        _watch(run, made)


def _values(given: Sequence[str] | None) -> dict[str, Any]:
    """`NAME=VALUE` as YAML reads the value, but for dates: those stay text."""
    found: dict[str, Any] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not equals:
            raise Invalid(Field("--parameter", f"must be NAME=VALUE, not {text!r}"))
        try:
            read = yaml.safe_load(value)
        except yaml.YAMLError:
            read = value
        found[name] = read if isinstance(read, int | float) else value
    return found


@pipeline.command("runs")
def list_runs(
    context: typer.Context,
    which: PipelineWord,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 30,
    as_json: AsJson = False,
) -> None:
    """List the runs of a pipeline, the newest first.

    For example: trellis pipeline runs nightly
    """
    run = here(context)
    found = list(islice(run.client.pipelines.runs(which), limit))
    rows = [
        (cell(one.id), _run_state(one), cell(one.number), cell(moment(one.fire_at or one.created_at)), cell(_took(one)),
         cell(one.message))
        for one in found
    ]  # fmt: skip
    headings = ["RUN", "STATE", "VERSION", "FOR", "TOOK", "MESSAGE"]
    shown = table(headings, rows, right=("VERSION", "TOOK"), gives="MESSAGE")
    run.answer(found, lambda: run.out.print(shown) if found else run.say("It has not run."))


@pipeline.command("show")
def show(
    context: typer.Context,
    which: RunWord,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Watch it until it ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show a run as a tree of its stages.

    For example: trellis pipeline show nightly
    """
    run = here(context)
    found = run.client.pipelines.show(_run_id(run, which))
    if follow and not found.ended:
        _watch(run, found)
    else:
        run.answer(found, lambda: run.out.print(drawn(found)))


@pipeline.command("cancel")
def cancel(
    context: typer.Context,
    which: RunWord,
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Leave its jobs no time to save.")] = False,
    as_json: AsJson = False,
) -> None:
    """End a run and its jobs.

    For example: trellis pipeline cancel nightly --reason "the wrong day"
    """
    run = here(context)
    ended = run.client.pipelines.cancel(_run_id(run, which), reason=reason, force=force)
    run.answer(ended, lambda: run.say(f"Run {ended.id} was told to end."))


@pipeline.command("again")
def again(
    context: typer.Context,
    which: RunWord,
    whole: Annotated[bool, typer.Option("--whole", help="All of it, not only what did not succeed.")] = False,
    detach: Annotated[bool, typer.Option("--detach", help="Do not wait for its end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Do again what did not succeed of a run, with the same version and parameters.

    For example: trellis pipeline again nightly
    """
    run = here(context)
    made = run.client.pipelines.again(_run_id(run, which), whole=whole)
    if detach:
        run.answer(made, lambda: run.say(f"Started run {made.id}."))
    else:
        _watch(run, made)


@pipeline.command("pause")
def pause(context: typer.Context, which: PipelineWord, as_json: AsJson = False) -> None:
    """Hold a pipeline's schedule back.

    For example: trellis pipeline pause nightly
    """
    run = here(context)
    held = run.client.pipelines.pause(which)
    run.answer(held, lambda: run.say(f"{which} runs by itself no more, until `trellis pipeline resume {which}`."))


@pipeline.command("resume")
def resume(context: typer.Context, which: PipelineWord, as_json: AsJson = False) -> None:
    """Let a pipeline's schedule go on from now.

    For example: trellis pipeline resume nightly
    """
    run = here(context)
    schedule = run.client.pipelines.pause(which, paused=False)
    run.answer(schedule, lambda: run.say(f"{which} runs next at {moment(schedule.fires_at)}."))


@pipeline.command("backfill")
def backfill(
    context: typer.Context,
    which: PipelineWord,
    first: Annotated[str, typer.Option("--from", help="A time, such as 2026-01-01 or 2026-01-01T12:00.")],
    until: Annotated[str, typer.Option("--until", help="A time, itself left out.")],
    parallel: Annotated[int, typer.Option(help="So many runs at once.", min=1, max=100)] = 1,
    parameter: Parameters = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which runs it would make.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run for each time of the past at which the schedule would have fired. Times that had their run keep it.

    For example: trellis pipeline backfill nightly --from 2026-01-01 --until 2026-02-01 --parallel 4
    """
    run = here(context)
    starts_at, ends_at = when("from", first), when("until", until)
    if starts_at is None or ends_at is None:
        raise Invalid(Field("--from, --until", "must both be given"))
    made = run.client.pipelines.backfill(
        which, starts_at, ends_at, parallel=parallel, parameters=_values(parameter), dry_run=dry_run
    )

    def tell() -> None:
        run.say(f"{'It would run' if dry_run else f'Backfill {made.id} runs'} for {made.count} times.")
        for at in made.times:
            run.say(f"  {moment(at)}")

    run.answer(made, tell)


@pipeline.command("remove")
def remove(context: typer.Context, which: PipelineWord, as_json: AsJson = False) -> None:
    """Run a pipeline no more; its runs stay to be looked at.

    For example: trellis pipeline remove nightly
    """
    run = here(context)
    found = run.client.pipelines.get(which)
    run.client.pipelines.remove(found)
    run.answer(found, lambda: run.say(f"Removed {found.name}."))


def _run_id(run: Here, word: str) -> str:
    """The id that a word stands for: itself, or the newest run of the pipeline of that name. Raises NotFound."""
    if len(word) == 36 and word.count("-") == 4:
        return word
    newest = next(run.client.pipelines.runs(word), None)
    if newest is None:
        raise NotFound(f"pipeline {word} has not run yet")
    return newest.id


def _watch(run: Here, made: PipelineRun) -> None:
    """Draw a run's tree until it has ended; exits as it did."""
    run.note(f"Run {made.id} of {made.pipeline}, version {made.number}.")
    try:
        if sys.stdout.isatty() and not run.as_json:
            with Live(console=run.out, auto_refresh=False) as live:
                ended = run.client.pipelines.wait(made, told=lambda seen: live.update(drawn(seen), refresh=True))
        else:
            ended = run.client.pipelines.wait(made)
            run.answer(ended, lambda: run.out.print(drawn(ended)))
    except KeyboardInterrupt as error:
        run.note(f"Run {made.id} goes on; `trellis pipeline cancel {made.id}` ends it.")
        raise typer.Exit(130) from error
    raise typer.Exit(0 if ended.state == PipelineRunState.SUCCEEDED else FAILED)


def drawn(run: PipelineRun) -> RenderableType:
    """A run as a tree: each stage below the last of those that it waits for."""
    done = sum(stage.state not in (StageState.WAITING, StageState.RUNNING) for stage in run.stages)
    head = Text.assemble(f"{safe(run.pipeline)} ", _run_state(run), f"  {done}/{len(run.stages)} stages  {_took(run)}")
    tree = Tree(head, guide_style="bright_black")
    limbs: dict[str, Tree] = {}
    for stage in run.stages[:_MOST_SHOWN]:
        below = limbs.get(stage.after[-1], tree) if stage.after else tree
        limbs[stage.name] = below.add(_stage_line(stage))
    lines: list[RenderableType] = [tree]
    if len(run.stages) > _MOST_SHOWN:
        lines.append(Text(f"and {len(run.stages) - _MOST_SHOWN} more stages (--json shows all)"))
    if run.message:
        lines.append(Text(safe(run.message)))
    return Group(*lines)


def _stage_line(stage: StageOfRun) -> Text:
    mark, colour = _MARKS.get(StageState(stage.state), ("?", ""))
    said = stage.state.replace("_", " ")
    if stage.state == StageState.RUNNING and stage.job_state:
        said = stage.job_state.replace("_", " ")
    parts = [Text(f"{mark} ", style=colour), Text(safe(stage.name), style="bold"), Text(f"  {said}", style=colour)]
    if len(stage.after) > 1:
        parts.append(Text(f"  after {safe(', '.join(stage.after[:-1]))} too", style="bright_black"))
    if stage.elements:
        parts.append(Text(f"  {_counts(stage.elements)}"))
    if stage.started_at and stage.ended_at:
        parts.append(Text(f"  {span((stage.ended_at - stage.started_at).total_seconds())}"))
    if stage.message:
        parts.append(Text(f"  {safe(stage.message)}", style="bright_black"))
    return Text.assemble(*parts)


def _counts(elements: Mapping[str, int]) -> str:
    done = sum(count for state, count in elements.items() if state != StageState.RUNNING)
    return f"{done}/{sum(elements.values())}"


def _run_state(run: PipelineRun) -> Text:
    colours = {PipelineRunState.SUCCEEDED: "green", PipelineRunState.FAILED: "red", PipelineRunState.RUNNING: "cyan"}
    return Text(safe(run.state), style=colours.get(PipelineRunState(run.state), "yellow"))


def _took(run: PipelineRun) -> str:
    if run.started_at is None or run.ended_at is None:
        return "-"
    return span((run.ended_at - run.started_at).total_seconds())
