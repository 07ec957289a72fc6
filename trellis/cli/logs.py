"""`trellis logs`, and how lines are shown wherever they are followed."""

import json
from collections.abc import Iterable
from typing import Annotated, Any

import typer

from trellis.answers import LogLine, plain
from trellis.cli.context import AsJson, Here, JobWord, here
from trellis.cli.options import when
from trellis.cli.text import safe
from trellis.vocabulary import Stream

INTERRUPTED = 130


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(logs)


def logs(
    context: typer.Context,
    job: JobWord,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last N lines.")] = None,
    since: Annotated[str | None, typer.Option(help="Only after this time, such as 2026-01-31T12:00.")] = None,
    stream: Annotated[Stream | None, typer.Option(help="Only what came this way.")] = None,
    replica: Annotated[int | None, typer.Option(min=0, help="Only of this replica.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="Only of this attempt.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what a job wrote; with --json one object a line.

    For example: trellis logs -f last
    """
    run = here(context)
    filters: dict[str, Any] = {
        "tail": tail,
        "since": when("since", since),
        "stream": stream,
        "replica": replica,
        "attempt": attempt,
    }
    given = {key: value for key, value in filters.items() if value is not None}
    found = run.job_id(job)
    show(run, found, run.client.jobs.logs(found, follow=follow, **given))


def show(run: Here, job_id: str, lines: Iterable[LogLine]) -> None:
    """Print lines as they come. An interrupt ends the reading, not the job."""
    try:
        for line in lines:
            typer.echo(json.dumps(plain(line)) if run.as_json else _text(line))
    except KeyboardInterrupt as error:
        run.note(f"\nJob {job_id} goes on; `trellis cancel {job_id}` ends it.".lstrip())
        raise typer.Exit(INTERRUPTED) from error


def _text(line: LogLine) -> str:
    # A progress bar draws over itself with carriage returns: what was left standing is the last of it.
    text = safe(line.text.rstrip("\r").rsplit("\r", 1)[-1])
    mark = "trellis: " if line.stream == Stream.SYSTEM else ""
    return f"{f'[{line.replica}] ' if line.replica else ''}{mark}{text}"
