"""`trellis what-if`: where a job would run, when, and who would go for it, before it is submitted."""

from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Annotated, Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from trellis.cli.context import FAILED, AsJson, Here, here
from trellis.cli.tables import table
from trellis.cli.text import cell, moment, safe, span
from trellis.errors import Field, Invalid
from trellis.foresight import Copy, DisplacedJob, WhatIf

_CERTAINTY = {
    "promised": "at the latest",
    "expected": "if limits are used up",
    "later": "not before",
    "unknown": "nobody can say",
    "never": "never",
}


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("what-if")(what_if)


def what_if(
    context: typer.Context,
    gpus: Annotated[str | None, typer.Option("--gpus", "-G", help="Devices a replica, such as 1 or 0.5.")] = None,
    gpu_type: Annotated[str | None, typer.Option(help="Their type, such as H100.")] = None,
    cpus: Annotated[str | None, typer.Option("--cpus", "-c", help="Cores a replica, such as 2 or 500m.")] = None,
    mem: Annotated[str | None, typer.Option("--mem", help="Memory a replica, such as 16GiB.")] = None,
    replicas: Annotated[int | None, typer.Option("--replicas", "-N", help="Started together or not at all.")] = None,
    time: Annotated[str | None, typer.Option("--time", "-t", help="Longest run, such as 90s, 2h.")] = None,
    priority: Annotated[int | None, typer.Option(help="From -1000 to 1000; higher goes first.")] = None,
    project: Annotated[str | None, typer.Option("--project", "-A", help="Name or id; yours if you have one.")] = None,
    queue: Annotated[str | None, typer.Option("--queue", "-p", help="Where it would wait.")] = None,
    copies: Annotated[int, typer.Option(help="So many such jobs.", min=1, max=100)] = 1,
    more: Annotated[
        list[str] | None,
        typer.Option(help="Nodes more, LIKE or LIKE=COUNT, like a node or profile; may be given again."),
    ] = None,
    without: Annotated[
        list[str] | None, typer.Option(help="As if this node were gone with all on it; may be given again.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say where and when a job would start if it were submitted now, and who would go for it. Nothing is changed.

    `trellis submit --dry-run` asks the same of anything that can be submitted. The exit code is 1 where it could never start.

    For example: trellis what-if --gpus 8 --replicas 4 --gpu-type h100 --more gpu-1=2
    """
    run = here(context)
    resources = {"cpus": cpus, "memory": mem, "gpus": gpus, "gpu_type": gpu_type}
    given = {
        "resources": {name: value for name, value in resources.items() if value is not None},
        "replicas": replicas, "time_limit": time, "priority": priority, "project": project, "queue": queue,
    }  # fmt: skip
    job: dict[str, Any] = {name: value for name, value in given.items() if value not in (None, {})}
    show(run, run.client.resources.what_if(copies=copies, more=_counts(more), without=without or (), **job))


def show(run: Here, told: WhatIf) -> None:
    """Print an answer; one that says never, or refused, is a failure to whoever reads exit codes."""
    run.answer(told, lambda: run.out.print(picture(told)))
    if told.refused or not told.could_ever_start:
        raise typer.Exit(FAILED)


def picture(told: WhatIf) -> RenderableType:
    """The answer as a person reads it: in a sentence, copy by copy, who goes."""
    parts: list[RenderableType] = [Text(_sum_up(told), style="bold")]
    if told.refused:
        parts.append(Text(safe(f"The submission would be refused: {told.refused}.")))
    if told.why:
        parts.append(Text(safe(f"Why{' those that wait' if told.starting_now else ''}: {told.why.message}.")))
    parts += [Text(), _copies(told.copies)]
    displaced = told.displaced
    if displaced.jobs or displaced.others:
        parts += [Text(), Text("To make room, these would go:", style="bold")]
        parts += [_goers(displaced.jobs)] if displaced.jobs else []
        parts += [Text(_jobs(displaced.others, "of others"))] if displaced.others else []
    if told.requeued:
        parts.append(Text(f"For the nodes taken away {_jobs(told.requeued, 'would wait again')}."))
    return Group(*parts)


def _sum_up(told: WhatIf) -> str:
    queue = f" in queue {safe(told.queue)}"
    if not told.could_ever_start:
        return f"It could never start{queue}."
    if len(told.copies) == 1:
        return f"It would {'start now' if told.starting_now else 'wait'}{queue}."
    return f"{told.starting_now} of {len(told.copies)} would start now{queue}."


def _copies(copies: Iterable[Copy]) -> RenderableType:
    headings = ["COPY", "STARTS", "HOW SURE", "PLACE", "NODES"]
    rows = [
        tuple(
            cell(word)
            for word in (number, _start(one), _CERTAINTY.get(one.certainty, ""), one.position or "-", _where(one))
        )
        for number, one in enumerate(copies, 1)
    ]
    return table(headings, rows, right=("COPY", "PLACE"), gives="NODES")


def _start(copy: Copy) -> str:
    return "now" if copy.certainty == "now" else moment(copy.starts_at or copy.not_before)


def _where(copy: Copy) -> str:
    """Nodes with the devices on each, or the nodes alone where the devices are not settled."""
    devices: dict[str, set[int]] = {name: set() for name in copy.nodes}
    for seat in copy.replicas:
        devices.setdefault(seat.node, set()).update(int(part["index"]) for part in (*seat.gpus, *seat.slices))
    return ", ".join(f"{name} [{_spans(sorted(used))}]" if used else name for name, used in devices.items()) or "-"


def _spans(numbers: list[int]) -> str:
    """`0-3,6` of 0, 1, 2, 3, 6."""
    breaks = [after for before, after in pairwise(numbers) if after != before + 1]
    starts = [numbers[0], *breaks]
    ends = [*(numbers[numbers.index(start) - 1] for start in breaks), numbers[-1]]
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in zip(starts, ends, strict=True))


def _goers(jobs: Iterable[DisplacedJob]) -> RenderableType:
    rows = [
        tuple(cell(word) for word in (one.job_id, one.name, one.priority, one.how, span(one.grace_s))) for one in jobs
    ]
    return table(["JOB", "NAME", "PRIORITY", "HOW", "GRACE"], rows, right=("PRIORITY", "GRACE"), gives="NAME")


def _jobs(count: int, what: str) -> str:
    return f"{count} {'job' if count == 1 else 'jobs'} {what}"


def _counts(words: Iterable[str] | None) -> Mapping[str, int]:
    found: dict[str, int] = {}
    for word in words or ():
        like, equals, count = word.partition("=")
        if not like or (equals and not (count.isascii() and count.isdigit() and len(count) < 6)):
            raise Invalid(Field("--more", f"must be LIKE or LIKE=COUNT, such as gpu-1=2, not {word!r}"))
        found[like] = found.get(like, 0) + (int(count) if equals else 1)
    return found
