"""Launching, where the machine or an earlier launcher gets in the way."""

import errno
import os
import socket
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from agent import clock, journal, launcher, lease
from agent.ground import Confinement, Ground
from agent.layout import ReplicaDir, lock_file
from agent.standby import Standby, Standing
from tests.support.agent_api import a_spec, rests, wait_until
from trellis.vocabulary import Isolation
from trellis.wire import pack


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    ground = Ground(str(tmp_path), Confinement(Isolation.BASIC, ""), 65533)
    ground.home.create()
    return ground


@pytest.fixture
def standby(ground: Ground) -> Iterator[Standby]:
    daemon, ours = socket.socketpair()
    with daemon, ours:
        standby = Standby(ground, daemon)
        yield standby
        standby.close()


@pytest.fixture
def standing(ground: Ground) -> Standing:
    """One whose process ended while it stood by."""
    ours, theirs = socket.socketpair()
    theirs.close()
    lock = ground.home.supervisors / "1-1"
    lock.write_text("1\n")
    return Standing(1, ours, lock)


def test_a_replica_for_which_no_process_could_be_made_was_never_launched(
    ground: Ground, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fail)
    before = set(Path("/proc/self/fd").iterdir())
    with pytest.raises(OSError, match="temporarily"):
        launcher.launch(standby, ground.home, pack(a_spec("r1", "true")))
    assert not list(ground.home.replicas.iterdir())
    assert not list(ground.home.supervisors.iterdir())
    assert set(Path("/proc/self/fd").iterdir()) == before


def test_a_replica_whose_supervisor_died_standing_by_was_never_launched(
    ground: Ground, standby: Standby, standing: Standing
) -> None:
    standby.give_back(standing)
    with pytest.raises(BrokenPipeError):
        launcher.launch(standby, ground.home, pack(a_spec("r1", "true")))
    assert not list(ground.home.replicas.iterdir())


def test_a_replica_that_was_launched_before_leaves_the_supervisor_standing_by(
    ground: Ground, standby: Standby, standing: Standing
) -> None:
    ground.home.replica("r1", 1).path.mkdir()
    standby.give_back(standing)
    launcher.launch(standby, ground.home, pack(a_spec("r1", "true")))
    assert standby.take() is standing


def test_a_process_ends_after_so_many_replicas(
    ground: Ground, standby: Standby, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.standby.SERVES", 2)
    lease.renew(ground.home, clock.boottime(), 60.0)
    first = standby.take()
    standby.give_back(first)
    for replica in (ground.home.replica("r1", 1), ground.home.replica("r2", 1)):
        launcher.launch(standby, ground.home, pack(a_spec(replica.replica_id, "/bin/true")))
        wait_until(partial(_ended, replica, first.pid))
        assert journal.read(replica.journal, 0)[-1].report.exit_code == 0
        assert list(standby._alive) == [first.pid]
    assert os.waitstatus_to_exitcode(os.waitpid(first.pid, 0)[1]) == 0


def test_those_that_stand_by_are_let_go_when_nothing_is_launched(standby: Standby) -> None:
    resting, at_work = standby.take(), standby.take()
    standby.give_back(resting)
    standby.dismiss()
    assert os.waitstatus_to_exitcode(os.waitpid(resting.pid, 0)[1]) == 0
    assert os.waitpid(at_work.pid, os.WNOHANG) == (0, 0)
    standby.forget(at_work.pid)
    assert os.waitstatus_to_exitcode(os.waitpid(at_work.pid, 0)[1]) == 0


def _ended(replica: ReplicaDir, pid: int) -> bool:
    return not replica.alive() and rests(pid)


def test_what_a_killed_launcher_half_made_is_not_in_the_way(ground: Ground, standing: Standing) -> None:
    (ground.home.replicas / ".new-r1.1").mkdir()
    replica = ground.home.replica("r1", 1)
    assert launcher._claim(ground.home, replica, standing.lock)
    assert replica.lock.read_text() == "1\n"
    assert not launcher._claim(ground.home, replica, standing.lock)


def test_locks_that_a_killed_launcher_left_are_cleared_away_but_for_those_that_are_held(
    ground: Ground, standing: Standing
) -> None:
    held = ground.home.supervisors / "1-2"
    lock = lock_file(held)
    assert lock is not None
    ground.home.create()
    assert list(ground.home.supervisors.iterdir()) == [held]
    os.close(lock)
