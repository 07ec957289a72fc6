"""`trellis artifacts`."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from trellis.answers import Artifact
from trellis.cli.checkpoints import ListByDefault
from trellis.cli.context import AsJson, Here, JobWord, here
from trellis.cli.options import pairs
from trellis.cli.tables import table
from trellis.cli.text import cell, files, moment, safe
from trellis.errors import Field, Invalid, NotFound
from trellis.nouns.artifacts import Description, files_below, safe_parts
from trellis.units import format_bytes

NameWords = Annotated[
    list[str] | None, typer.Argument(metavar="[NAME]...", help="Names, folders or ids; all files, if not said.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(
        cls=ListByDefault,
        no_args_is_help=True,
        help="Files beside a job's results: `trellis artifacts JOB` lists them.",
    )
    group.command("list")(list_artifacts)
    for verb in (get, put, rm):
        group.command()(verb)
    app.add_typer(group, name="artifacts")


def list_artifacts(
    context: typer.Context,
    job: JobWord,
    under: Annotated[str | None, typer.Option(help="Only those in this folder.")] = None,
    kind: Annotated[str | None, typer.Option("--type", help="Only of this type, such as model.")] = None,
    sort: Annotated[str, typer.Option(help="Field to sort by, `-` before it turns it round.")] = "name",
    as_json: AsJson = False,
) -> None:
    """List the files beside a job's results.

    For example: trellis artifacts last --type model
    """
    run = here(context)
    given: dict[str, Any] = {name: text for name, text in (("under", under), ("type", kind), ("sort", sort)) if text}
    found = list(run.client.artifacts.list(run.job_id(job), **given))

    def show() -> None:
        if found:
            run.out.print(_table(found))
        else:
            run.say("There is no such file.")

    run.answer(found, show)


def put(
    context: typer.Context,
    job: JobWord,
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files, or folders with all that is in them.")],
    name: Annotated[
        str | None, typer.Option(help="What it is to be called; of a folder, what is to stand before.")
    ] = None,
    kind: Annotated[
        str, typer.Option("--type", help="Such as model, dataset, plot, report; guessed if not said.")
    ] = "",
    media_type: Annotated[str, typer.Option(help="Such as image/png; guessed if not said.")] = "",
    metadata: Annotated[list[str] | None, typer.Option("--metadata", "-m", help="K=V; may be given again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Put files beside a job's results. What broke off goes on where it stopped.

    For example: trellis artifacts put last report.html --type report -m author=me
    """
    run = here(context)
    found, details = run.job_id(job), {key: _value(text) for key, text in pairs("metadata", metadata).items()}
    if name and len(paths) > 1:
        raise Invalid(Field("--name", "is for one file or folder: give the others by themselves"))
    wanted = [pair for path in paths for pair in _named(path, name)]
    kept = []
    with _bars(run) as bar:
        for file, called in wanted:
            about = Description(called, kind, media_type, details)
            with bar(called, file.stat().st_size) as progress:
                kept.append(run.client.artifacts.put(found, file, about, progress=progress))
    run.answer(kept, lambda: run.say(f"Put {files(len(kept))}, {format_bytes(sum(one.size_bytes for one in kept))}."))


def get(
    context: typer.Context,
    job: JobWord,
    names: NameWords = None,
    to: Annotated[
        Path, typer.Option("--to", "-o", help="The folder to write to; of one file also its new name.")
    ] = Path(),
    as_json: AsJson = False,
) -> None:
    """Fetch files of a job, each checked. What broke off goes on where it stopped.

    For example: trellis artifacts get last models -o fetched
    """
    run = here(context)
    found = run.job_id(job)
    wanted = _find(run, found, names)
    renamed = len(wanted) == 1 and wanted[0].name in (names or ()) and not to.is_dir() and to != Path()
    places = {one.id: to if renamed else to.joinpath(*safe_parts(one.name)) for one in wanted}
    folded = [str(place).casefold() for place in places.values()]
    if twice := [str(place) for place in places.values() if folded.count(str(place).casefold()) > 1]:
        raise Invalid(Field("NAME", f"{twice[0]} is more than one of the files: name one by its id, with -o FILE"))
    with _bars(run) as bar:
        for one in wanted:
            places[one.id].parent.mkdir(parents=True, exist_ok=True)
            with bar(one.name, one.size_bytes) as progress:
                run.client.artifacts.download(found, one, places[one.id], progress=progress)
    written = [str(place) for place in places.values()]

    def show() -> None:
        for place in written:
            run.say(place)

    run.answer(written, show)


def rm(
    context: typer.Context,
    job: JobWord,
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names, folders or ids.")],
    as_json: AsJson = False,
) -> None:
    """Forget files of a job.

    For example: trellis artifacts rm last plots
    """
    run = here(context)
    found = run.job_id(job)
    gone = _find(run, found, names)
    for one in gone:
        run.client.artifacts.remove(found, one)
    run.answer(gone, lambda: run.say(f"Forgot {files(len(gone))}."))


def _value(text: str) -> Any:
    """A number, a truth, a list: what is JSON; all else is text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def _named(path: Path, name: str | None) -> list[tuple[Path, str]]:
    """The files of a path, and what each is to be called."""
    if not path.is_dir():
        if not path.exists():
            raise Invalid(Field("PATH", f"{path} is not there"))
        return [(path, name or path.name)]
    before = PurePosixPath(name if name is not None else path.resolve().name)
    return [(file, str(before / file.relative_to(path).as_posix())) for file in files_below(path)]


def _find(run: Here, job: str, words: list[str] | None) -> list[Artifact]:
    """The files that words name: by name, by folder, by id. Raises NotFound."""
    there = list(run.client.artifacts.list(job))
    if not words:
        return there
    found: dict[str, Artifact] = {}
    for word in words:
        folder = word.rstrip("/") + "/"
        some = [one for one in there if word in (one.name, one.id) or one.name.startswith(folder)]
        if not some:
            raise NotFound(f"this job has no file {word!r}; `trellis artifacts {job}` lists them")
        found |= {one.id: one for one in some}
    return list(found.values())


Told = Callable[[int], None]


@contextmanager
def _bars(run: Here) -> Iterator[Callable[[str, int], Any]]:
    """Makes a bar for each file, one after the other."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=run.err, transient=True, disable=not run.err.is_terminal) as progress:

        @contextmanager
        def bar(name: str, size: int) -> Iterator[Told]:
            task = progress.add_task(safe(name), total=size)
            try:
                yield lambda done: progress.update(task, completed=done)
            finally:
                progress.remove_task(task)

        yield bar


def _table(found: list[Artifact]) -> Table:
    rows = [
        (cell(one.name), cell(one.type), cell(format_bytes(one.size_bytes)), cell(_said(one)), cell(one.saved_by),
         cell(moment(one.created_at)))
        for one in found
    ]  # fmt: skip
    return table(["NAME", "TYPE", "SIZE", "METADATA", "BY", "SAVED"], rows, right=("SIZE",), gives="METADATA")


def _said(one: Artifact) -> str:
    return ", ".join(f"{key}={value}" for key, value in list(one.metadata.items())[:3])
