"""`trellis up`, `down`, `status` and `server`: commands for whoever runs the platform on this machine."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated

import psutil
import typer
from rich.console import Console
from rich.table import Table

from app.cli import accounts, bootstrap, state
from app.cli.errors import StackError
from app.cli.example import Login, run_example, show_next
from app.cli.home import choose_home, holder
from app.cli.progress import Pipe, Reporter, Screen, replay
from app.cli.stack import CODE, Options, Stack
from trellis.settings import SettingsError
from trellis.units import format_bytes, format_seconds

FAILED = 1
INTERRUPTED = 130
Port = Annotated[int, typer.Option(min=1, max=65535)]

server = typer.Typer(help="Run single parts of the control plane by hand.", no_args_is_help=True)


def up(
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Run in the background.")] = False,
    nodes: Annotated[int, typer.Option(help="How many nodes.", min=1, max=64)] = 1,
    profile: Annotated[str, typer.Option(help="What each node claims to be, such as h100x8.")] = "",
    port: Port = 8420,
    flower_port: Port = 8421,
    no_example: Annotated[bool, typer.Option("--no-example", help="Submit no example job.")] = False,
    report_fd: Annotated[int, typer.Option(hidden=True)] = -1,
) -> None:
    """Run the whole platform on this machine; Ctrl-C stops it."""
    console = Console()
    with sentences(console):
        options = Options(_home(), dict(os.environ), nodes, profile, port, flower_port)
        if report_fd >= 0:
            _serve(Stack(options, pipe := Pipe(report_fd)), pipe)
            return
        after = Example(console, options.home, wanted=not no_example)
        if detach:
            _detach(options, console, after)
        else:
            _foreground(options, console, after)


def down(
    timeout: Annotated[float, typer.Option(help="Seconds to wait before it is killed.", min=1)] = 90.0,
) -> None:
    """Stop the stack that `trellis up` started."""
    console = Console()
    with sentences(console):
        home = _home()
        pid = holder(home)
        if pid is not None:
            _end(pid, timeout)
        left = state.stop_leftovers(home / "state.json", timeout_s=10.0)
        console.print("Stopped." if pid or left else f"Nothing runs on {home}.", highlight=False)


def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show what of the stack runs on this machine, as whom, since when."""
    console = Console()
    with sentences(console):
        home = _home()
        seen = state.read(home / "state.json")
        rows = [_row(entry) for entry in seen.entries]
        well = seen.up and holder(home) is not None and all(row["state"] == "running" for row in rows)
        if as_json:
            print(json.dumps({"up": well, "home": str(home), "urls": seen.urls, "services": rows}))  # noqa: T201
        elif not rows:
            console.print(f"Nothing runs on {home}. `trellis up` starts it.", highlight=False)
        else:
            _show(rows, seen.urls, console)
        if not well:
            raise typer.Exit(FAILED)


@server.command()
def migrate() -> None:
    """Bring the schema of TRELLIS_DATABASE_URL to the newest revision."""
    with sentences(Console()):
        bootstrap.migrate()


