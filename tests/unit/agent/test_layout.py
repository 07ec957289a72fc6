"""Names and locks on a node's disk."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import psutil
import pytest

from agent import lease
from agent.clock import boottime
from agent.layout import Home, ReplicaDir, lock_file, read_json, write_json


@pytest.mark.parametrize("name", ["", "a/b", "..", "a.b", "a b", "a" * 65, "ä", "a\n"])
def test_an_id_that_is_no_file_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="no replica of this platform"):
        Home(tmp_path).replica(name, 1)


def test_replicas_are_found_and_half_made_ones_cleared_away(tmp_path: Path) -> None:
    home = Home(tmp_path / "home")
    home.create()
    for name in ("a.1", "b.22", ".new-c.1", "lost+found"):
        (home.replicas / name).mkdir()
    home.create()
    assert {(found.replica_id, found.fence) for found in home.find_replicas()} == {("a", 1), ("b", 22)}
    assert [path.name for path in home.trash.iterdir()] == [".new-c.1"]


def test_ext4_is_told_that_replicas_have_nothing_to_do_with_one_another(tmp_path: Path) -> None:
    if _file_system_of(tmp_path) != "ext4" or not shutil.which("lsattr"):
        pytest.skip("needs a temporary folder on ext4, and lsattr")
    home = Home(tmp_path / "home")
    home.create()
    said = subprocess.run(["lsattr", "-d", home.replicas], capture_output=True, text=True, check=True).stdout
    assert "T" in said.split()[0]


def _file_system_of(path: Path) -> str:
    parts = [part for part in psutil.disk_partitions(all=True) if path.is_relative_to(part.mountpoint)]
    return str(max(parts, key=lambda part: len(part.mountpoint)).fstype)


def test_a_lock_proves_life_and_only_one_can_hold_it(tmp_path: Path) -> None:
    replica = ReplicaDir(tmp_path, "r", 1)
    assert not replica.alive()
    held = lock_file(replica.lock)
    assert held is not None
    assert replica.alive()
    assert lock_file(replica.lock) is None
    os.close(held)
    assert not replica.alive()


def test_a_signal_is_not_sent_to_whoever_has_a_dead_supervisors_number(tmp_path: Path) -> None:
    replica = ReplicaDir(tmp_path, "r", 1)
    replica.lock.write_text(f"{os.getpid()}\n")
    assert not replica.signal_supervisor(9)


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    assert read_json(tmp_path / "x") is None
    write_json(tmp_path / "x", {"a": 1})
    write_json(tmp_path / "x", {"a": 2})
    assert read_json(tmp_path / "x") == {"a": 2}
    assert (tmp_path / "x").stat().st_mode & 0o077 == 0


def test_json_that_a_full_disk_takes_a_part_of_replaces_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, room = os.write, 10

    def fill_up(fd: int, block: bytes) -> int:
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = real(fd, block[:room])
        room -= written
        return written

    write_json(tmp_path / "node.json", {"token": "the old one"})
    monkeypatch.setattr(os, "write", fill_up)
    with pytest.raises(OSError, match="No space"):
        write_json(tmp_path / "node.json", {"token": "the new one"})
    assert read_json(tmp_path / "node.json") == {"token": "the old one"}


def test_a_lease_counts_from_the_question_and_runs_out(tmp_path: Path) -> None:
    home = Home(tmp_path)
    assert not lease.holds(home)
    lease.renew(home, boottime(), 20.0)
    assert lease.holds(home)
    lease.renew(home, boottime() - 30.0, 20.0)
    assert not lease.holds(home)
