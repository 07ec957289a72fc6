"""`trellis server`: single steps for whoever wires the control plane by hand."""

import os

import typer
from rich.console import Console

from app.cli.bootstrap import migrate
from app.cli.commands import sentences
from app.core.settings import Settings
from trellis.settings import load

server = typer.Typer(help="Single steps for whoever wires the control plane by hand.", no_args_is_help=True)


@server.callback()
def group() -> None:
    """Single steps for whoever wires the control plane by hand."""


@server.command("migrate")
def migrate_command() -> None:
    """Bring the schema of TRELLIS_DATABASE_URL to the newest revision. Example: trellis server migrate"""
    with sentences(Console()):
        migrate(load(Settings, os.environ).database_url)
