"""`trellis array` and `trellis workflow`: many jobs as one."""

from pathlib import Path
from typing import Annotated

import typer

from trellis.answers import JobGroup
from trellis.cli import dry_runs
from trellis.cli.context import AsJson, Here, here
from trellis.cli.files import read_yaml
from trellis.cli.tables import group_sheet, jobs_table
from trellis.errors import Field, Invalid

array = typer.Typer(help="All jobs of one array as one.\n\nFor example: trellis array show last")
workflow = typer.Typer(help="Jobs that wait for one another.\n\nFor example: trellis workflow submit flow.yaml")
ArrayWord = Annotated[str, typer.Argument(metavar="ARRAY", help="Its id, or `last`: that of your newest job.")]
WorkflowWord = Annotated[str, typer.Argument(metavar="WORKFLOW", help="Its id, or `last`: that of your newest job.")]
Elements = Annotated[str | None, typer.Option("--elements", "-e", help="Only these, such as 0-9,12,20-40:2.")]
Reason = Annotated[str | None, typer.Option(help="Why, for the record.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(array, name="array")
    app.add_typer(workflow, name="workflow")


@array.command("show")
def show_array(context: typer.Context, which: ArrayWord, as_json: AsJson = False) -> None:
    """Show how many elements are in which state.

    For example: trellis array show last
    """
    run = here(context)
    found = run.client.arrays.get(_array(run, which))
    run.answer(found, lambda: run.out.print(group_sheet(found)))


@array.command("cancel")
def cancel_array(
    context: typer.Context,
    which: ArrayWord,
    elements: Elements = None,
    reason: Reason = None,
    force: Annotated[bool, typer.Option("--force", help="Leave them no time to save.")] = False,
    as_json: AsJson = False,
) -> None:
    """End an array, or some elements of it.

    For example: trellis array cancel last --elements 10-19
    """
    run = here(context)
    client = run.client.arrays
    _say(run, client.cancel(_array(run, which), reason=reason, force=force, elements=elements), "told to end")


@array.command("suspend")
def suspend_array(
    context: typer.Context, which: ArrayWord, elements: Elements = None, reason: Reason = None, as_json: AsJson = False
) -> None:
    """Have an array, or some elements of it, stand still.

    For example: trellis array suspend last
    """
    run = here(context)
    _say(run, run.client.arrays.suspend(_array(run, which), reason=reason, elements=elements), "told to stand still")


@array.command("resume")
def resume_array(
    context: typer.Context, which: ArrayWord, elements: Elements = None, reason: Reason = None, as_json: AsJson = False
) -> None:
    """Let an array, or some elements of it, go on.

    For example: trellis array resume last
    """
    run = here(context)
    _say(run, run.client.arrays.resume(_array(run, which), reason=reason, elements=elements), "told to go on")


@array.command("retry")
def retry_array(context: typer.Context, which: ArrayWord, elements: Elements = None, as_json: AsJson = False) -> None:
    """Submit those elements again that ended without success.

    For example: trellis array retry last
    """
    run = here(context)
    _say(run, run.client.arrays.retry(_array(run, which), elements=elements), "submitted again")


@workflow.command("submit")
def submit_workflow(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML or JSON: a name, and jobs that say `after`.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Submit nothing: say what would happen.")] = False,
    as_json: AsJson = False,
) -> None:
    """Submit several jobs at once that wait for one another by name, all or none.

    For example: trellis workflow submit flow.yaml
    """
    run = here(context)
    body = read_yaml("FILE", file)
    jobs = body.get("jobs")
    if not isinstance(jobs, list) or not all(isinstance(job, dict) for job in jobs):
        raise Invalid(Field("FILE", f"{file} is no workflow: it must hold a name and a list of jobs"))
    name = str(body.get("name") or file.stem)
    if dry_run:
        dry_runs.show(run, run.client.workflows.dry_run(name, jobs))
        return
    made = run.client.workflows.submit(name, jobs)
    run.answer(made, lambda: run.say(f"Submitted {made.count} jobs as workflow {made.id}."))


@workflow.command("show")
def show_workflow(context: typer.Context, which: WorkflowWord, as_json: AsJson = False) -> None:
    """Show how many jobs are in which state, and each of them.

    For example: trellis workflow show last
    """
    run = here(context)
    found = run.client.workflows.get(_workflow(run, which))
    jobs = list(run.client.jobs.list(workflow_id=found.id, sort="submitted_at"))

    def show() -> None:
        run.out.print(group_sheet(found))
        run.out.print()
        run.out.print(jobs_table(jobs))

    run.answer([found, *jobs] if as_json else found, show)


@workflow.command("cancel")
def cancel_workflow(
    context: typer.Context,
    which: WorkflowWord,
    reason: Reason = None,
    force: Annotated[bool, typer.Option("--force", help="Leave them no time to save.")] = False,
    as_json: AsJson = False,
) -> None:
    """End all jobs of a workflow.

    For example: trellis workflow cancel last
    """
    run = here(context)
    _say(run, run.client.workflows.cancel(_workflow(run, which), reason=reason, force=force), "told to end")


@workflow.command("suspend")
def suspend_workflow(
    context: typer.Context, which: WorkflowWord, reason: Reason = None, as_json: AsJson = False
) -> None:
    """Have all jobs of a workflow stand still.

    For example: trellis workflow suspend last
    """
    run = here(context)
    _say(run, run.client.workflows.suspend(_workflow(run, which), reason=reason), "told to stand still")


@workflow.command("resume")
def resume_workflow(
    context: typer.Context, which: WorkflowWord, reason: Reason = None, as_json: AsJson = False
) -> None:
    """Let all jobs of a workflow go on.

    For example: trellis workflow resume last
    """
    run = here(context)
    _say(run, run.client.workflows.resume(_workflow(run, which), reason=reason), "told to go on")


def _array(run: Here, word: str) -> str:
    return _of_last(run, "array_id", "array") if word == "last" else word


def _workflow(run: Here, word: str) -> str:
    return _of_last(run, "workflow_id", "workflow") if word == "last" else word


def _of_last(run: Here, name: str, noun: str) -> str:
    """The group of the caller's newest job. Raises Invalid where that is of none."""
    found: str | None = getattr(run.client.jobs.get(run.job_id("last")), name)
    if found is None:
        raise Invalid(Field(noun.upper(), f"your newest job is of no {noun}: name one by its id"))
    return found


def _say(run: Here, group: JobGroup, told: str) -> None:
    run.answer(group, lambda: run.say(f"{group.changed} of {group.count} jobs of {group.kind} {group.id} were {told}."))
