"""What a job says of a file it leaves is read from beside it, and never believed further than that."""

import json
import os
from pathlib import Path

import pytest

from agent.layout import ReplicaDir
from agent.uploads import ABOUT_BYTES, _about


@pytest.fixture
def replica(tmp_path: Path) -> ReplicaDir:
    made = ReplicaDir(tmp_path, "r1", 1)
    made.artifacts.mkdir(parents=True)
    return made


def describe(replica: ReplicaDir, text: str | bytes) -> tuple[str, str]:
    (replica.artifacts / ".w.bin.about").write_bytes(text if isinstance(text, bytes) else text.encode())
    return _about(replica, "w.bin")


def test_a_type_and_metadata_are_handed_on(replica: ReplicaDir) -> None:
    kind, details = describe(replica, '{"type": "model", "metadata": {"epoch": 3}}')
    assert (kind, json.loads(details)) == ("model", {"epoch": 3})


def test_where_nothing_is_said_nothing_is_handed_on(replica: ReplicaDir) -> None:
    assert _about(replica, "w.bin") == _about(replica, "deep/w.bin") == ("", "{}")
    assert not replica.log.exists()


@pytest.mark.parametrize(
    "text",
    ["{", "[]", '{"type": "No Word"}', '{"metadata": []}', '{"metadata": {"a": NaN}}', "[" * 3000, '{"metadata": {"a": "\\u0000"}}',
     '{"metadata": {"a": "\\ud800"}}', b"\xff\xfe"],
)  # fmt: skip
def test_what_makes_no_sense_is_left_out_and_said(replica: ReplicaDir, text: str | bytes) -> None:
    assert describe(replica, text) == ("", "{}")
    assert "can't be understood" in replica.log.read_text()


def test_what_is_said_of_many_replicas_costs_the_daemon_no_descriptor(replica: ReplicaDir) -> None:
    before = list(Path("/proc/self/fd").iterdir())
    for _ in range(20):
        describe(replica, "{")
    assert len(list(Path("/proc/self/fd").iterdir())) == len(before)


def test_no_link_pipe_or_flood_is_read(replica: ReplicaDir, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text('{"type": "model"}')
    about = replica.artifacts / ".w.bin.about"
    about.symlink_to(secret)
    assert _about(replica, "w.bin") == ("", "{}")
    about.unlink()
    os.mkfifo(about)
    assert _about(replica, "w.bin") == ("", "{}")
    about.unlink()
    assert describe(replica, '{"type": "model"}' + " " * ABOUT_BYTES) == ("", "{}")
