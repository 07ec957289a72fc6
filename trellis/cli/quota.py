"""`trellis quota`: how much may be had."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from trellis.cli.context import AsJson, Here, here
from trellis.cli.tables import table
from trellis.cli.text import cell, cores
from trellis.errors import NotFound
from trellis.holdings import Have, Quota
from trellis.units import format_bytes, format_seconds

quota = typer.Typer(help="How much may be had.\n\nFor example: trellis quota show --project vision")
ProjectWord = Annotated[str | None, typer.Option("--project", "-A", help="Name or id; yours if you have one.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(quota, name="quota")


@quota.command("show")
def show_quota(
    context: typer.Context,
    project: ProjectWord = None,
    member: Annotated[str | None, typer.Option(help="Of this user or service account in it, by id.")] = None,
    organisation: Annotated[str | None, typer.Option(help="Of this organisation, by id, instead.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show how much may be had, and how much is.

    For example: trellis quota show --project vision
    """
    run = here(context)
    found = (
        run.client.organisations.quota(organisation)
        if organisation
        else run.client.projects.quota(_project_id(run, project), member)
    )
    run.answer(found, lambda: run.out.print(_quota_table(found)))


@quota.command("set")
def set_quota(
    context: typer.Context,
    project: ProjectWord = None,
    member: Annotated[str | None, typer.Option(help="Of this user or service account in it, by id.")] = None,
    organisation: Annotated[str | None, typer.Option(help="Of this organisation, by id, instead.")] = None,
    gpus: Annotated[str | None, typer.Option(help="Devices held at once, at most.")] = None,
    cpus: Annotated[str | None, typer.Option(help="Cores held at once, at most.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory held at once, at most.")] = None,
    jobs: Annotated[int | None, typer.Option(help="Jobs that have not ended, at most.", min=0)] = None,
    soft_gpus: Annotated[str | None, typer.Option(help="Devices above which it is told.")] = None,
    burst_gpus: Annotated[str | None, typer.Option(help="So many more, for a while.")] = None,
    burst_for: Annotated[str, typer.Option(help="How long.")] = "1h",
    burst_every: Annotated[str, typer.Option(help="Once in this time.")] = "1d",
    as_json: AsJson = False,
) -> None:
    """Set how much may be had, whole: what is not named is without a limit.

    For example: trellis quota set --project vision --gpus 8 --jobs 500
    """
    run = here(context)
    hard = {"gpus": gpus, "cpus": cpus, "memory": memory, "jobs": jobs}
    said: dict[str, Any] = {"hard": {name: value for name, value in hard.items() if value is not None}}
    if soft_gpus is not None:
        said["soft"] = {"gpus": soft_gpus}
    if burst_gpus is not None:
        said["burst"] = {"gpus": burst_gpus, "for": burst_for, "every": burst_every}
    put = (
        run.client.organisations.set_quota(organisation, **said)
        if organisation
        else run.client.projects.set_quota(_project_id(run, project), member, **said)
    )
    run.answer(put, lambda: run.out.print(_quota_table(put)))


def _project_id(run: Here, word: str | None) -> str:
    """The id that a name or id stands for; without a word that of the caller's only project. Raises NotFound."""
    found = [p for p in run.client.projects.list() if word is None or word in (p.id, p.name)]
    if len(found) == 1:
        return found[0].id
    if word is None:
        raise NotFound("which project? --project names it; `trellis whoami` lists yours")
    raise NotFound(f"there {'is no project' if not found else 'are several projects'} called {word!r}")


def _quota_table(found: Quota) -> Any:
    used, most = found.usage.held, found.most
    show: Mapping[str, Any] = {"cpu_milli": cores, "memory_bytes": format_bytes, "gpu_milli": cores}
    names = {"cpu_milli": "CPUs", "memory_bytes": "Memory", "gpu_milli": "GPUs"}

    def word(have: Have, name: str) -> str:
        value = getattr(have, name)
        return "-" if value is None else str(show[name](value))

    rows = [
        tuple(
            map(cell, (names[name], *(word(part, name) for part in (used, most, found.hard, found.soft, found.burst))))
        )
        for name in names
    ]
    jobs = ("-" if value is None else str(value) for value in (found.hard_jobs, found.hard_jobs, found.soft_jobs, None))
    rows.append(tuple(map(cell, ("Jobs", str(found.usage.jobs), *jobs))))
    made = table(
        ["", "USED", "AT MOST NOW", "HARD", "SOFT", "BURST"],
        rows,
        right=("USED", "AT MOST NOW", "HARD", "SOFT", "BURST"),
    )
    if found.burst_for_s:
        made.caption = (
            f"a burst lasts {format_seconds(found.burst_for_s)}, once in {format_seconds(found.burst_every_s)}"
        )
    return made
