"""`trellis usage`: who held how much, over time."""

import csv
import sys
from datetime import datetime
from typing import Annotated, Any

import typer
from rich.table import Table

from trellis.cli.context import AsJson, here
from trellis.cli.options import when
from trellis.cli.tables import table
from trellis.cli.text import cell, moment
from trellis.errors import Field, Invalid
from trellis.holdings import Usage
from trellis.units import parse_seconds

KEYS = ("project", "user", "queue", "gpu_type")
AMOUNTS = ("cpu_hours", "memory_gib_hours", "gpu_hours", "idle_gpu_hours", "jobs")
# What a program that opens a table would take for a formula, where it begins a cell.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(usage)


def usage(
    context: typer.Context,
    since: Annotated[str, typer.Option(help="So long ago, such as 7d, or a date.")] = "7d",
    until: Annotated[str | None, typer.Option(help="A date; now if left out.")] = None,
    by: Annotated[list[str] | None, typer.Option(help=f"One of {', '.join(KEYS)}; may be given again.")] = None,
    bucket: Annotated[str | None, typer.Option(help="In pieces of this length, such as 1d.")] = None,
    project_id: Annotated[str | None, typer.Option(help="Of this project alone.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: AsJson = False,
) -> None:
    """Sum up what was held: CPU, memory and GPU hours, and those in which devices did nothing.

    For example: trellis usage --since 7d --by project --bucket 1d
    """
    run = here(context)
    for key in by or ():
        if key not in KEYS:
            raise Invalid(Field("--by", f"must be one of {', '.join(KEYS)}, not {key!r}"))
    found = run.client.resources.usage(
        **_span(since), until=when("until", until), by=by or (), bucket=bucket, project_id=project_id
    )
    keys = [*(["starts_at"] if bucket else []), *(by or ())]
    if as_csv:
        _write_csv(found, keys)
    else:
        run.answer(found, lambda: run.out.print(_table(found, keys)))


def _span(since: str) -> dict[str, Any]:
    """Since a date, or for so long."""
    try:
        return {"since": datetime.fromisoformat(since).astimezone()}
    except ValueError:
        pass
    try:
        return {"last": parse_seconds(since)}
    except ValueError as error:
        raise Invalid(Field("--since", f"must be such as 7d or 2026-01-31, not {since!r}")) from error


def _table(found: Usage, keys: list[str]) -> Table:
    headings = [key.replace("_", " ").upper() for key in keys]
    headings += ["CPU HOURS", "MEMORY GIB HOURS", "GPU HOURS", "OF THEM IDLE", "JOBS"]
    rows = []
    for one in found.items:
        named = [moment(one.starts_at) if key == "starts_at" else getattr(one, key) or "-" for key in keys]
        amounts = [f"{getattr(one, name):,.1f}" for name in AMOUNTS[:-1]]
        rows.append(tuple(cell(word) for word in (*named, *amounts, f"{one.jobs:,}")))
    return table(headings, rows, right=headings[len(keys) :], gives=headings[0])


def _write_csv(found: Usage, keys: list[str]) -> None:
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow([*keys, *AMOUNTS])
    for one in found.items:
        named = [
            one.starts_at.isoformat() if key == "starts_at" and one.starts_at else getattr(one, key) for key in keys
        ]
        out.writerow([*map(_harmless, named), *(getattr(one, name) for name in AMOUNTS)])


def _harmless(value: object) -> str:
    """A name as text: spreadsheets run what looks like a formula."""
    text = "" if value is None else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
