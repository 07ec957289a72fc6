"""What `trellis submit --dir` does: sends a directory, and has the job begin in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from trellis.answers import Bundle
from trellis.bundles.scanning import scan
from trellis.cli.context import Here
from trellis.cli.text import files
from trellis.errors import Field, Invalid
from trellis.nouns.bundles import Progress as Told
from trellis.requirements import check
from trellis.units import format_bytes

_SHOWN_DIGITS = 12


def push(run: Here, directory: Path, project: str | None) -> Bundle:
    """Send the directory, with a bar where somebody watches. Raises Invalid."""
    with _bar(run) as told:
        bundle = run.client.bundles.push(directory, project=project, progress=told)
    run.note(f"Code: {files(bundle.files)}, {format_bytes(bundle.size_bytes)}, bundle {bundle.digest[:_SHOWN_DIGITS]}.")
    return bundle


def requirements(run: Here, file: Path, directory: Path | None, job: dict[str, Any]) -> dict[str, Any]:
    """What a submission says of a file of requirements; one that is in no directory is sent by itself. Raises Invalid."""
    try:
        text = file.read_text(encoding="utf-8")
        check(text)
    except (OSError, ValueError) as error:
        raise Invalid(Field("--requirements", f"{file} {getattr(error, 'strerror', None) or error}")) from error
    if directory is not None:
        if not file.resolve().is_relative_to(directory.resolve()):
            raise Invalid(Field("--requirements", f"{file} must lie in the directory that is sent"))
        return {"requirements": str(file.resolve().relative_to(directory.resolve()))} if "bundle" in job else {}
    if job.get("dry_run"):
        return {}
    with TemporaryDirectory() as folder:
        (Path(folder) / "requirements.txt").write_text(text, encoding="utf-8")
        sent = run.client.bundles.push(folder, project=job.get("project"), name=file.name)
    return {"project": sent.project_id, "bundle": sent.id, "requirements": "requirements.txt"}


def look_through(run: Here, directory: Path) -> None:
    """What `push` would send, of which nothing is sent. Raises Invalid."""
    manifest = scan(directory).manifest
    run.note(f"Code: {files(len(manifest.files))}, {format_bytes(manifest.size_bytes)}, of which nothing was sent.")


def run_in_place(body: dict[str, Any], file: Path | None, directory: Path) -> dict[str, Any]:
    """A submission whose script lies in the directory runs it where it lies, so that it finds what lies beside it."""
    if file is None or "script" not in body or not file.resolve().is_relative_to(directory.resolve()):
        return body
    place = file.resolve().relative_to(directory.resolve())
    command = [*_interpreter(body["script"], place), str(place), *body.get("arguments", ())]
    kept = {key: value for key, value in body.items() if key not in ("script", "script_name", "arguments")}
    return {**kept, "command": command}


def _interpreter(text: str, place: Path) -> list[str]:
    """What runs a script: its first line says it, or its name. The same as where the script is sent by itself."""
    first = text.split("\n", 1)[0]
    if first.startswith("#!"):
        return first[2:].strip().split(maxsplit=1) or ["/bin/sh"]
    return ["python"] if place.suffix == ".py" else ["/bin/sh"]


@contextmanager
def _bar(run: Here) -> Iterator[Told]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=run.err, transient=True, disable=not run.err.is_terminal) as bar:
        tasks = {
            what: bar.add_task(f"{what.capitalize()} code", total=None, visible=False)
            for what in ("reading", "sending")
        }

        def told(what: str, done: int, total: int) -> None:
            for name, task in tasks.items():
                bar.update(task, visible=name == what)
            bar.update(tasks[what], completed=done, total=total)

        yield told
