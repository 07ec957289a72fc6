"""`trellis up`, `down` and `status`: commands for whoever runs the platform on this machine."""

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import psutil
import typer
from rich.console import Console

from app.cli import accounts, running, state
from app.cli import status as statuses
from app.cli.cluster import Machine, alike, read_cluster, read_profile
from app.cli.errors import StackError
from app.cli.home import choose_home, holder
from app.cli.stack import Options
from trellis.settings import SettingsError

FAILED = 1
INTERRUPTED = 130
Port = Annotated[int, typer.Option(min=1, max=65535)]


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Run in the background.")] = False,
    nodes: Annotated[int, typer.Option(help="How many nodes.", min=1, max=64)] = 1,
    profile: Annotated[str, typer.Option(help="What each node claims to be, such as h100x8.")] = "",
    cluster: Annotated[Path | None, typer.Option(help="A cluster.yaml that names the nodes.")] = None,
    simulate: Annotated[Path | None, typer.Option(help="A profile of a cluster to simulate, jobs and all.")] = None,
    port: Port = 8420,
    flower_port: Port = 8421,
    no_example: Annotated[bool, typer.Option("--no-example", help="Submit no example job.")] = False,
    machines_json: Annotated[str, typer.Option("--machines", hidden=True)] = "",
    report_fd: Annotated[int, typer.Option(hidden=True)] = -1,
) -> None:
    """Run the whole platform on this machine; Ctrl-C stops it.

    For example: trellis up --detach --simulate examples/profile.yaml
    """
    console = Console()
    with sentences(console):
        machines = alike(nodes, profile) if cluster is None else read_cluster(cluster)
        if machines_json:  # from `up --detach`, which has read them
            machines = tuple(Machine(**machine) for machine in json.loads(machines_json))
        if simulate is not None and cluster is not None:
            raise StackError("A cluster is either simulated or not: --simulate FILE goes without --cluster.")
        plan = None if simulate is None else read_profile(simulate)
        options = Options(_home(), dict(os.environ), machines, port, flower_port, plan, simulate)
        if report_fd >= 0:
            running.for_another(options, report_fd)
            return
        if options.home.parent != Path.cwd():
            console.print(f"Everything is kept in {options.home}.", highlight=False, soft_wrap=True)
        wanted = not no_example and plan is None
        after = running.Example(console, options.home, wanted=wanted, cluster=simulate or cluster)
        start = running.in_background if detach else running.in_foreground
        start(options, console, after)


def down(
    timeout: Annotated[float, typer.Option(help="Seconds to wait before it is killed.", min=1)] = 90.0,
) -> None:
    """Stop the stack that `trellis up` started.

    For example: trellis down --timeout 20
    """
    console = Console()
    with sentences(console):
        home = _home()
        pid = holder(home)
        if pid is not None:
            _end(pid, timeout)
        left = state.stop_leftovers(home / "state.json", timeout_s=10.0)
        (home / "state.json").unlink(missing_ok=True)
        console.print("Stopped." if pid or left else f"Nothing runs on {home}.", highlight=False, soft_wrap=True)


def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show what of the stack runs on this machine, as whom, for how long; exit code 1 unless all of it does.

    For example: trellis status --json
    """
    console = Console()
    with sentences(console):
        found = statuses.look(_home())
        if as_json:
            typer.echo(json.dumps(asdict(found)))
        else:
            statuses.show(found, console)
        if not found.up:
            raise typer.Exit(FAILED)


@contextmanager
def sentences(console: Console) -> Iterator[None]:
    """What keeps us from going on becomes a sentence and an exit code, never a traceback."""
    try:
        yield
    except (StackError, SettingsError) as error:
        _complain(console, str(error))
        raise typer.Exit(FAILED) from error
    except OSError as error:
        _complain(console, f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error


def run_up() -> None:
    """`up` as a process of its own."""
    typer.run(up)


def _complain(console: Console, sentence: str) -> None:
    console.print(f"trellis: {sentence}", style="red", markup=False, highlight=False, soft_wrap=True)


def _home() -> Path:
    return choose_home(os.environ.get("TRELLIS_HOME"), Path.cwd(), accounts.for_servers())


def _end(pid: int, timeout_s: float) -> None:
    try:
        state.end(psutil.Process(pid), signal.SIGTERM, timeout_s)
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as error:
        raise StackError(f"The stack (pid {pid}) belongs to another user: stop it as that user.") from error
