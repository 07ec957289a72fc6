"""A node with programs of its operator's around jobs, and jobs that do nothing, with real processes."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from agent import commands
from agent.reading import read_small
from tests.integration.agent.conftest import Node
from tests.support.agent_api import ControlPlane, a_spec, wait_until
from trellis.settings import SettingsError
from trellis.vocabulary import Cause, HangAction, ReplicaState
from trellis.wire import Report

SLEEPS = ("/bin/sh", "-c", "echo begun; exec sleep 300")


def a_program(folder: Path, name: str, text: str) -> str:
    program = folder / name
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return str(program)


def reports(plane: ControlPlane, replica_id: str = "r1") -> list[Report]:
    return plane.reports[replica_id]


def test_a_job_that_does_nothing_is_told_of_and_goes_on(node: Node, plane: ControlPlane) -> None:
    node.run(a_spec("r1", *SLEEPS, hang_after_s=1.0))
    wait_until(lambda: [one for one in reports(plane) if one.cause is Cause.HUNG])
    (told,) = [one for one in reports(plane) if one.cause is Cause.HUNG]
    assert (told.state, "printed nothing" in told.message) == (ReplicaState.RUNNING, True)
    assert plane.states_of("r1")[-1] == "running"
    wait_until(lambda: any("printed nothing" in line for line in plane.lines("r1", "s")))


@pytest.mark.parametrize("action", [HangAction.FAIL, HangAction.RESTART])
def test_a_job_that_does_nothing_is_ended_where_that_is_wished(
    node: Node, plane: ControlPlane, action: HangAction
) -> None:
    node.run(a_spec("r1", *SLEEPS, hang_after_s=0.8, hang_action=action, grace_s=0))
    ended = plane.end_of("r1")
    assert (ended.state, ended.cause) == (ReplicaState.FAILED, Cause.HUNG)


@pytest.mark.parametrize(
    "script",
    [
        "i=0; while [ $i -lt 25 ]; do i=$((i+1)); echo $i; sleep 0.1; done",
        "end=$(($(date +%s) + 3)); while [ $(date +%s) -lt $end ]; do :; done",
    ],
    ids=["prints", "computes"],
)
def test_a_job_that_prints_or_computes_does_not_hang(node: Node, plane: ControlPlane, script: str) -> None:
    node.run(a_spec("r1", "/bin/sh", "-c", script, hang_after_s=1.0, hang_action=HangAction.FAIL, grace_s=0))
    assert plane.end_of("r1").state == ReplicaState.SUCCEEDED


def test_a_job_that_is_held_still_does_not_hang(node: Node, plane: ControlPlane) -> None:
    script = "echo begun; while [ ! -e go ]; do sleep 0.05; done"
    node.run(a_spec("r1", "/bin/sh", "-c", script, hang_after_s=1.0))
    wait_until(lambda: plane.lines("r1"))
    plane.wish_still("r1")
    commands.stop([("r1", 1)])
    wait_until(lambda: plane.states_of("r1")[-1:] == ["suspended"])
    other = a_spec("r2", *SLEEPS, hang_after_s=2.0)  # its hang says that so much time has passed
    node.run(other)
    wait_until(lambda: [one for one in reports(plane, "r2") if one.cause is Cause.HUNG])
    assert [one for one in reports(plane) if one.cause is Cause.HUNG] == []


def test_programs_run_around_a_replica_and_hear_what_became_of_it(
    make_node: Callable[..., Node], plane: ControlPlane, tmp_path: Path
) -> None:
    record = tmp_path / "record"
    text = f'echo "$TRELLIS_HOOK $TRELLIS_REPLICA_ID $TRELLIS_OUTCOME $TRELLIS_EXIT_CODE" >> {record}'
    hooks = {"prolog": a_program(tmp_path, "prolog", text), "epilog": a_program(tmp_path, "epilog", text)}
    node = make_node(**hooks)
    node.run(a_spec("r1", "/bin/sh", "-c", "exit 3"))
    assert plane.end_of("r1").exit_code == 3
    assert record.read_text().splitlines() == ["prolog r1  ", "epilog r1 failed 3"]


def test_where_the_node_can_not_be_made_ready_the_job_never_starts_and_is_the_nodes_to_answer_for(
    make_node: Callable[..., Node], plane: ControlPlane, tmp_path: Path
) -> None:
    node = make_node(prolog=a_program(tmp_path, "prolog", "echo no licence server; exit 3"))
    node.run(a_spec("r1", "/bin/sh", "-c", "echo begun"))
    ended = plane.end_of("r1")
    assert (ended.state, ended.cause, "no licence server" in ended.message) == ("lost", Cause.NODE_FAULT, True)
    assert plane.lines("r1") == []
    told = wait_until(lambda: [run for beat in plane.heartbeats for run in beat.hooks])
    assert [(run.hook, run.ok, run.replica_id) for run in told] == [("prolog", False, "r1")]
    wait_until(lambda: not list(node.home.hooks.glob("*.json")))


def test_a_failing_program_after_a_replica_is_told_and_the_result_stands(
    make_node: Callable[..., Node], plane: ControlPlane, tmp_path: Path
) -> None:
    node = make_node(epilog=a_program(tmp_path, "epilog", "echo device busy; exit 1"))
    node.run(a_spec("r1", "true"))
    assert plane.end_of("r1").state == ReplicaState.SUCCEEDED
    told = wait_until(lambda: [run for beat in plane.heartbeats for run in beat.hooks])
    assert [(run.hook, run.ok, run.output) for run in told] == [("epilog", False, "device busy\n")]


def test_what_a_program_after_a_replica_leaves_running_is_no_part_of_the_next_one(
    make_node: Callable[..., Node], plane: ControlPlane, tmp_path: Path
) -> None:
    left = tmp_path / "left"
    text = f"[ -e {left} ] || {{ sleep 45 >/dev/null 2>&1 & echo $! > {left}; }}"
    node = make_node(epilog=a_program(tmp_path, "epilog", text))
    for name in ("r1", "r2"):
        node.run(a_spec(name, "true"))
        assert plane.end_of(name).state == ReplicaState.SUCCEEDED
        wait_until(lambda: not list(node.home.find_replicas()))
    pid = int(left.read_text())
    assert Path(f"/proc/{pid}").exists()
    os.kill(pid, signal.SIGKILL)


def test_a_node_that_can_not_be_made_ready_does_not_join(
    make_node: Callable[..., Node], plane: ControlPlane, tmp_path: Path
) -> None:
    with pytest.raises(SettingsError, match="no fabric"):
        make_node(on_join=a_program(tmp_path, "join", "echo no fabric; exit 1"))
    assert plane.heartbeats == []


def test_a_node_says_that_it_was_made_ready_and_what_its_check_finds(
    make_node: Callable[..., Node], plane: ControlPlane, tmp_path: Path
) -> None:
    record = tmp_path / "devices.json"
    record.write_text(json.dumps([{"index": 1, "uncorrected": 4}]))
    make_node(
        on_join=a_program(tmp_path, "join", "echo ready"), profile="h100x8", device_record=str(record),
        health_check=a_program(tmp_path, "health", "echo fan 2; exit 2"), health_every_s=0.2,
    )  # fmt: skip
    beat = wait_until(lambda: next((beat for beat in plane.heartbeats if beat.checkup), None))
    found = {(one.check, one.device) for one in beat.checkup.findings}
    assert {("ecc", 1), ("hook", None)} <= found
    told = wait_until(lambda: [run for beat in plane.heartbeats for run in beat.hooks])
    assert (told[0].hook, told[0].ok, told[0].output) == ("join", True, "ready\n")


def test_what_an_earlier_agent_left_running_without_any_record_is_ended(
    limited_node: Node, plane: ControlPlane
) -> None:
    limited_node.run(a_spec("r1", *SLEEPS))
    wait_until(lambda: plane.lines("r1"))
    replica = limited_node.home.replica("r1", 1)
    group = limited_node.groups.group(replica.path.name)
    assert group is not None
    supervisor = int(read_small(replica.lock))
    limited_node.daemon.stop()
    # Its supervisor is held, so that nobody but the next agent ends what it started.
    os.kill(supervisor, signal.SIGSTOP)
    try:
        assert group.pids()
        shutil.rmtree(replica.path)
        limited_node.start()
        wait_until(lambda: not group.pids())
    finally:
        os.kill(supervisor, signal.SIGKILL)
