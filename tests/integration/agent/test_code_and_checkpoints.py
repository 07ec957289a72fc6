"""Jobs that begin in their own code and packages, and go on from a checkpoint: all of it is there before they start."""

import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import commands
from tests.integration.agent.conftest import Node
from tests.integration.agent.test_checkpointing import PUBLIC
from tests.support.agent_api import ControlPlane, a_spec, wait_until
from tests.support.wheels import a_wheel
from trellis.stores.local import LocalStore
from trellis.stores.urls import SIGN
from trellis.vocabulary import Isolation, ReplicaState, StopReason
from trellis.wire import CheckpointPlan, Code, ReplicaSpec

SAVE = b"""
from trellis.runtime import checkpoint
found = checkpoint.latest()
print("found", found and found.state()["n"], flush=True)
n = found.state()["n"] + 1 if found else 1
checkpoint.save({"n": n}, step=n)
"""
RESTORED = "manifests/project/first-1"


@pytest.fixture(autouse=True)
def _store(plane: ControlPlane, home: Path) -> None:
    plane.store = LocalStore(home.parent / "store")
    plane.store.write(SIGN, [b"here"])


@pytest.fixture
def wheels(home: Path) -> Path:
    folder = home.parent / "wheels"
    a_wheel(folder)
    return folder


def a_job(plane: ControlPlane, home: Path, name: str, *, packages: bool = False, **plan: Any) -> ReplicaSpec:
    """One whose code saves, and goes on from what `plan` says."""
    code = plane.give_code(name, {"train.py": SAVE, "requirements.txt": b"tiny"})
    if packages:
        code = Code(code.digest, code.size_bytes, code.files, "requirements.txt")
    checkpoint = CheckpointPlan(
        (home.parent / "store").as_uri(), PUBLIC, **{"every_s": 3600, "settle_s": 1, "base": "", **plan}
    )
    return a_spec(name, "python", "train.py", code=code, checkpoint=checkpoint, grace_s=30)


def a_first_one(node: Node, plane: ControlPlane, home: Path) -> None:
    node.run(a_job(plane, home, "first"))
    assert plane.end_of("first").exit_code == 0, plane.logs["first"]
    assert len(plane.saved["first"]) == 1


@pytest.mark.parametrize("level", [Isolation.NAMESPACES, Isolation.LANDLOCK])
def test_code_and_packages_and_checkpoint_are_there_when_the_program_starts(
    make_node: Callable[..., Node], plane: ControlPlane, home: Path, wheels: Path, level: Isolation
) -> None:
    node = make_node(level, package_links=str(wheels))
    a_first_one(node, plane, home)
    node.run(a_job(plane, home, "second", packages=True, restore=(RESTORED,), base=RESTORED))
    assert plane.end_of("second", 60).exit_code == 0, plane.logs["second"]
    assert plane.lines("second") == ["found 1"]
    assert any("the environment is built" in line for line in plane.lines("second", "s"))
    assert [one.about["step"] for one in plane.saved["second"]] == [2]
    assert plane.restores["second"].key == RESTORED


def test_what_was_restored_outlives_the_daemon_while_the_code_is_on_its_way(
    node: Node, plane: ControlPlane, home: Path
) -> None:
    a_first_one(node, plane, home)
    plane.code_held_back = True
    spec = a_job(plane, home, "second", restore=(RESTORED,), base=RESTORED)
    code = plane.give_code("second", {"train.py": SAVE, "new": b"not known to the node"})
    node.run(replace(spec, code=code))
    wait_until(lambda: plane.reports["second"])
    node.daemon.stop()
    node.start()
    plane.code_held_back = False
    assert plane.end_of("second").exit_code == 0, plane.logs["second"]
    assert plane.lines("second") == ["found 1"]


def test_one_that_ends_before_its_code_came_saves_nothing(node: Node, plane: ControlPlane, home: Path) -> None:
    a_first_one(node, plane, home)
    plane.code_held_back = True
    spec = a_job(plane, home, "second", restore=(RESTORED,), every_s=1)
    node.run(replace(spec, code=plane.give_code("second", {"other": b"x"})))
    wait_until(lambda: plane.reports["second"])
    plane.wish_end("second", StopReason.PREEMPTED, 30)
    assert plane.end_of("second").state is ReplicaState.PREEMPTED
    assert plane.saved["second"] == []
    wait_until(lambda: not list(node.home.find_replicas()))
    assert not list(node.home.restored.iterdir())


def test_what_makes_an_environment_is_not_asked_to_save(
    make_node: Callable[..., Node], plane: ControlPlane, home: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        node = make_node(package_index=f"http://127.0.0.1:{deaf.getsockname()[1]}/simple/")
        node.run(a_job(plane, home, "r1", packages=True))
        asker, _ = deaf.accept()  # uv is at work
        plane.wish_end("r1", StopReason.PREEMPTED, 30)
        assert plane.end_of("r1", within_s=15).state is ReplicaState.PREEMPTED
        asker.close()
    assert plane.saved["r1"] == []


def test_one_that_is_to_stand_still_while_its_code_comes_does_so_once_it_runs(
    make_node: Callable[..., Node], plane: ControlPlane, wheels: Path
) -> None:
    node = make_node(package_links=str(wheels))
    plane.code_held_back = True
    code = plane.give_code("r1", {"requirements.txt": b"tiny"})
    code = Code(code.digest, code.size_bytes, code.files, "requirements.txt")
    node.run(a_spec("r1", "/bin/sh", "-c", "while :; do echo tick; sleep 0.02; done", code=code))
    wait_until(lambda: plane.reports["r1"])
    plane.wish_still("r1")
    commands.stop([("r1", 1)])
    plane.code_held_back = False
    wait_until(lambda: plane.states_of("r1") == ["starting", "running", "suspended"], 60)
    plane.wish_still("r1", paused=False)
    commands.stop([("r1", 1)])
    wait_until(lambda: plane.states_of("r1")[-1] == "running" and plane.lines("r1"))
    plane.wish_end("r1", StopReason.CANCELLED, 0)
    assert plane.end_of("r1").state is ReplicaState.CANCELLED
