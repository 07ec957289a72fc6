"""`trellis checkpoint` and `trellis checkpoints`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from typer.core import TyperGroup

from trellis.answers import Checkpoint
from trellis.cli.context import AsJson, JobWord, here
from trellis.cli.tables import table
from trellis.cli.text import cell, files, moment
from trellis.units import format_bytes

CheckpointWord = Annotated[str, typer.Argument(metavar="CHECKPOINT", help="Its id, from `trellis checkpoints JOB`.")]
ProjectWord = Annotated[str, typer.Argument(metavar="PROJECT", help="The other project's id.")]


class ListByDefault(TyperGroup):
    """`checkpoints JOB` lists those of a job, for a job is no verb."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Take a first word that is no verb of ours for a job."""
        return super().resolve_command(ctx, args if args[0] in self.commands else ["list", *args])


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("checkpoint")(ask)
    group = typer.Typer(
        cls=ListByDefault, no_args_is_help=True, help="What jobs can go on from: `trellis checkpoints JOB` lists them."
    )
    group.command("list")(list_checkpoints)
    for verb in (show, download, remove, share, unshare, imported, key):
        group.command()(verb)
    group.command("export")(export_ticket)
    group.command("import")(import_ticket)
    app.add_typer(group, name="checkpoints")


def ask(context: typer.Context, job: JobWord, as_json: AsJson = False) -> None:
    """Have a running job save a checkpoint soon.

    For example: trellis checkpoint last
    """
    run = here(context)
    asked = run.client.checkpoints.ask(run.job_id(job))
    run.answer(asked, lambda: run.say(f"Job {asked.id} is asked to save; `trellis checkpoints {asked.id}` shows it."))


def list_checkpoints(context: typer.Context, job: JobWord, as_json: AsJson = False) -> None:
    """List what a job can go on from, the newest first.

    For example: trellis checkpoints last
    """
    run = here(context)
    found = list(run.client.checkpoints.list(run.job_id(job)))

    def show_all() -> None:
        if found:
            run.out.print(_table(found))
        else:
            run.say("There is no checkpoint of this job.")

    run.answer(found, show_all)


def show(context: typer.Context, checkpoint: CheckpointWord, as_json: AsJson = False) -> None:
    """Show one checkpoint.

    For example: trellis checkpoints show 0199d8c2-6f3e-7a51-9d1e-2b7c4e5f6a7b
    """
    run = here(context)
    found = run.client.checkpoints.get(checkpoint)

    def show_it() -> None:
        run.out.print(_table([found]))
        run.say(
            f"Of replica {found.replica} ({found.reason}), attempt {found.attempt}: {format_bytes(found.stored_bytes)} in the store."
        )
        run.say(f"Its manifest: {found.url}")

    run.answer(found, show_it)


def download(
    context: typer.Context,
    checkpoint: CheckpointWord,
    to: Annotated[Path | None, typer.Argument(metavar="FOLDER", help="Where to; must not be there yet.")] = None,
    as_json: AsJson = False,
) -> None:
    """Fetch the files of a checkpoint, every one checked.

    For example: trellis checkpoints download 0199d8c2-6f3e-7a51-9d1e-2b7c4e5f6a7b model
    """
    run = here(context)
    found = run.client.checkpoints.get(checkpoint)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=run.err, transient=True) as bar:
        task = bar.add_task("checkpoint", total=found.size_bytes)
        target = to or Path(f"checkpoint-{found.id}")
        place = run.client.checkpoints.download(found, target, progress=lambda b: bar.update(task, completed=b))
    run.answer({"path": str(place)}, lambda: run.say(f"Wrote {files(found.files)} to {place}."))


def remove(
    context: typer.Context,
    checkpoints: Annotated[list[str], typer.Argument(metavar="CHECKPOINT...", help="Ids.")],
    as_json: AsJson = False,
) -> None:
    """Forget checkpoints.

    For example: trellis checkpoints remove 0199d8c2-6f3e-7a51-9d1e-2b7c4e5f6a7b
    """
    run = here(context)
    for checkpoint in checkpoints:
        run.client.checkpoints.remove(checkpoint)
    run.answer(checkpoints, lambda: run.say(f"Removed {len(checkpoints)}."))


def share(context: typer.Context, checkpoint: CheckpointWord, project: ProjectWord, as_json: AsJson = False) -> None:
    """Let another project's jobs go on from a checkpoint.

    For example: trellis checkpoints share 0199d8c2-6f3e-7a51-9d1e-2b7c4e5f6a7b 0199d8c2-1111-7a51-9d1e-2b7c4e5f6a7b
    """
    run = here(context)
    run.client.checkpoints.share(checkpoint, project)
    run.answer({"shared": checkpoint}, lambda: run.say(f"Project {project} may go on from {checkpoint}."))


