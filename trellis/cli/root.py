"""The top of the `trellis` command: what it is made of."""

from typing import Annotated

import typer

import trellis
from trellis.cli import (
    account,
    artifacts,
    bundles,
    changes,
    checkpoints,
    cluster,
    doctoring,
    features,
    groups,
    holdings,
    jobs,
    logs,
    machines,
    metrics,
    pipelines,
    policy,
    quota,
    submit,
    usage,
    watching,
    whatif,
)
from trellis.cli.context import AsJson
from trellis.cli.extras import Root

app = typer.Typer(
    cls=Root,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Run jobs on Trellis.\n\nFor example: trellis submit --gpus 1 -- python train.py",
)
submit.register(app)
bundles.register(app)
jobs.register(app)
changes.register(app)
groups.register(app)
pipelines.register(app)
logs.register(app)
metrics.register(app)
checkpoints.register(app)
artifacts.register(app)
watching.register(app)
whatif.register(app)
cluster.register(app)
machines.register(app)
doctoring.register(app)
holdings.register(app)
usage.register(app)
quota.register(app)
policy.register(app)
features.register(app)
account.register(app)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"trellis {trellis.__version__}")
        raise typer.Exit


@app.callback()
def top(
    as_json: AsJson = False,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_version)
    ] = False,
) -> None:
    """Holds the options that come before a command; their callbacks do the work."""
