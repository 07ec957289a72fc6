"""`trellis logs`, and how lines are shown wherever they are followed."""

import json
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

import typer

from trellis.answers import LogLine, plain
from trellis.cli.context import AsJson, Here, JobWord, here
from trellis.cli.options import when
from trellis.cli.text import safe
from trellis.vocabulary import Stream

INTERRUPTED = 130
_AGO = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?[smhd]", re.ASCII)
_COLOURS = ("cyan", "yellow", "green", "magenta", "blue", "bright_red")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(logs)


class _Way(StrEnum):
    """Streams, also by the short words."""

    STDOUT = "stdout"
    STDERR = "stderr"
    SYSTEM = "system"
    OUT = "out"
    ERR = "err"


_SHORT = {_Way.OUT: Stream.STDOUT, _Way.ERR: Stream.STDERR}


def logs(
    context: typer.Context,
    job: JobWord,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last N lines.")] = None,
    since: Annotated[
        str | None, typer.Option(help="Only from then on: 10m ago, or a time such as 2026-01-31T12:00.")
    ] = None,
    grep: Annotated[
        str | None, typer.Option("--grep", "-g", help="Only lines that match this expression (RE2).")
    ] = None,
    stream: Annotated[_Way | None, typer.Option(help="Only what came this way.")] = None,
    replica: Annotated[int | None, typer.Option(min=0, help="Only of this replica.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="Only of this attempt.")] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", "-t", help="Say when each line was printed.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print what a job wrote; with --json one object a line. Of a gang, all replicas' lines by their time.

    For example: trellis logs -f last --since 10m --grep 'loss|error'
    """
    run = here(context)
    filters: dict[str, Any] = {
        "tail": tail,
        "since": since if since and _AGO.fullmatch(since) else when("since", since),
        "grep": grep,
        "stream": _SHORT.get(stream, stream) if stream else None,
        "replica": replica,
        "attempt": attempt,
    }
    given = {key: value for key, value in filters.items() if value is not None}
    found = run.job_id(job)
    show(run, found, run.client.jobs.logs(found, follow=follow, **given), timestamps=timestamps)


def show(run: Here, job_id: str, lines: Iterable[LogLine], *, timestamps: bool = False) -> None:
    """Print lines as they come. An interrupt ends the reading, not the job."""
    gang = False
    try:
        for line in lines:
            gang = gang or line.replica > 0
            typer.echo(json.dumps(plain(line)) if run.as_json else _text(line, gang=gang, timestamps=timestamps))
    except KeyboardInterrupt as error:
        run.note(f"\nJob {job_id} goes on; `trellis cancel {job_id}` ends it.".lstrip())
        raise typer.Exit(INTERRUPTED) from error


def _text(line: LogLine, *, gang: bool, timestamps: bool) -> str:
    # A progress bar draws over itself with carriage returns: what was left standing is the last of it.
    text = safe(line.text.rstrip("\r").rsplit("\r", 1)[-1])
    mark = "trellis: " if line.stream == Stream.SYSTEM else ""
    # Where there is no terminal, `echo` leaves the colours out.
    rank = typer.style(f"[{line.replica}] ", fg=_COLOURS[line.replica % len(_COLOURS)]) if gang else ""
    at = f"{line.at.astimezone().isoformat(timespec='milliseconds')} " if timestamps and line.at else ""
    return f"{at}{rank}{mark}{text}"
