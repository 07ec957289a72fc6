"""Jobs that run in code of their own."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.agent.conftest import Node
from tests.support.agent_api import ControlPlane, a_spec, wait_until
from tests.support.code import digest_of
from trellis.bundles.manifest import Entry
from trellis.vocabulary import Cause, ReplicaState, StopReason
from trellis.wire import Code

FILES = {
    "train.py": b"import lib.a; print(lib.a.A)",
    "lib/a.py": b"A = 42",
    "lib/__init__.py": b"",
    "run": b"#!/bin/sh",
}
SHOW = ("python", "train.py")


def test_a_job_begins_in_its_code_and_may_change_it(confined_node: Node, plane: ControlPlane) -> None:
    code = plane.give_code("r1", FILES, Entry("link", link="lib/a.py"))
    script = "python train.py && cat link && echo more >> lib/a.py && mkdir new && mv run new/ && pwd"
    confined_node.run(a_spec("r1", "/bin/sh", "-c", script, code=code))
    assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]
    assert plane.lines("r1")[0] == "42"
    wait_until(lambda: not list(confined_node.home.find_replicas()))


def test_what_one_job_does_to_its_code_no_other_sees(confined_node: Node, plane: ControlPlane) -> None:
    for name in ("r1", "r2"):
        code = plane.give_code(name, FILES)
        confined_node.run(a_spec(name, "/bin/sh", "-c", "cat lib/a.py; echo; echo evil > lib/a.py", code=code))
        assert plane.end_of(name).exit_code == 0, plane.logs[name]
        assert plane.lines(name) == ["A = 42"]


def test_a_job_cant_reach_what_the_node_keeps(confined_node: Node, plane: ControlPlane) -> None:
    kept = confined_node.home.code
    confined_node.run(a_spec("r1", "/bin/sh", "-c", f"ls {kept}", code=plane.give_code("r1", FILES)))
    assert plane.end_of("r1").exit_code != 0
    assert list(kept.rglob(digest_of(b"A = 42")))


def test_what_the_node_has_is_not_fetched_again(node: Node, plane: ControlPlane) -> None:
    for name, files in (("r1", FILES), ("r2", FILES), ("r3", {**FILES, "lib/a.py": b"A = 43"})):
        node.run(a_spec(name, *SHOW, code=plane.give_code(name, files)))
        assert plane.end_of(name).exit_code == 0, plane.logs[name]
    first, second = plane.code_asked
    assert set(first) == {digest_of(content) for content in FILES.values()}
    assert second == [digest_of(b"A = 43")]
    assert plane.lines("r3") == ["43"]


def test_of_another_project_nothing_is_taken(node: Node, plane: ControlPlane) -> None:
    for name, project in (("r1", "one"), ("r2", "two")):
        node.run(a_spec(name, *SHOW, code=plane.give_code(name, FILES), project_id=project))
        assert plane.end_of(name).exit_code == 0
    assert plane.code_asked[0] == plane.code_asked[1]


def test_what_is_kept_is_bounded(make_node: Callable[..., Node], plane: ControlPlane) -> None:
    node = make_node(code_cache="100KiB")
    for number in range(5):
        name, files = f"r{number}", {"a": bytes([number]) * 40_000}
        node.run(a_spec(name, "/bin/true", code=plane.give_code(name, files)))
        assert plane.end_of(name).state is ReplicaState.SUCCEEDED
    node.daemon.stop()  # it makes room after it has told the job
    kept = sum(path.stat().st_size for path in node.home.code.rglob("*") if path.is_file())
    assert 40_000 < kept <= 100 << 10
    node.start()


def test_code_that_arrives_spoilt_is_fetched_again(node: Node, plane: ControlPlane) -> None:
    plane.code_spoilt = 1
    node.run(a_spec("r1", *SHOW, code=plane.give_code("r1", FILES)))
    assert plane.end_of("r1").exit_code == 0
    assert plane.lines("r1") == ["42"]


def test_code_that_is_always_spoilt_is_told_as_the_cause(node: Node, plane: ControlPlane) -> None:
    plane.code_spoilt = 100
    node.run(a_spec("r1", *SHOW, code=plane.give_code("r1", FILES)))
    end = plane.end_of("r1")
    assert (end.cause, "can't be fetched" in end.message) == (Cause.START_FAILED, True)


def test_what_rotted_on_the_disk_is_noticed_and_fetched_again(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", *SHOW, code=plane.give_code("r1", FILES)))
    plane.end_of("r1")
    (kept,) = node.home.code.rglob(digest_of(b"A = 42"))
    kept.write_bytes(b"A = 13")
    node.run(a_spec("r2", *SHOW, code=plane.give_code("r2", FILES)))
    assert plane.end_of("r2").exit_code == 0
    assert plane.lines("r2") == ["42"]


def test_code_that_is_not_there_is_told_as_the_cause(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", *SHOW, code=Code("0" * 64, 1, 1)))
    end = plane.end_of("r1")
    assert (end.state, end.cause) == (ReplicaState.FAILED, Cause.START_FAILED)
    assert "there is no such code" in end.message


def test_a_control_plane_that_sends_harm_harms_nothing(node: Node, plane: ControlPlane, tmp_path: Path) -> None:
    code = plane.give_code("r1", {f"../../../{tmp_path.name}-evil": b"x"})
    node.run(a_spec("r1", "/bin/true", code=code))
    assert "below the folder" in plane.end_of("r1").message
    assert not list(node.path.parent.rglob("*-evil"))


def test_a_job_that_waits_for_its_code_can_be_cancelled(node: Node, plane: ControlPlane) -> None:
    plane.code_held_back = True
    node.run(a_spec("r1", *SHOW, code=plane.give_code("r1", FILES)))
    wait_until(lambda: [report.state for report in plane.reports["r1"]] == ["starting"])
    plane.wish_end("r1", StopReason.CANCELLED)
    assert plane.end_of("r1").state is ReplicaState.CANCELLED


def test_a_job_that_waits_long_says_so_and_starts_when_its_code_comes(node: Node, plane: ControlPlane) -> None:
    plane.code_held_back = True
    node.run(a_spec("r1", *SHOW, code=plane.give_code("r1", FILES)))
    wait_until(lambda: "waiting for the code: 4 files" in plane.logs["r1"])
    plane.code_held_back = False
    assert plane.end_of("r1").exit_code == 0
    assert plane.lines("r1") == ["42"]


def test_another_daemon_brings_the_code_that_the_first_did_not(node: Node, plane: ControlPlane) -> None:
    plane.code_held_back = True
    node.run(a_spec("r1", *SHOW, code=plane.give_code("r1", FILES)))
    wait_until(lambda: plane.reports["r1"])
    node.daemon.stop()
    plane.code_held_back = False
    node.start()
    assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]


def test_a_script_is_not_written_over_the_code(node: Node, plane: ControlPlane) -> None:
    code = plane.give_code("r1", {"a.py": b"print('code')"}, Entry("link.py", link="a.py"))
    for name, script in (("r1", "a.py"), ("r2", "link.py")):
        plane.manifests[name], plane.code[name] = plane.manifests["r1"], plane.code["r1"]
        node.run(a_spec(name, script="print('script')", script_name=script, code=code))
        assert "give it another name" in plane.end_of(name).message


def test_a_script_that_is_sent_beside_the_code_finds_it(node: Node, plane: ControlPlane) -> None:
    code = plane.give_code("r1", FILES)
    node.run(a_spec("r1", script="import lib.a\nprint(lib.a.A)", script_name="other.py", code=code))
    assert plane.lines("r1") == ["42"] or plane.end_of("r1").exit_code == 0
    assert plane.lines("r1") == ["42"]


def test_a_job_without_code_waits_for_nothing(node: Node, plane: ControlPlane) -> None:
    plane.code_held_back = True
    node.run(a_spec("r1", "/bin/true"))
    assert plane.end_of("r1").state is ReplicaState.SUCCEEDED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_supervisor_that_ends_while_it_waits_is_told_of(
    node: Node, plane: ControlPlane, number: signal.Signals
) -> None:
    plane.code_held_back = True
    node.run(a_spec("r1", *SHOW, code=plane.give_code("r1", FILES)))
    wait_until(lambda: plane.reports["r1"])
    (replica,) = node.home.find_replicas()
    os.kill(int(replica.lock.read_text()), number)
    assert plane.end_of("r1").state is ReplicaState.LOST
