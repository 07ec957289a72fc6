"""`trellis metrics`: what a job reported, and what it used."""

import csv
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.live import Live
from rich.text import Text

from trellis.answers import Series
from trellis.cli.context import AsJson, Here, JobWord, here
from trellis.cli.options import when
from trellis.cli.picture import check_picture, write_picture
from trellis.cli.plot import curve
from trellis.cli.tables import table
from trellis.cli.text import cell, moment, safe, short
from trellis.errors import Field, Invalid, NotFound
from trellis.units import parse_seconds

_WIDTH, _HEIGHT, _MARGIN, _SPARK = 72, 10, 11, 24
# A pause is one that is so many times as long as usual.
_USUAL_GAP = 2.5
_FORMULA = ("=", "+", "-", "@", "\t")


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
    each_replica: Annotated[bool, typer.Option("--each-replica", help="Each replica by itself.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show it again and again, until the job ends.")] = False,
    interval: Annotated[float, typer.Option(help="Seconds between two looks.", min=0.5, max=3600)] = 2.0,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the points as CSV.")] = False,
    svg: Annotated[Path | None, typer.Option(help="Write the curves to this file.")] = None,
    png: Annotated[Path | None, typer.Option(help="Likewise; needs the extra `draw`.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a job reported and what it used: one line each, or a curve of each NAME.

    For example: trellis metrics last loss trellis/cpu_cores --watch
    """
    run = here(context)
    for option, path, ending in (("--svg", svg, ".svg"), ("--png", png, ".png")):
        if path is not None:
            check_picture(option, path, ending)
    if watch and (run.as_json or as_csv or svg or png):
        raise Invalid(Field("--watch", "is for people: leave it out for --json, --csv, --svg and --png"))
    job_id = run.job_id(job)
    ask = partial(
        run.client.jobs.series, job_id, names or None, start=when("from", since), end=when("to", until),
        resolution=_seconds(resolution), agg=agg, replica=replica, each_replica=each_replica,
    )  # fmt: skip
    if watch:
        _watch(run, job_id, interval, lambda: _drawn(ask(), curves=bool(names)))
        return
    found = ask()
    if as_csv:
        _print_csv(found)
        return
    for path in filter(None, (svg, png)):
        _write(run, path, job_id, found)
    if not (svg or png):
        run.answer(found, lambda: run.out.print(_drawn(found, curves=bool(names)), end=""))


def _watch(run: Here, job_id: str, interval: float, draw: Callable[[], RenderableType]) -> None:
    """Until the job has ended, and was looked at once more after that; Ctrl-C ends it sooner."""
    try:
        with Live(draw(), console=run.out, screen=run.out.is_terminal, auto_refresh=False) as live:
            while run.client.jobs.get(job_id).ended_at is None:
                time.sleep(interval)
                live.update(draw(), refresh=True)
    except KeyboardInterrupt:
        return
    if run.out.is_terminal:  # the screen it was on is gone
        run.out.print(draw(), end="")


def _print_csv(found: Sequence[Series]) -> None:
    """One row a point; words that a spreadsheet would take for a formula are given as words."""
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(["name", "replica", "at", "value", "count"])
    for series in found:
        name = f"'{series.name}" if series.name.startswith(_FORMULA) else series.name
        for point in series.points:
            at = "" if point.at is None else point.at.isoformat()
            out.writerow([name, series.replica, at, repr(point.value), point.count])


def _write(run: Here, path: Path, job_id: str, found: Sequence[Series]) -> None:
    if not any(series.points for series in found):
        raise NotFound("nothing was measured in that time: there is nothing to draw")
    try:
        write_picture(path, f"Job {job_id}", found)
    except OSError as error:
        raise Invalid(Field("--svg" if path.suffix == ".svg" else "--png", f"{path}: {error.strerror}")) from error
    run.note(f"written to {path}")


def _seconds(text: str | None) -> int | None:
    try:
        return None if text is None else parse_seconds(text)
    except ValueError as error:
        raise Invalid(Field("--resolution", str(error))) from error


def _drawn(found: Sequence[Series], *, curves: bool) -> RenderableType:
    if not any(series.points for series in found):
        return Text("Nothing was measured in that time.\n")
    if curves:
        return Text("\n".join(line for series in found for line in _curve(series)) + "\n", no_wrap=True)
    rows = [_row(series) for series in found if series.points]
    headings = ["NAME", "LAST", "LEAST", "MOST", "OVER TIME"]
    return Group(table(headings, rows, right=("LAST", "LEAST", "MOST"), gives="NAME"))


def _called(series: Series) -> str:
    return series.name if series.replica is None else f"{series.name} [{series.replica}]"


def _row(series: Series) -> tuple[Text, ...]:
    values = [point.value for point in series.points]
    drawn = curve(_with_gaps(series), _SPARK, 1)[0]
    return (
        cell(_called(series)), *(cell(short(value)) for value in (values[-1], min(values), max(values))), Text(drawn),
    )  # fmt: skip


def _curve(series: Series) -> Iterator[str]:
    yield f"{safe(_called(series))}, {series.agg} of every {series.resolution_s} s"
    if not series.points:
        yield "  nothing in that time"
        return
    values = [point.value for point in series.points]
    lines = curve(_with_gaps(series), _WIDTH, _HEIGHT)
    edges = {0: short(max(values)), len(lines) - 1: short(min(values))}
    for number, line in enumerate(lines):
        yield f"{edges.get(number, ''):>{_MARGIN}} {line}"
    first, last = moment(series.points[0].at), moment(series.points[-1].at)
    yield f"{'':>{_MARGIN}} {first}{last:>{_WIDTH - len(first)}}"
    yield ""


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
