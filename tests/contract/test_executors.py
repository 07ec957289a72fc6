"""What every executor must do, asked of each through the supervisor, at each level of isolation it runs at."""

import signal
from collections.abc import Callable

import pytest

from agent.executors import EXECUTORS
from tests.integration.agent.conftest import Node
from tests.support.agent_api import ControlPlane, a_spec, wait_until
from trellis.vocabulary import Cause, ExecutorKind, Isolation, ReplicaState, StopReason


@pytest.fixture(params=[(kind, level) for kind in EXECUTORS for level in Isolation], ids="-".join)
def kind(request: pytest.FixtureRequest, make_node: Callable[..., Node]) -> ExecutorKind:
    kind, level = request.param
    request.instance.node = make_node(level)
    return ExecutorKind(kind)


class TestExecutor:
    node: Node

    def test_starts_a_command_and_hands_over_its_output(self, kind: ExecutorKind, plane: ControlPlane) -> None:
        self.node.run(a_spec("r1", "/bin/sh", "-c", "echo out; echo err >&2", executor=kind))
        assert plane.end_of("r1").state == ReplicaState.SUCCEEDED
        assert (plane.lines("r1"), plane.lines("r1", "e")) == (["out"], ["err"])

    @pytest.mark.parametrize("code", [1, 42, 255])
    def test_tells_the_exit_code(self, kind: ExecutorKind, plane: ControlPlane, code: int) -> None:
        self.node.run(a_spec("r1", "/bin/sh", "-c", f"exit {code}", executor=kind))
        end = plane.end_of("r1")
        assert (end.exit_code, end.cause) == (code, Cause.EXIT_CODE)

    def test_signals_every_process_of_the_replica(self, kind: ExecutorKind, plane: ControlPlane) -> None:
        child = "(trap 'echo child; exit' TERM; echo up; while :; do sleep 0.02; done)"
        script = f"{child} & trap 'wait; echo parent; exit 0' TERM; wait"
        self.node.run(a_spec("r1", "/bin/bash", "-c", script, executor=kind))
        wait_until(lambda: "up" in plane.lines("r1"))
        plane.wish_end("r1", StopReason.CANCELLED)
        assert plane.end_of("r1").state == ReplicaState.CANCELLED
        assert sorted(plane.lines("r1")) == ["child", "parent", "up"]

    def test_kills_what_ignores_term(self, kind: ExecutorKind, plane: ControlPlane) -> None:
        self.node.run(
            a_spec("r1", "/bin/sh", "-c", "trap '' TERM; echo up; while :; do sleep 0.1; done", executor=kind)
        )
        wait_until(lambda: "up" in plane.lines("r1"))
        plane.wish_end("r1", StopReason.CANCELLED, grace_s=0)
        assert plane.end_of("r1").signal == signal.SIGKILL

    def test_tells_what_was_used(self, kind: ExecutorKind, plane: ControlPlane) -> None:
        script = "import time\nkept = bytearray(60_000_000)\nwhile time.process_time() < 0.3: pass\n"
        self.node.run(a_spec("r1", script=script, script_name="burn.py", executor=kind))
        end = plane.end_of("r1")
        assert end.exit_code == 0, plane.logs["r1"]
        assert end.cpu_s >= 0.3
        assert end.peak_memory_bytes > 60_000_000

    def test_goes_on_under_the_next_daemon(self, kind: ExecutorKind, plane: ControlPlane) -> None:
        self.node.run(a_spec("r1", "/bin/sh", "-c", "echo up; sleep 0.8; echo done; exit 9", executor=kind))
        wait_until(lambda: "up" in plane.lines("r1"))
        self.node.daemon.stop()
        self.node.start()
        assert plane.end_of("r1").exit_code == 9
        assert plane.lines("r1") == ["up", "done"]
