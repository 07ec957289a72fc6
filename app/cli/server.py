"""`trellis server`: what a platform that is put together by hand, or from images, needs done once."""

import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from app.admin.bootstrap import ensure_admin
from app.cli import bootstrap as first_start
from app.cli.files import make_folder, write_private
from app.cli.grants import ADMIN, Grant, Wish
from app.core.access import SYSTEM
from app.core.db import make_engine, make_sessions
from app.core.settings import Settings
from app.core.uow import UnitOfWork, run
from app.tenancy.users import LONGEST_PASSWORD, SHORTEST_PASSWORD, UserSpec, create_user
from trellis.errors import Field, Invalid
from trellis.settings import SettingsError, load

server = typer.Typer(
    help="Set up a control plane by hand; reads TRELLIS_DATABASE_URL and its kin.", no_args_is_help=True
)


@server.command()
def migrate() -> None:
    """Bring the schema of TRELLIS_DATABASE_URL to the newest revision; safe to repeat."""
    first_start.migrate(load(Settings, os.environ).database_url)


@server.command()
def create_admin(
    username: Annotated[str, typer.Option(help="What to call them.")] = ADMIN,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from a pipe.")] = False,
) -> None:
    """Make a platform administrator; without --password-stdin the password is made up and printed this once."""
    password = sys.stdin.readline().rstrip("\r\n") if password_stdin else secrets.token_urlsafe(15)
    if not SHORTEST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise Invalid(Field("/password", f"must have {SHORTEST_PASSWORD} to {LONGEST_PASSWORD} characters"))
    _in_unit(lambda uow: _make_admin(uow, username, password))
    typer.echo(f"Made the administrator {username}." if password_stdin else password)


@server.command()
def bootstrap(
    write_to: Annotated[
        Path, typer.Option(help="Folder that gets admin/password and join/NODE, for the owner's eyes.")
    ],
    node: Annotated[list[str] | None, typer.Option(help="Name of a node that shall join; may be given again.")] = None,
) -> None:
    """Migrate, make what an empty platform begins with, and write its first secrets down; safe to repeat.

    The administrator's password is written when the administrator is made, and never again; every run writes new
    join tokens, each good for a day.
    """
    grant = first_start.bootstrap(Wish(tuple(node or ()), client_key=False), load(Settings, os.environ))
    try:
        _write_down(grant, write_to)
    except OSError as error:
        raise SettingsError(f"{error.filename or write_to} can't be written: {error.strerror}") from error


def _write_down(grant: Grant, folder: Path) -> None:
    # A folder a reader: whoever runs nodes can be given one, and not the other.
    if grant.password:
        write_private(make_folder(folder / "admin") / "password", f"{grant.password}\n")
    for name, token in grant.join_tokens.items():
        write_private(make_folder(folder / "join") / name, f"{token}\n")


def _make_admin(uow: UnitOfWork, username: str, password: str) -> None:
    if ensure_admin(uow, username, password) is None:
        create_user(uow, UserSpec(username, password, platform_admin=True))


def _in_unit(act: Callable[[UnitOfWork], None]) -> None:
    engine = make_engine(load(Settings, os.environ))
    try:
        run(make_sessions(engine), SYSTEM, act)
    finally:
        engine.dispose()
