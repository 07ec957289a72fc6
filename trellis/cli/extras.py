"""Commands that come with other parts of Trellis (`trellis up`, `trellis node`, ...), loaded when they are used."""

from collections.abc import Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperGroup
from typer.main import get_command, get_group

from trellis.cli.context import FAILED, Here, report
from trellis.errors import TrellisError
from trellis.settings import SettingsError

GROUP = "trellis.commands"
# What to install for a command whose parts are not all there.
_EXTRAS = {"up": "local", "down": "local", "status": "local", "server": "server", "simulate": "local", "node": "node"}


class Root(TyperGroup):
    """The top command: its own commands and those registered by other parts; errors become one line each."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names in the order of the help."""
        own = list(super().list_commands(ctx))
        return own + sorted(registered().keys() - set(own))

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command of that name, loaded now if it comes from elsewhere; None if there is none."""
        own = super().get_command(ctx, cmd_name)
        if own is None and (entry := registered().get(cmd_name)):
            return load(entry)
        return own

    def invoke(self, ctx: Any) -> Any:
        """Run the command; what it raises is said and becomes the exit code."""
        try:
            return super().invoke(ctx)
        except (TrellisError, SettingsError) as error:
            raise typer.Exit(report(error, as_json=ctx.ensure_object(Here).as_json)) from error


@cache
def registered() -> dict[str, EntryPoint]:
    """The commands that installed parts offer."""
    found: Sequence[EntryPoint] = tuple(entry_points(group=GROUP))
    return {entry.name: entry for entry in found}


def load(entry: EntryPoint) -> Any:
    """The command behind an entry point: a Typer application or a function; a stand-in where a module is missing."""
    try:
        found = entry.load()
    except ModuleNotFoundError as error:
        return _stand_in(entry.name, error.name or "a module")
    if isinstance(found, typer.Typer):
        group: Any = get_group(found)  # a group also while it has but one command
        group.name = entry.name
        return group
    made = typer.Typer(add_completion=False)
    made.command(name=entry.name, help=found.__doc__)(found)
    return get_command(made)


def _stand_in(name: str, missing: str) -> Any:
    extra = _EXTRAS.get(name, name)
    made = typer.Typer(add_completion=False)

    def explain() -> None:
        sentence = f"`trellis {name}` needs {missing}, which is not installed: pip install 'trellis[{extra}]'"
        typer.echo(f"trellis: {sentence}", err=True)
        raise typer.Exit(FAILED)

    settings = {"ignore_unknown_options": True, "allow_extra_args": True}
    # No brackets in a help text: they would be taken for markup.
    made.command(name=name, help=f"Not installed: needs the extra `{extra}`.", context_settings=settings)(explain)
    return get_command(made)