def unshare(context: typer.Context, checkpoint: CheckpointWord, project: ProjectWord, as_json: AsJson = False) -> None:
    """Take that back; copies made meanwhile stay.

    For example: trellis checkpoints unshare 0199d8c2-6f3e-7a51-9d1e-2b7c4e5f6a7b 0199d8c2-1111-7a51-9d1e-2b7c4e5f6a7b
    """
    run = here(context)
    run.client.checkpoints.unshare(checkpoint, project)
    run.answer({"unshared": checkpoint}, lambda: run.say(f"Project {project} may not any more."))


def export_ticket(
    context: typer.Context,
    checkpoint: CheckpointWord,
    valid_for: Annotated[str, typer.Option("--for", help="For how long, such as 12h; up to 90 days.")] = "7d",
    as_json: AsJson = False,
) -> None:
    """Print a ticket by which another cluster, if it trusts this one, goes on from a checkpoint.

    Until the ticket runs out, retention leaves the checkpoint alone.

    For example: trellis checkpoints export 0199d8c2-6f3e-7a51-9d1e-2b7c4e5f6a7b --for 2d > ticket
    """
    run = here(context)
    issued = run.client.checkpoints.export_ticket(checkpoint, valid_for=valid_for)
    run.answer(issued, lambda: run.say(issued.ticket))


def import_ticket(
    context: typer.Context,
    ticket: Annotated[str, typer.Argument(metavar="TICKET", help="As it was printed, or - to read it from stdin.")],
    project: Annotated[str | None, typer.Option("--project", "-A", help="Whose it is to be.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make another cluster's checkpoint one that jobs here go on from; its content stays there.

    For example: trellis checkpoints import - < ticket
    """
    run = here(context)
    text = sys.stdin.read(10_000) if ticket == "-" else ticket
    found = run.client.checkpoints.import_ticket(text.strip(), project=project or "")

    def say() -> None:
        run.say(f"Imported from {found.cluster}: {files(found.files)}, {format_bytes(found.size_bytes)}.")
        run.say(f"Go on from it with `trellis submit --from-checkpoint {found.id} ...`.")

    run.answer(found, say)


def imported(
    context: typer.Context,
    project: Annotated[str | None, typer.Option("--project", "-A", help="Of this project alone.")] = None,
    as_json: AsJson = False,
) -> None:
    """List what was imported from other clusters.

    For example: trellis checkpoints imported
    """
    run = here(context)
    found = list(run.client.checkpoints.imported(project=project or ""))

    def show_all() -> None:
        if found:
            run.out.print(_imports(found))
        else:
            run.say("Nothing was imported.")

    run.answer(found, show_all)


def key(
    context: typer.Context,
    name: Annotated[str, typer.Option("--name", help="What the other cluster is to call this one.")] = "other",
    as_json: AsJson = False,
) -> None:
    """Print what another cluster's operator adds to TRELLIS_TRUSTED_CLUSTERS to trust this one.

    For example: trellis checkpoints key --name north
    """
    run = here(context)
    found = run.client.checkpoints.key()
    run.answer(found, lambda: run.say(f"{name}={found.public_key}@{found.store_url}"))


def _imports(found: list[Checkpoint]) -> Any:
    rows = [
        (
            cell(one.id),
            cell(one.cluster),
            cell("-" if one.step is None else str(one.step)),
            cell(format_bytes(one.size_bytes)),
            cell("damaged" if one.damaged else moment(one.until)),
        )
        for one in found
    ]
    return table(("ID", "CLUSTER", "STEP", "SIZE", "UNTIL"), rows, right=("STEP", "SIZE"), gives="CLUSTER")


def _table(found: list[Checkpoint]) -> Any:
    rows = [
        (
            cell(one.id),
            cell("-" if one.step is None else str(one.step)),
            cell(format_bytes(one.size_bytes)),
            cell(format_bytes(one.new_bytes)),
            cell("damaged" if one.damaged else _said(one)),
            cell(moment(one.created_at)),
        )
        for one in found
    ]
    headings = ("ID", "STEP", "SIZE", "NEW", "METRICS", "SAVED")
    return table(headings, rows, right=("STEP", "SIZE", "NEW"), gives="METRICS")


def _said(one: Checkpoint) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in list(one.metrics.items())[:3])
