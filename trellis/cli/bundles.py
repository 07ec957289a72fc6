"""`trellis bundles`: the code that was sent."""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from trellis.answers import Bundle
from trellis.cli import directories
from trellis.cli.context import AsJson, Here, here
from trellis.cli.tables import table
from trellis.cli.text import cell, files, moment
from trellis.errors import Field as Fault
from trellis.errors import Invalid, NotFound
from trellis.units import format_bytes
from trellis.wire import pack

bundles = typer.Typer(help="Directories of code that jobs run in.\n\nFor example: trellis bundles push .")
ProjectWord = Annotated[str | None, typer.Option("--project", "-A", help="Name or id; yours if you have one.")]
BundleWord = Annotated[str, typer.Argument(metavar="BUNDLE", help="Its id, or how its digest begins.")]
_SHOWN_DIGITS = 12
_FEWEST_DIGITS = 4


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(bundles, name="bundles")


@bundles.callback(invoke_without_command=True)
def default(context: typer.Context, as_json: AsJson = False) -> None:
    """List, send, look into, fetch and forget code; alone it lists what is kept.

    For example: trellis bundles show 3fa9
    """
    if context.invoked_subcommand is None:
        _list(here(context), None)


@bundles.command("list")
def list_bundles(context: typer.Context, project: ProjectWord = None, as_json: AsJson = False) -> None:
    """List what is kept, the last sent first.

    For example: trellis bundles list --project vision
    """
    _list(here(context), project)


def _list(run: Here, project: str | None) -> None:
    found = list(run.client.bundles.list(project=project))
    run.answer(found, lambda: run.out.print(_table(found)) if found else run.say("No code is kept."))


@bundles.command("push")
def push(
    context: typer.Context,
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="What to send, but for what .trellisignore names.")],
    project: ProjectWord = None,
    as_json: AsJson = False,
) -> None:
    """Send a directory, to be used by `trellis submit --bundle`; prints its id.

    For example: trellis bundles push .
    """
    run = here(context)
    made = directories.push(run, directory, project)
    run.answer(made, lambda: run.say(made.id))


@bundles.command("show")
def show(context: typer.Context, bundle: BundleWord, as_json: AsJson = False) -> None:
    """List the files of a bundle.

    For example: trellis bundles show 3fa9
    """
    run = here(context)
    manifest = run.client.bundles.files(_find(run, bundle))
    rows = [
        (cell(f"{entry.mode:o}" if not entry.link else "link"), cell("" if entry.link else format_bytes(entry.size_bytes)),
         cell(f"{entry.path} -> {entry.link}" if entry.link else entry.path))
        for entry in manifest.files
    ]  # fmt: skip
    run.answer(
        pack(manifest), lambda: run.out.print(table(["MODE", "SIZE", "PATH"], rows, right=("SIZE",), gives="PATH"))
    )


@bundles.command("download")
def download(
    context: typer.Context,
    bundle: BundleWord,
    to: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; it must not be there yet.")],
    as_json: AsJson = False,
) -> None:
    """Write a bundle to a new directory.

    For example: trellis bundles download 3fa9 ./as-it-was
    """
    run = here(context)
    found = _find(run, bundle)
    with run.err.status(f"Fetching {format_bytes(found.size_bytes)}..."):
        run.client.bundles.download(found, to)
    run.answer(found, lambda: run.say(f"Wrote {files(found.files)} to {to}."))


@bundles.command("delete")
def delete(
    context: typer.Context,
    words: Annotated[list[str], typer.Argument(metavar="BUNDLE...", help="Ids, or how their digests begin.")],
    as_json: AsJson = False,
) -> None:
    """Forget bundles that no job needs any more.

    For example: trellis bundles delete 3fa9
    """
    run = here(context)
    found = [_find(run, word) for word in words]
    for one in found:
        run.client.bundles.delete(one)
    run.answer(found, lambda: run.say(f"Forgot {len(found)}."))


def _find(run: Here, word: str) -> Bundle:
    if "-" in word:
        return run.client.bundles.get(word)
    if len(word) < _FEWEST_DIGITS:
        raise Invalid(Fault("BUNDLE", f"give its id, or at least {_FEWEST_DIGITS} digits of its digest"))
    found = [bundle for bundle in run.client.bundles.list() if bundle.digest.startswith(word)]
    if not found:
        raise NotFound(f"there is no bundle {word!r}; `trellis bundles` lists them")
    if len(found) > 1:
        raise Invalid(Fault("BUNDLE", f"{word!r} begins {len(found)} of them: give an id"))
    return found[0]


def _table(found: Iterable[Bundle]) -> Table:
    rows = [
        (cell(one.id), cell(one.digest[:_SHOWN_DIGITS]), cell(one.name), cell(one.user), cell(one.files),
         cell(format_bytes(one.size_bytes)), cell(moment(one.used_at)))
        for one in found
    ]  # fmt: skip
    headings = ["ID", "DIGEST", "NAME", "SENT BY", "FILES", "SIZE", "LAST USED"]
    return table(headings, rows, right=("FILES", "SIZE"), gives="NAME")
