"""What a person sees while the stack starts and stops."""

import json
import os
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


class Reporter(Protocol):
    """Hears of the steps of a start; `say` is for what should stay on the screen."""

    def step(self, number: int, total: int, what: str) -> None:
        """Step `number` of `total` begins, counted from 1."""

    def say(self, line: str) -> None:
        """Something a person should read."""


class Screen:
    """A bar where the terminal can redraw it, else a line a step."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            TextColumn("start "), BarColumn(24), MofNCompleteColumn(), TextColumn("{task.description}"),
            TimeElapsedColumn(), console=console, transient=True,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def step(self, number: int, total: int, what: str) -> None:
        """See Reporter."""
        if self.console.is_terminal:
            self._bar.update(self._task, completed=number - 1, total=total, description=what)
        else:
            self.console.print(f"start {number}/{total} {what}", highlight=False)

    def say(self, line: str) -> None:
        """See Reporter."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)


class Pipe:
    """Tells another process, which has the screen: one JSON object a line."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "w", buffering=1)

    def step(self, number: int, total: int, what: str) -> None:
        """See Reporter."""
        self.tell({"step": [number, total, what]})

    def say(self, line: str) -> None:
        """See Reporter."""
        self.tell({"say": line})

    def tell(self, message: dict[str, object]) -> None:
        """Send one message; a listener that went away is not missed."""
        try:
            print(json.dumps(message), file=self._file)
        except BrokenPipeError:
            return

    def close(self) -> None:
        """No more will come."""
        self._file.close()


def replay(message: dict[str, object], reporter: Reporter) -> None:
    """Show what a Pipe told."""
    if isinstance(step := message.get("step"), list):
        reporter.step(*step)
    if isinstance(line := message.get("say"), str):
        reporter.say(line)
