"""`trellis scheduling policy`: how jobs are ranked and placed."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from trellis.cli.context import AsJson, here
from trellis.cli.files import read_yaml
from trellis.cli.tables import table
from trellis.cli.text import cell, moment

scheduling = typer.Typer(help="How jobs are ranked and placed.\n\nFor example: trellis scheduling policy show")
policy = typer.Typer(help="The scheduling policy.\n\nFor example: trellis scheduling policy apply -f scheduler.yaml")
scheduling.add_typer(policy, name="policy")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.add_typer(scheduling, name="scheduling")


@policy.command()
def show(
    context: typer.Context,
    version: Annotated[int | None, typer.Option(help="An earlier one.", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """Show the policy in force, as a file that `apply` takes.

    For example: trellis scheduling policy show > scheduler.yaml
    """
    run = here(context)
    found = run.client.scheduling.policy(version)
    run.answer(found, lambda: typer.echo(yaml.safe_dump(dict(found), sort_keys=False).rstrip()))


@policy.command()
def apply(
    context: typer.Context,
    file: Annotated[Path, typer.Option("--file", "-f", help="A scheduler.yaml.")],
    expected: Annotated[int | None, typer.Option(help="Only if this version is in force.", min=0)] = None,
    as_json: AsJson = False,
) -> None:
    """Put a policy in force, whole: what the file leaves out is as it is by default.

    For example: trellis scheduling policy apply -f scheduler.yaml
    """
    run = here(context)
    put = run.client.scheduling.set_policy(read_yaml("file", file), expected=expected)
    version = run.client.scheduling.newest().version
    run.answer(put, lambda: run.say(f"Version {version} of the policy is in force, from the next cycle on."))


@policy.command()
def versions(context: typer.Context, as_json: AsJson = False) -> None:
    """List the versions there were, the newest first.

    For example: trellis scheduling policy versions
    """
    run = here(context)
    found = list(run.client.scheduling.versions())
    rows = [
        (cell(v.version), cell(moment(v.created_at)), cell(v.actor), cell(v.policy.get("primary_policy")))
        for v in found
    ]
    headings = ["VERSION", "SINCE", "BY", "PRIMARY POLICY"]

    def show() -> None:
        if rows:
            run.out.print(table(headings, rows, right=("VERSION",), gives="BY"))
        else:
            run.say(
                "None was ever put in force: the built-in policy holds; `trellis scheduling policy show` prints it."
            )

    run.answer(found, show)
