"""`trellis login`, `logout`, `whoami`."""

import re
import secrets
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

import typer

from trellis import profile
from trellis.answers import WhoAmI
from trellis.cli.context import AsJson, Here, here
from trellis.cli.tables import projects_table
from trellis.client import Client
from trellis.errors import Forbidden, NotFound, Unauthenticated, Unavailable
from trellis.profile import Profile

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(login)
    app.command()(logout)
    app.command()(whoami)


def login(
    context: typer.Context,
    url: Annotated[str | None, typer.Argument(help="Where Trellis is, such as https://trellis.example.org.")] = None,
    username: Annotated[str | None, typer.Option("--username", "-u", help="Asked for when left out.")] = None,
    password_stdin: Annotated[bool, typer.Option("--password-stdin", help="Read the password from a pipe.")] = False,
    api_key: Annotated[
        str | None, typer.Option("--api-key", help="Use this key instead of a password; `-` reads it from a pipe.")
    ] = None,
) -> None:
    """Sign in, and keep a key for this machine in ~/.config/trellis/config.json.

    For example: trellis login https://trellis.example.org --username ada
    """
    run = here(context)
    where = url or profile.resolve(profile.environment(), Path.cwd()).url
    if urlsplit(where).scheme == "http" and urlsplit(where).hostname not in _LOOPBACK:
        run.note(f"Beware: {where} is not encrypted; use https:// beyond this machine.")
    if api_key is not None:
        kept, me = _with_key(run, where, sys.stdin.readline().strip() if api_key == "-" else api_key)
    else:
        username = username or typer.prompt("Username", err=True)
        password = sys.stdin.readline().rstrip("\r\n") if password_stdin else _ask_password()
        kept, me = _with_password(run, where, username, password)
    profile.write(profile.user_file(profile.environment()), kept)
    run.answer(me, lambda: run.say(f"Signed in to {kept.url} as {me.name}."))


def _ask_password() -> str:
    return str(typer.prompt("Password", hide_input=True, err=True))


def _with_key(run: Here, url: str, key: str) -> tuple[Profile, WhoAmI]:
    with Client(url, api_key=key, http=run.http) as client:
        return Profile(client.url, key), client.whoami()


def _with_password(run: Here, url: str, username: str, password: str) -> tuple[Profile, WhoAmI]:
    with Client(url, username=username, password=password, http=run.http) as client:
        me = client.whoami()
        made = client.api_keys.create(_key_name(socket.gethostname()))
        return Profile(client.url, made.key, made.id), me


def _key_name(host: str) -> str:
    """A name that says which machine the key is for, and is used by no other key."""
    plain = re.sub(r"[^a-z0-9.-]", "-", host.lower())[:40]
    return f"cli-{plain}-{secrets.token_hex(3)}"


def logout(context: typer.Context) -> None:
    """Withdraw this machine's key and forget it.

    For example: trellis logout
    """
    run = here(context)
    file = profile.user_file(profile.environment())
    kept = profile.read(file)
    if kept is None:
        run.say("You are not signed in.")
        return
    if kept.key_id:
        # The key may be gone already; one that can't be withdrawn now is said, and forgotten here all the same.
        with suppress(NotFound, Unauthenticated), Client(kept.url, api_key=kept.api_key, http=run.http) as client:
            try:
                client.api_keys.delete(kept.key_id)
            except (Unavailable, Forbidden) as error:
                run.note(f"The key could not be withdrawn ({error}); an administrator can do so.")
    file.unlink()
    run.say(f"Signed out of {kept.url}.")


def whoami(context: typer.Context, as_json: AsJson = False) -> None:
    """Show who you are and which projects you belong to.

    For example: trellis whoami
    """
    run = here(context)
    me = run.client.whoami()

    def show() -> None:
        role = ", platform administrator" if me.platform_admin else ""
        run.say(f"{me.name} ({me.kind.replace('_', ' ')}{role}) at {run.client.url}")
        if me.projects:
            run.out.print(projects_table(me.projects))

    run.answer(me, show)
