"""What every command shares: how it reaches the server, how it speaks, and how it fails."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, TextIO

import httpx
import typer
from rich.console import Console

from trellis.answers import Job, plain
from trellis.cli.text import safe
from trellis.client import Client
from trellis.errors import Invalid, NotFound, TrellisError, Unauthenticated
from trellis.profile import environment
from trellis.settings import SettingsError

FAILED = 1
MISUSED = 2
# Wide enough that nothing is cut where no person reads it.
_NO_TERMINAL = 1000


@dataclass
class Here:
    """One run of the command. `http` replaces the network in tests."""

    http: httpx.BaseTransport | None = None
    as_json: bool = False

    @cached_property
    def client(self) -> Client:
        """The client of the profile in force, made when first needed."""
        return Client(http=self.http)

    @cached_property
    def out(self) -> Console:
        """Standard output."""
        return Console(width=_width(sys.stdout), highlight=False, emoji=False)

    @cached_property
    def err(self) -> Console:
        """Standard error, where everything goes that is not the answer."""
        return Console(stderr=True, width=_width(sys.stderr), highlight=False, emoji=False, soft_wrap=True)

    def answer(self, value: Any, show: Callable[[], None]) -> None:
        """Print the answer: as JSON where that was asked for, else with `show`."""
        if self.as_json:
            typer.echo(json.dumps(plain(value), indent=2))
        else:
            show()

    def say(self, text: str) -> None:
        """One line for people on standard output."""
        typer.echo(safe(text))

    def note(self, text: str) -> None:
        """One line for people beside the answer, on standard error."""
        typer.echo(safe(text), err=True)

    def job_id(self, word: str) -> str:
        """The id that `word` stands for: itself, or the caller's newest job for `last`. Raises NotFound."""
        if word != "last":
            return word
        me = self.client.whoami()
        newest: Job | None = next(self.client.jobs.list(user=me.name, sort="-submitted_at", limit=1), None)
        if newest is None:
            raise NotFound("you have not submitted a job yet")
        return newest.id


def _width(stream: TextIO) -> int | None:
    """None leaves it to the terminal, or to COLUMNS."""
    return None if stream.isatty() or environment().get("COLUMNS") else _NO_TERMINAL


def _set_json(context: typer.Context, asked: bool) -> bool:
    if asked:
        here(context).as_json = True
    return asked


def here(context: typer.Context) -> Here:
    """The run that a context belongs to."""
    found = context.ensure_object(Here)
    return found


AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.", callback=_set_json)]
JobWord = Annotated[str, typer.Argument(metavar="JOB", help="A job's id, or `last` for your newest.")]


def report(error: TrellisError | SettingsError, *, as_json: bool) -> int:
    """Say on standard error what went wrong, in one line and one more a field; answers the exit code."""
    code = MISUSED if isinstance(error, Invalid) else FAILED
    if as_json:
        fields = [{"pointer": f.pointer, "message": f.message} for f in getattr(error, "fields", ())]
        problem = {"code": getattr(error, "code", "settings"), "detail": str(error), "errors": fields}
        typer.echo(json.dumps(problem), err=True)
        return code
    for line in _lines(error):
        typer.echo(safe(line), err=True)
    return code


def _lines(error: TrellisError | SettingsError) -> list[str]:
    if isinstance(error, Invalid) and error.fields:
        found = [f"{_place(field.pointer)} {field.message}" for field in error.fields]
        return [f"trellis: {found[0]}"] if len(found) == 1 else ["trellis: that can't be accepted:", *indented(found)]
    hint = "; sign in with `trellis login URL`" if isinstance(error, Unauthenticated) else ""
    trace = f" (trace {error.trace_id})" if isinstance(error, TrellisError) and error.trace_id else ""
    code_known = not isinstance(error, TrellisError) or error.code != TrellisError.code
    return [f"trellis: {str(error).rstrip('.')}{hint}{'' if code_known else trace}"]


def indented(lines: list[str]) -> list[str]:
    """Lines that belong to the one above."""
    return [f"  {line}" for line in lines]


def _place(pointer: str) -> str:
    return pointer.removeprefix("/").replace("/", ".") or "the request"