@contextmanager
def sentences(console: Console) -> Iterator[None]:
    """What keeps us from going on becomes a sentence and an exit code, never a traceback."""
    try:
        yield
    except (StackError, SettingsError) as error:
        console.print(f"trellis: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(FAILED) from error
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        console.print(f"trellis: {error.strerror or error}{where}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(FAILED) from error
    except KeyboardInterrupt as error:
        raise typer.Exit(INTERRUPTED) from error


class Example:
    """What `up` shows once everything runs."""

    def __init__(self, console: Console, home: Path, *, wanted: bool) -> None:
        self._console, self._home, self._wanted = console, home, wanted

    def show(self, urls: dict[str, str]) -> None:
        """Run the example if it is wanted, then tell where things are."""
        login = Login(**json.loads((self._home / "client.json").read_text()))
        job = run_example(login, CODE, self._console) if self._wanted else None
        show_next(urls, job, self._console)


def _foreground(options: Options, console: Console, after: Example) -> None:
    if options.home.parent != Path.cwd():
        console.print(f"Everything is kept in {options.home}.", highlight=False)
    with Screen(console) as screen:
        stack = Stack(options, screen)
        with _ended_by_signals(stack, screen):
            stack.start()
            screen.__exit__()
            after.show(stack.urls)
            console.print("Running; Ctrl-C stops everything.", highlight=False)
            threading.Event().wait()


def _serve(stack: Stack, pipe: Pipe) -> None:
    with _ended_by_signals(stack, pipe):
        try:
            stack.start()
        except (StackError, OSError) as error:
            pipe.tell({"failed": str(error)})
            raise
        pipe.tell({"up": stack.urls})
        pipe.close()
        threading.Event().wait()


@contextmanager
def _ended_by_signals(stack: Stack, reporter: Reporter) -> Iterator[None]:
    """Run until SIGINT, SIGTERM or SIGHUP, then stop in order; a second signal kills instead."""

    def begin(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    def hurry(number: int, frame: FrameType | None) -> None:
        stack.kill()

    def handle(handler: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, handler)  # type: ignore[arg-type]

    handle(begin)
    try:
        yield
    except KeyboardInterrupt:
        handle(hurry)
        reporter.say("\nStopping; once more to kill.")
    finally:
        handle(hurry)
        stack.stop()
        reporter.say("Stopped.")


def _detach(options: Options, console: Console, after: Example) -> None:
    reading, writing = os.pipe()
    argv = [
        sys.executable, "-c", "from app.cli.commands import run_up; run_up()", "--report-fd", str(writing),
        "--nodes", str(options.nodes), "--profile", options.profile, "--port", str(options.port),
        "--flower-port", str(options.flower_port),
    ]  # fmt: skip
    environment = {**options.environment, "TRELLIS_HOME": str(options.home)}
    child = subprocess.Popen(
        argv, env=environment, pass_fds=(writing,), start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writing)
    urls = None
    with Screen(console) as screen, os.fdopen(reading) as told:
        for line in told:
            message = json.loads(line)
            replay(message, screen)
            if reason := message.get("failed"):
                raise StackError(reason)
            urls = message.get("up", urls)
    if urls is None:
        raise StackError(f"The stack (pid {child.pid}) ended while it started. See {options.home / 'logs'}.")
    after.show(urls)
    console.print("Running in the background: `trellis status` shows it, `trellis down` stops it.", highlight=False)


def run_up() -> None:
    """`up` as a process of its own."""
    typer.run(up)


def _home() -> Path:
    return choose_home(os.environ.get("TRELLIS_HOME"), Path.cwd(), accounts.for_servers())


def _end(pid: int, timeout_s: float) -> None:
    try:
        process = psutil.Process(pid)
        process.terminate()
        process.wait(timeout_s)
    except psutil.NoSuchProcess:
        return
    except psutil.AccessDenied as error:
        raise StackError(f"The stack (pid {pid}) belongs to another user: stop it as that user.") from error
    except psutil.TimeoutExpired:
        process.kill()
        process.wait(10)


def _row(entry: state.Entry) -> dict[str, object]:
    process = state.process_of(entry)
    row: dict[str, object] = {
        "name": entry.name, "state": entry.state if process else "stopped", "pid": None, "account": entry.account,
        "memory_bytes": None, "began_at_s": None, "restarts": entry.restarts, "reason": entry.reason,
        "url": entry.url, "log": entry.log,
    }  # fmt: skip
    if process:
        family = [process, *process.children(recursive=True)]
        row |= {"pid": entry.pid, "memory_bytes": _memory(family), "began_at_s": entry.began}
    return row


def _memory(processes: list[psutil.Process]) -> int:
    total = 0
    for process in processes:
        try:
            total += process.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total


def _show(rows: list[dict[str, object]], urls: dict[str, str], console: Console) -> None:
    table = Table(box=None, padding=(0, 2))
    for title in ("service", "state", "pid", "as", "memory", "since", "restarts"):
        table.add_column(title, justify="right" if title in ("pid", "memory", "restarts") else "left")
    for row in rows:
        memory, began = row["memory_bytes"], row["began_at_s"]
        table.add_row(
            str(row["name"]), str(row["state"]), str(row["pid"] or "-"), str(row["account"]),
            format_bytes(memory) if isinstance(memory, int) else "-",
            _ago(began) if isinstance(began, float) else "-", str(row["restarts"]),
        )  # fmt: skip
    console.print(table)
    for name, url in urls.items():
        console.print(f"  {name}  {url}", highlight=False)


def _ago(began: float) -> str:
    # Both as the kernel counts: the age of a process is that of this one plus what lies between their starts.
    me = psutil.Process()
    return format_seconds(max(0.0, me.create_time() - began))
