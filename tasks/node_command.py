"""`trellis node`: one node, in the foreground, until it is told to stop."""

import logging
import os
import time
from pathlib import Path
from typing import Annotated

import typer

from agent.daemon import Daemon
from agent.link import Link
from agent.settings import NodeSettings
from tasks.node import make_worker_app
from trellis.errors import Unavailable
from trellis.settings import SettingsError, load
from trellis.wire import Welcome

log = logging.getLogger(__name__)
RETRY_S = 1.0


def node(
    join: Annotated[str, typer.Option(help="The control plane, such as http://10.0.0.5:8420.")] = "",
    token: Annotated[str, typer.Option(help="A join token; better in TRELLIS_JOIN_TOKEN or _FILE.")] = "",
    name: Annotated[str, typer.Option(help="What the node is called; the host's name if not said.")] = "",
    profile: Annotated[str, typer.Option(help="Offer the devices of a profile, such as h100x8.")] = "",
    home: Annotated[Path | None, typer.Option(help="Where the node keeps its replicas.")] = None,
    cpus: Annotated[float, typer.Option(help="Offer so many CPUs in place of what is there.", min=0)] = 0.0,
) -> None:
    """Make this machine a node. Example: trellis node --join http://10.0.0.5:8420 --token trj_..."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    try:
        settings = _settings(join, token, name, profile, home, cpus)
        daemon = Daemon(settings, Link(settings.url))
        welcome = _join(daemon, settings.url)
    except SettingsError as error:
        typer.secho(f"trellis: {error}", err=True, fg="red")
        raise typer.Exit(1) from error
    app = make_worker_app(welcome.broker_url, daemon)
    app.worker_main(
        ["worker", "-Q", welcome.queue, "-n", f"node-{settings.name or 'node'}@%h", "--loglevel", "INFO",
         "--without-gossip", "--without-mingle", "-E"]
    )  # fmt: skip


def _settings(join: str, token: str, name: str, profile: str, home: Path | None, cpus: float) -> NodeSettings:
    given = {"URL": join, "JOIN_TOKEN": token, "NAME": name, "PROFILE": profile, "HOME": home, "CPUS": cpus or ""}
    told = {f"TRELLIS_{word}": str(value) for word, value in given.items() if value}
    return load(NodeSettings, {**os.environ, **told})


def _join(daemon: Daemon, url: str) -> Welcome:
    """Join as soon as the control plane answers."""
    while True:
        try:
            return daemon.join()
        except Unavailable as error:
            log.warning("waiting for the control plane at %s: %s", url, error)
            time.sleep(RETRY_S)


if __name__ == "__main__":
    typer.run(node)
