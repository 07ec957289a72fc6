"""Debug mode adds words and takes nothing away: limits, isolation, monitoring and the record stay (DEF-1)."""

from typing import Any

import pytest
from sqlalchemy import select

from app.core.events import Event
from tests.integration.agent.conftest import *  # noqa: F403  # the fixtures of a node
from tests.integration.agent.conftest import Node
from tests.support.agent_api import ControlPlane, a_spec, wait_until
from tests.support.fake_node import FakeNode
from tests.support.stack import Stack
from tests.support.world import World
from trellis.vocabulary import Cause, Isolation, ReplicaState, StopReason

LOOKS_AROUND = """
import os
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(sorted(name for name in os.environ if name != "LINES"), status["NoNewPrivs"].strip(), status["CapEff"].strip())
print(os.path.exists("{home}"))
"""


def told(plane: ControlPlane, name: str) -> list[str]:
    return [line for line in plane.lines(name, "s") if line.startswith("debug: ")]


def test_a_job_in_debug_mode_is_kept_in_as_any_other(confined_node: Node, plane: ControlPlane) -> None:
    script = LOOKS_AROUND.format(home=confined_node.home.identity)
    for name, debug in (("r1", False), ("r2", True)):
        confined_node.run(a_spec(name, script=script, script_name="look.py", debug=debug))
        assert plane.end_of(name).exit_code == 0, plane.logs[name]
    assert plane.lines("r1") == plane.lines("r2")
    assert told(plane, "r1") == []
    assert any(line.startswith("debug: isolation") for line in told(plane, "r2"))


def test_a_job_in_debug_mode_has_the_same_limits(node: Node, plane: ControlPlane) -> None:
    eat = "import time\nkept = bytearray(200_000_000)\ntime.sleep(1000)\n"
    node.run(a_spec("r1", script=eat, script_name="eat.py", memory_bytes=100_000_000, debug=True))
    node.run(a_spec("r2", "/bin/sleep", "1000", time_limit_s=1, debug=True))
    assert plane.end_of("r1").cause == Cause.OUT_OF_MEMORY
    assert plane.end_of("r2").cause == Cause.TIME_LIMIT


def test_what_debug_adds_while_it_runs_is_what_the_job_can_see_itself(confined_node: Node, plane: ControlPlane) -> None:
    confined_node.run(a_spec("r1", "/bin/sleep", "1000", debug=True, features=("fine_metrics",)))
    wait_until(lambda: any(point.name == "trellis/cpu_cores" for point in plane.metrics["r1"]), within_s=20)
    wait_until(lambda: any(line.startswith("debug: limits") for line in told(plane, "r1")))
    plane.wish_end("r1", StopReason.CANCELLED, 0)
    plane.end_of("r1")
    words = "\n".join(told(plane, "r1"))
    assert "core file size 0" in words
    assert str(confined_node.home.identity) not in words
    (files,) = [line for line in told(plane, "r1") if line.startswith("debug: sees files")]
    if confined_node.isolation == Isolation.NAMESPACES:
        assert "/usr (ro)" in files
        assert "/job (rw)" in files
        assert str(confined_node.home.replicas) not in files


def test_debug_and_features_take_no_limit_on_metrics_away(node: Node, plane: ControlPlane) -> None:
    script = "from trellis import runtime\nfor number in range(300):\n    runtime.log_metric(f'm{number}', 1.0)\n"
    node.run(a_spec("r1", script=script, script_name="a.py", debug=True, features=("fine_metrics", "crash_traces")))
    assert plane.end_of("r1").state == ReplicaState.SUCCEEDED, plane.logs["r1"]
    assert len({point.name for point in plane.metrics["r1"] if not point.name.startswith("trellis/")}) == 200
    assert any(
        "200 names of metrics at the most: points of others, such as m200" in line for line in plane.lines("r1", "s")
    )


def test_a_program_with_crash_traces_says_where_it_died(node: Node, plane: ControlPlane) -> None:
    script = "import ctypes\ndef deep():\n    ctypes.string_at(0)\ndeep()\n"
    for name, features in (("r1", ()), ("r2", ("crash_traces",))):
        node.run(a_spec(name, script=script, script_name="a.py", features=features))
        assert plane.end_of(name).state == ReplicaState.FAILED
    assert "in deep" not in plane.logs["r1"]
    assert "in deep" in plane.logs["r2"]


def test_debug_words_tell_names_of_variables_and_no_values(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", "/bin/true", environment={"TOKEN": "hunter2-is-secret"}, debug=True))
    assert plane.end_of("r1").state == ReplicaState.SUCCEEDED
    words = "\n".join(told(plane, "r1"))
    assert "TOKEN" in words
    assert "hunter2" not in plane.logs["r1"]


@pytest.mark.parametrize("debug", [False, True])
def test_the_record_of_a_job_is_the_same(stack: Stack, world: World, debug: bool) -> None:
    node = FakeNode.join(stack, world)
    member = stack.client(world.member)
    body: dict[str, Any] = {"command": ["true"], "debug": debug}
    job = member.post("/jobs", body).json
    stack.run(stack.cycle)
    kinds = select(Event.kind).where(Event.job_id == job["id"]).order_by(Event.id)
    assert stack.run(lambda uow: list(uow.session.execute(kinds).scalars())) == [
        "job.submitted", "job.queued", "job.scheduled", "replica.placed",
    ]  # fmt: skip
    assert node.beat().stop == ()


def test_debug_is_true_or_false_and_nothing_else(stack: Stack, world: World) -> None:
    refused = stack.client(world.member).post("/jobs", {"command": ["true"], "debug": "no-monitoring"})
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "/debug")
