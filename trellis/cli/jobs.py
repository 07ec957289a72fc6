"""`trellis jobs`, `job`."""

from itertools import islice
from typing import Annotated, Any

import typer

from trellis.answers import Job
from trellis.cli.context import AsJson, JobWord, here
from trellis.cli.options import pairs, when
from trellis.cli.tables import job_sheet, jobs_table
from trellis.vocabulary import JobState

_PAGE = 500


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("jobs")(list_jobs)
    app.command("job")(show_job)


def list_jobs(
    context: typer.Context,
    state: Annotated[list[JobState] | None, typer.Option("--state", "-s", help="May be given again.")] = None,
    project: Annotated[str | None, typer.Option(help="Of this project.")] = None,
    queue: Annotated[str | None, typer.Option(help="In this queue.")] = None,
    user: Annotated[str | None, typer.Option(help="Submitted by this user.")] = None,
    name: Annotated[str | None, typer.Option(help="Of this name.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="With this label, K=V; may be given again.")] = None,
    after: Annotated[str | None, typer.Option("--submitted-after", help="A time, such as 2026-01-31T12:00.")] = None,
    before: Annotated[str | None, typer.Option("--submitted-before", help="Time, likewise.")] = None,
    sort: Annotated[str, typer.Option(help="Field to sort by, `-` before it turns it round.")] = "-submitted_at",
    each: Annotated[bool, typer.Option("--each", help="Elements of arrays and jobs of workflows one by one.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most so many.")] = 30,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first; an array or a workflow is one line.

    For example: trellis jobs --state running --state queued
    """
    run = here(context)
    filters: dict[str, Any] = {
        "state": [str(word) for word in state or ()] or None,
        "project": project,
        "queue": queue,
        "user": user,
        "name": name,
        "label": pairs("label", label) or None,
        "submitted_after": when("submitted-after", after),
        "submitted_before": when("submitted-before", before),
        "sort": sort,
        "grouped": None if each else True,
        "limit": min(limit, _PAGE),
    }
    given = {key: value for key, value in filters.items() if value is not None}
    found: list[Job] = list(islice(run.client.jobs.list(**given), limit))

    def show() -> None:
        if found:
            run.out.print(jobs_table(found))
        else:
            run.say("No job matches.")

    run.answer(found, show)


def show_job(context: typer.Context, job: JobWord, as_json: AsJson = False) -> None:
    """Show one job: its state, why it waits and when it starts, what it needs, each attempt.

    For example: trellis job last
    """
    run = here(context)
    found = run.client.jobs.get(run.job_id(job), verbose=True)
    run.answer(found, lambda: run.out.print(job_sheet(found)))
