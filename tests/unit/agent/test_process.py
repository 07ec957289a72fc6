"""What becomes of a replica's control group, whichever way the replica goes."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agent import processes
from agent.cgroups import Cgroups, Group, Limits
from agent.executors import process
from agent.executors.base import Running, Start, StartFailed
from agent.executors.process import ProcessExecutor
from agent.ground import Confinement, Ground
from agent.workspace import Places, Program
from tests.support.agent_api import a_spec
from trellis.vocabulary import Isolation


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


class OneGroup(Cgroups):
    """Where every replica gets the same group."""

    noted = NotedGroup()

    def group(self, name: str) -> Group:
        """That one."""
        return self.noted


def test_kill_reaches_all_of_the_group_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr(processes, "kill_below", killed.append)
    group = NotedGroup()
    ProcessExecutor().signal(Running(1, group=group), signal.SIGKILL)
    assert (killed, group.asked) == ([os.getpid()], ["kill"])


def test_a_start_that_fails_leaves_no_group_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Start) -> Running:
        raise StartFailed("there is no such program")

    monkeypatch.setattr(process, "_start_forked", fail)
    cgroups = OneGroup()
    ground = Ground(str(tmp_path), Confinement(Isolation.BASIC, ""), 65533, cgroups=cgroups)
    program = Program(("true",), {}, Places("/", "/", "/", "/", "/"), ())
    start = Start(ground, ground.home.replica("r1", 1), a_spec("r1", "true"), program, stdout=1, stderr=2)
    with pytest.raises(StartFailed, match="no such program"):
        ProcessExecutor().start(start)
    assert cgroups.noted.asked == ["make", "remove"]
