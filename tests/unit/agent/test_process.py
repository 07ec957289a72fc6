"""What becomes of a replica's control group, whichever way the replica goes."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from agent import processes
from agent.cgroups import Cgroups, Group, Limits
from agent.executors.base import Running
from agent.executors.process import ProcessExecutor


class NotedGroup(Group):
    """A group that is none: it notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__(Cgroups(), "r1.1")
        self.asked: list[str] = []

    def make(self, limits: Limits) -> None:
        """Note it."""
        self.asked.append("make")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Change nothing."""
        yield

    def kill(self) -> None:
        """Note it."""
        self.asked.append("kill")

    def remove(self) -> None:
        """Note it."""
        self.asked.append("remove")


def test_kill_reaches_all_of_the_group_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr(processes, "kill_below", killed.append)
    group = NotedGroup()
    ProcessExecutor().signal(Running(1, group=group), signal.SIGKILL)
    assert (killed, group.asked) == ([os.getpid()], ["kill"])
