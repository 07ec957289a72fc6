"""A stack in this terminal, or in the background: what a person sees, and what signals do."""

import json
import os
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType

from rich.console import Console

from app.cli.cluster import apply_file
from app.cli.errors import StackError
from app.cli.example import Login, run_example, show_next
from app.cli.progress import Pipe, Reporter, Screen, replay
from app.cli.stack import CODE, Options, Stack

UP: tuple[str, ...] = (
    "-c",
    "from app.cli.commands import run_up; run_up()",
)  # how Python runs `trellis up` in the background
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Example:
    """What `up` shows once everything runs."""

    def __init__(self, console: Console, home: Path, *, wanted: bool, cluster: Path | None = None) -> None:
        self._console, self._home, self._wanted, self._cluster = console, home, wanted, cluster

    def show(self, urls: dict[str, str]) -> None:
        """Apply the cluster file if there is one, run the example if it is wanted, then tell where things are.

        Raises: StackError with what of the file the server refuses.
        """
        login = Login(**json.loads((self._home / "client.json").read_text()))
        if self._cluster is not None:
            apply_file(self._cluster, login.url, login.api_key)
        job = run_example(login, CODE, self._home / "example", self._console) if self._wanted else None
        show_next(urls, job, self._console)


def in_foreground(options: Options, console: Console, after: Example) -> None:
    """Run until a signal. Raises StackError when something does not come up."""
    screen = Screen(console)
    stack = Stack(options, screen)
    with _ended_by_signals(stack, screen):
        with screen:
            stack.start()
        after.show(stack.urls)
        screen.say("Running; Ctrl-C stops everything.")
        _wait_for_a_signal()


def for_another(options: Options, descriptor: int) -> None:
    """Run until a signal, telling the process at the other end of the pipe how the start goes."""
    pipe = Pipe(descriptor)
    stack = Stack(options, pipe)
    with _ended_by_signals(stack, pipe):
        try:
            stack.start()
        except (StackError, OSError) as error:
            pipe.tell({"failed": str(error)})
            raise
        pipe.tell({"up": stack.urls})
        pipe.close()
        _wait_for_a_signal()


def in_background(options: Options, console: Console, after: Example) -> None:
    """Start a process that runs the stack, and return once all of it is up. Raises StackError when it is not."""
    reading, writing = os.pipe()
    argv = [
        sys.executable, *UP, "--report-fd", str(writing),
        *(
            ["--machines", json.dumps([asdict(machine) for machine in options.machines])]
            if options.profile is None else ["--simulate", str(options.profile.absolute())]
        ),
        "--port", str(options.port), "--flower-port", str(options.flower_port),
    ]  # fmt: skip
    child = subprocess.Popen(
        argv, env={**options.environment, "TRELLIS_HOME": str(options.home)}, pass_fds=(writing,),
        start_new_session=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    os.close(writing)
    urls = None
    with Screen(console) as screen, os.fdopen(reading) as told:
        for line in told:
            message = json.loads(line)
            replay(message, screen)
            if reason := message.get("failed"):
                child.wait()
                raise StackError(reason)
            urls = message.get("up", urls)
    if urls is None:
        raise StackError(f"The stack (pid {child.pid}) ended while it started. See {options.home / 'logs'}.")
    after.show(urls)
    screen.say("Running in the background: `trellis status` shows it, `trellis down` stops it.")


@contextmanager
def _ended_by_signals(stack: Stack, reporter: Reporter) -> Iterator[None]:
    """Run until SIGINT, SIGTERM or SIGHUP, then stop in order; a second signal kills instead."""

    def begin(_number: int, _frame: FrameType | None) -> None:
        # Once only, and before anything else may be interrupted by a second one.
        for number in ENDING:
            signal.signal(number, hurry)
        raise KeyboardInterrupt

    def hurry(_number: int, _frame: FrameType | None) -> None:
        stack.kill()

    for number in ENDING:
        signal.signal(number, begin)
    try:
        yield
    except KeyboardInterrupt:
        with suppress(OSError):  # the terminal may be what is gone
            reporter.say("\nStopping in order; Ctrl-C once more kills instead.")
        stack.stop()
        with suppress(OSError):
            reporter.say("Stopped.")
    finally:
        stack.stop()


def _wait_for_a_signal() -> None:
    """Until a signal, or until the terminal is closed: the kernel tells only its session's first process of that, which
    may be a `make` that does not pass it on."""
    poller = select.poll()
    if sys.stdout.isatty():
        poller.register(sys.stdout.fileno(), 0)  # a hang-up is reported unasked
    poller.poll()
    raise KeyboardInterrupt
