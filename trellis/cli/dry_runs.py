"""What `--dry-run` says: what would be stored, what it would hold, where and when it would start, or why not."""

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from trellis.cli.context import FAILED, Here
from trellis.cli.tables import table
from trellis.cli.text import cell, cores, safe
from trellis.cli.whatif import picture
from trellis.foresight import DryJob, DryRun, Held
from trellis.units import format_bytes

_SHOWN = 50


def show(run: Here, told: DryRun) -> None:
    """Print an answer; one that says refused, or never, is a failure to whoever reads exit codes."""
    run.answer(told, lambda: run.out.print(_drawn(told)))
    if told.refused or not told.could_ever_start:
        raise typer.Exit(FAILED)


def _drawn(told: DryRun) -> RenderableType:
    many = "1 job" if told.count == 1 else f"{told.count} jobs"
    verdict = f"would be refused: {told.refused}" if told.refused else "would be accepted"
    parts: list[RenderableType] = [Text(safe(f"Nothing was submitted: {many} {verdict}."), style="bold")]
    headings = ["NAME", "COUNT", "PROJECT", "QUEUE", "CPUS", "MEMORY", "GPUS", "GPU-HOURS", "WHAT THEN"]
    numbers = ("COUNT", "CPUS", "MEMORY", "GPUS", "GPU-HOURS")
    rows = [_row(job) for job in told.jobs[:_SHOWN]]
    if len(told.jobs) > 1:
        rows.append(tuple(cell(word) for word in ("together", told.count, "", "", *_amounts(told.total), "")))
    parts += [Text(), table(headings, rows, right=numbers, gives="NAME")]
    if len(told.jobs) > _SHOWN:
        parts.append(Text(f"and {len(told.jobs) - _SHOWN} more; --json shows all, each as it would be stored"))
    for number, forecast in enumerate(told.forecasts):
        title = [] if len(told.forecasts) == 1 else [Text(f"Forecast {number}", style="bold")]
        parts += [Text(), *title, picture(forecast)]
    return Group(*parts)


def _row(job: DryJob) -> tuple[Text, ...]:
    if job.forecast is not None:
        then = f"forecast {job.forecast}"
    else:
        then = f"waits for {', '.join(job.waits_for)}" if job.waits_for else "not looked at: too many kinds"
    return tuple(cell(word) for word in (job.name, job.count, job.project, job.queue, *_amounts(job.total), then))


def _amounts(held: Held) -> tuple[str, ...]:
    hours = "no limit" if held.gpu_seconds_at_most is None else f"{held.gpu_seconds_at_most / 3600:.4g}"
    return cores(held.cpu_milli), format_bytes(held.memory_bytes), cores(held.gpu_milli), hours
