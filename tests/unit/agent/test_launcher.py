"""Launching, where the machine or an earlier launcher gets in the way."""

import errno
import os
import socket
from pathlib import Path

import pytest

from agent import launcher
from agent.ground import Confinement, Ground
from tests.support.agent_api import a_spec
from trellis.vocabulary import Isolation


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    ground = Ground(str(tmp_path), Confinement(Isolation.BASIC, ""), 65533)
    ground.home.create()
    return ground


def test_a_replica_for_which_no_process_could_be_made_was_never_launched(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fail)
    stream, _ = socket.socketpair()
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match="temporarily"):
        launcher.launch(stream, ground, a_spec("r1", "true"))
    assert not list(ground.home.replicas.iterdir())
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_what_a_killed_launcher_half_made_is_not_in_the_way(ground: Ground) -> None:
    (ground.home.replicas / ".new-r1.1").mkdir()
    lock = launcher._claim(ground, ground.home.replica("r1", 1))
    assert lock is not None
    assert launcher._claim(ground, ground.home.replica("r1", 1)) is None
    os.close(lock)
