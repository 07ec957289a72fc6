"""A job that names what it goes on from starts with that or not at all; from its own store, or another cluster's."""

from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.integration.agent.conftest import Node
from tests.support.agent_api import SIGNING_KEY, ControlPlane, a_spec, wait_until
from trellis.stores.local import LocalStore
from trellis.stores.manifests import open_signed, sign
from trellis.stores.urls import SIGN
from trellis.vocabulary import Cause, ReplicaState
from trellis.wire import CheckpointPlan, ReplicaSpec, StoreSource

PUBLIC = SIGNING_KEY.public_key().public_bytes_raw().hex()
KEY = "manifests/project/first-1"
SCRIPT = """
from trellis.runtime import checkpoint
found = checkpoint.latest()
print("found", found and found.state())
checkpoint.save({"n": (found.state()["n"] if found else 0) + 1})
"""


@pytest.fixture
def store(plane: ControlPlane, home: Path) -> LocalStore:
    plane.store = LocalStore(home.parent / "store")
    plane.store.write(SIGN, [b"here"])
    return plane.store


def a_saver(name: str, home: Path, **plan: Any) -> ReplicaSpec:
    made = CheckpointPlan((home.parent / "store").as_uri(), PUBLIC, 3600, 1, **plan)
    return a_spec(name, script=SCRIPT, script_name="job.py", checkpoint=made)


@pytest.fixture
def saved(node: Node, plane: ControlPlane, store: LocalStore, home: Path) -> Node:
    """The node, where one job has saved {"n": 1}."""
    node.run(a_saver("first", home))
    plane.end_of("first")
    return node


@pytest.mark.parametrize("must_restore", [True, False])
def test_what_can_not_be_restored_is_a_clear_end_unless_the_job_may_start_without(
    saved: Node, plane: ControlPlane, store: LocalStore, home: Path, *, must_restore: bool
) -> None:
    store.delete(KEY)
    saved.run(a_saver("second", home, restore=(KEY,), must_restore=must_restore))
    end = plane.end_of("second")
    if must_restore:
        assert (end.state, end.cause) == (ReplicaState.FAILED, Cause.RESTORE_FAILED)
        assert KEY in end.message
        assert plane.lines("second") == []
        assert ReplicaState.RUNNING not in plane.states_of("second")
    else:
        assert (end.state, plane.lines("second")) == (ReplicaState.SUCCEEDED, ["found None"])
    assert plane.restores["second"].key == ""


def test_what_the_control_plane_says_is_not_there_is_the_reason_of_the_end(
    saved: Node, plane: ControlPlane, home: Path
) -> None:
    saved.run(a_saver("second", home, must_restore=True, fault="there is no checkpoint 7 in this project"))
    end = plane.end_of("second")
    assert (end.cause, end.message) == (Cause.RESTORE_FAILED, "there is no checkpoint 7 in this project")


def test_a_store_that_is_merely_away_is_waited_for_and_that_is_said_once(
    saved: Node, plane: ControlPlane, home: Path
) -> None:
    (home.parent / "store").rename(home.parent / "unmounted")
    saved.run(a_saver("second", home, restore=(KEY,), must_restore=True))
    beats = len(plane.heartbeats)
    wait_until(lambda: len(plane.heartbeats) > beats + 5)
    assert not plane.reports["second"]
    (told,) = plane.save_faults
    assert "tried again" in told
    (home.parent / "unmounted").rename(home.parent / "store")
    assert plane.end_of("second").state is ReplicaState.SUCCEEDED
    assert plane.lines("second") == ["found {'n': 1}"]


def test_a_node_restores_from_another_clusters_store_and_saves_into_its_own(
    saved: Node, plane: ControlPlane, store: LocalStore, home: Path
) -> None:
    theirs = Ed25519PrivateKey.generate()
    source = StoreSource((home.parent / "theirs").as_uri(), theirs.public_key().public_bytes_raw().hex())
    manifest = open_signed(b"".join(store.read(KEY)), PUBLIC)
    (home.parent / "store").rename(home.parent / "theirs")
    LocalStore(home.parent / "theirs").write(KEY, [sign(manifest, theirs)])
    before = sorted(path for path in (home.parent / "theirs").rglob("*"))
    store.write(SIGN, [b"here"])
    saved.run(a_saver("second", home, restore=(KEY,), source=source, must_restore=True))
    assert plane.end_of("second").state is ReplicaState.SUCCEEDED
    assert plane.lines("second") == ["found {'n': 1}"]
    (again,) = plane.saved["second"]
    assert all(store.head(pack) for pack in again.packs)
    assert sorted(path for path in (home.parent / "theirs").rglob("*")) == before
    forged = a_saver("third", home, restore=(KEY,), source=StoreSource(source.url, PUBLIC), must_restore=True)
    saved.run(forged)
    assert "signed by another cluster" in plane.end_of("third").message
