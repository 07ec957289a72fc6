"""`trellis metrics`: what a job reported, and what it used."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from statistics import median_low
from typing import Annotated

import typer
from rich.text import Text

from trellis.answers import Series
from trellis.cli.context import AsJson, Here, JobWord, here
from trellis.cli.options import when
from trellis.cli.plot import curve
from trellis.cli.tables import table
from trellis.cli.text import cell, moment, safe
from trellis.errors import Field, Invalid
from trellis.units import parse_seconds

_WIDTH, _HEIGHT, _MARGIN, _SPARK = 72, 10, 11, 24
# A pause is one that is so many times as long as usual.
_USUAL_GAP = 2.5


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(metrics)


def metrics(
    context: typer.Context,
    job: JobWord,
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="Which; all of them if not said.")
    ] = None,
    since: Annotated[str | None, typer.Option("--from", help="A time, such as 2026-01-31T12:00.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="A time, likewise.")] = None,
    resolution: Annotated[str | None, typer.Option(help="One point for so long, such as 30s or 5m.")] = None,
    agg: Annotated[str, typer.Option(help="mean, min, max, sum or last of each of them.")] = "mean",
    replica: Annotated[int | None, typer.Option(help="Of this replica alone.", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a job reported and what it used: one line each, or a curve of each NAME.

    For example: trellis metrics last loss trellis/cpu_cores
    """
    run = here(context)
    found = run.client.jobs.series(
        run.job_id(job), names or None, start=when("from", since), end=when("to", until),
        resolution=_seconds(resolution), agg=agg, replica=replica,
    )  # fmt: skip
    run.answer(found, lambda: _show(run, found, curves=bool(names)))


def _seconds(text: str | None) -> int | None:
    try:
        return None if text is None else parse_seconds(text)
    except ValueError as error:
        raise Invalid(Field("--resolution", str(error))) from error


def _show(run: Here, found: Sequence[Series], *, curves: bool) -> None:
    if not any(series.points for series in found):
        run.say("Nothing was measured in that time.")
    elif curves:
        for series in found:
            _draw(run, series)
    else:
        rows = [_row(series) for series in found if series.points]
        run.out.print(
            table(["NAME", "LAST", "LEAST", "MOST", "OVER TIME"], rows, right=("LAST", "LEAST", "MOST"), gives="NAME")
        )


def _row(series: Series) -> tuple[Text, ...]:
    values = [point.value for point in series.points]
    drawn = curve(_with_gaps(series), _SPARK, 1)[0]
    return (cell(series.name), *(cell(_short(value)) for value in (values[-1], min(values), max(values))), Text(drawn))


def _draw(run: Here, series: Series) -> None:
    run.say(f"{safe(series.name)}, {series.agg} of every {series.resolution_s} s")
    if not series.points:
        run.say("  nothing in that time")
        return
    values = [point.value for point in series.points]
    lines = curve(_with_gaps(series), _WIDTH, _HEIGHT)
    edges = {0: _short(max(values)), len(lines) - 1: _short(min(values))}
    for number, line in enumerate(lines):
        run.say(f"{edges.get(number, ''):>{_MARGIN}} {line}")
    first, last = moment(series.points[0].at), moment(series.points[-1].at)
    run.say(f"{'':>{_MARGIN}} {first}{last:>{_WIDTH - len(first)}}")
    run.say("")


def _with_gaps(series: Series) -> list[float | None]:
    """A value a step of time from the first to the last; None where nothing was measured for longer than it usually is."""
    known = {point.at: point.value for point in series.points if point.at is not None}
    begin, step = min(known), timedelta(seconds=series.resolution_s)
    steps = {round((at - begin) / step): value for at, value in known.items()}
    places = sorted(steps)
    apart = median_low([later - earlier for earlier, later in pairwise(places)] or [1])
    filled: list[float | None] = []
    for earlier, later in pairwise(places):
        held = later - earlier <= _USUAL_GAP * apart
        filled += [steps[earlier], *[steps[earlier] if held else None] * (later - earlier - 1)]
    return [*filled, steps[places[-1]]]


def _short(value: float) -> str:
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if abs(value) >= size:
            return f"{value / size:.3g}{unit}"
    return f"{value:.4g}"
