"""Replicas of one job on a real node: they begin together, find each other, and are told when they can't."""

import json
import socket
import sys
from functools import partial
from pathlib import Path
from typing import Any

from agent import rendezvous
from tests.integration.agent.conftest import Node
from tests.support.agent_api import ControlPlane, a_spec, wait_until
from trellis.stores.local import LocalStore
from trellis.stores.urls import SIGN
from trellis.vocabulary import Cause, NetworkPolicy, ReplicaState, StopReason
from trellis.wire import CheckpointPlan, ReplicaSpec

SAY = "import json, os, pathlib; print(json.dumps({**os.environ, 'hosts': pathlib.Path(os.environ['TRELLIS_HOSTFILE']).read_text(), 'hydra': pathlib.Path(os.environ['HYDRA_HOST_FILE']).read_text()}))"


def one_of(name: str, index: int, *command: str, size: int = 2, **changes: Any) -> ReplicaSpec:
    usual = {"gang": True, "count": size, "index": index, "network": NetworkPolicy.HOST}
    return a_spec(name, *(command or (sys.executable, "-c", SAY)), **{**usual, **changes})


def said(plane: ControlPlane, name: str) -> dict[str, str]:
    assert plane.end_of(name).state is ReplicaState.SUCCEEDED, plane.logs[name]
    found: dict[str, str] = json.loads(plane.lines(name)[0])
    return found


def test_replicas_wait_for_each_other_and_then_know_each_other(confined_node: Node, plane: ControlPlane) -> None:
    confined_node.run(
        one_of("r0", 0, environment={"RANK": "9", "MASTER_ADDR": "evil", "GLOO_SOCKET_IFNAME": "mine"}), one_of("r1", 1)
    )
    world_at = [wait_until(partial(plane.ready_of, name)) for name in ("r0", "r1")]
    assert plane.states_of("r0") == plane.states_of("r1") == ["starting", "starting"]
    assert len({one.port for one in world_at}) == 2
    world = plane.let_begin("r0", "r1")
    first, second = said(plane, "r0"), said(plane, "r1")
    assert [env["RANK"] + env["LOCAL_RANK"] + env["WORLD_SIZE"] for env in (first, second)] == ["002", "112"]
    assert {env["MASTER_PORT"] for env in (first, second)} == {str(world.ports[0])}
    assert (first["MASTER_ADDR"], second["MASTER_ADDR"]) == ("127.0.0.1", "127.0.0.1")
    assert (first["GLOO_SOCKET_IFNAME"], second["GLOO_SOCKET_IFNAME"]) == ("mine", "lo")
    assert (first["hosts"], first["hydra"]) == ("127.0.0.1 slots=2\n", "127.0.0.1:2\n")
    assert [env["PET_RDZV_CONF"] for env in (first, second)] == ["is_host=1", "is_host=0"]
    assert plane.states_of("r0") == ["starting", "starting", "running", "succeeded"]


def test_a_replica_that_waits_can_be_ended(node: Node, plane: ControlPlane) -> None:
    node.run(one_of("r0", 0))
    wait_until(lambda: plane.ready_of("r0"))
    plane.wish_end("r0", StopReason.CANCELLED)
    assert plane.end_of("r0").state is ReplicaState.CANCELLED
    assert plane.states_of("r0") == ["starting", "starting", "cancelled"]


def test_without_a_network_a_replica_is_told_its_rank_and_that_it_reaches_nobody(
    node: Node, plane: ControlPlane
) -> None:
    node.run(*(one_of(f"r{rank}", rank, network=NetworkPolicy.NONE) for rank in range(2)))
    plane.let_begin("r0", "r1")
    env = said(plane, "r1")
    assert (env["RANK"], "MASTER_ADDR" in env, "PET_NNODES" in env) == ("1", False, False)
    assert plane.lines("r1", "s") == [rendezvous.UNREACHABLE]


def test_a_host_file_is_closed_to_other_users(node: Node, plane: ControlPlane) -> None:
    node.run(one_of("r0", 0, "/bin/sh", "-c", "stat -c %a $TRELLIS_HOSTFILE; sleep 0", size=1))
    plane.let_begin("r0")
    plane.end_of("r0")
    assert plane.lines("r0") == ["600"]


def test_a_port_that_another_program_took_in_between_is_no_fault_of_the_job(node: Node, plane: ControlPlane) -> None:
    script = "while [ ! -e go ]; do sleep 0.05; done; exit 1"
    node.run(one_of("r0", 0, "/bin/sh", "-c", script, size=1))
    world = plane.let_begin("r0")
    wait_until(lambda: "running" in plane.states_of("r0"))
    with socket.create_server(("127.0.0.1", world.ports[0])):
        Path(node.home.replica("r0", 1).work, "go").touch()
        end = plane.end_of("r0")
    assert (end.cause, end.message) == (Cause.RENDEZVOUS_FAILED, rendezvous.ROBBED.message)


def test_a_program_that_fails_by_itself_is_not_excused(node: Node, plane: ControlPlane) -> None:
    listen = "import os, socket, sys; s = socket.create_server(('', int(os.environ['MASTER_PORT']))); sys.exit(3)"
    node.run(one_of("r0", 0, sys.executable, "-c", listen, size=1))
    plane.let_begin("r0")
    end = plane.end_of("r0")
    assert (end.cause, end.exit_code) == (Cause.EXIT_CODE, 3)


def test_what_the_others_go_on_from_and_is_damaged_here_keeps_a_replica_from_starting(
    node: Node, plane: ControlPlane, tmp_path: Path
) -> None:
    LocalStore(tmp_path).write(SIGN, [b"a store"])
    plan = CheckpointPlan(
        f"file://{tmp_path}", "00" * 32, 0, 5, restore=("manifests/p/j/gone",), saves=False, shared=True
    )
    node.run(one_of("r1", 1, checkpoint=plan))
    end = plane.end_of("r1")
    assert (end.cause, "can't be restored" in end.message) == (Cause.START_FAILED, True)


def test_who_does_not_save_for_the_others_is_told_so_and_not_waited_for_at_its_end(
    node: Node, plane: ControlPlane, tmp_path: Path
) -> None:
    LocalStore(tmp_path).write(SIGN, [b"a store"])
    plan = CheckpointPlan(f"file://{tmp_path}", "00" * 32, 0, 5, saves=False, shared=True)
    script = (
        "cd $TRELLIS_CHECKPOINT_DIR; echo x > part; echo {} > m; mv m .complete; while [ ! -e go ]; do sleep 0.05; done"
    )
    node.run(one_of("r1", 0, "/bin/sh", "-c", script, size=1, checkpoint=plan))
    plane.let_begin("r1")
    wait_until(lambda: any("replica 0 saves" in line for line in plane.lines("r1", "s")))
    Path(node.home.replica("r1", 1).checkpoints, "go").touch()
    assert plane.end_of("r1").state is ReplicaState.SUCCEEDED
    assert not plane.saved["r1"]


def test_who_does_not_save_leaves_the_one_who_does_the_time_for_it(
    node: Node, plane: ControlPlane, tmp_path: Path
) -> None:
    LocalStore(tmp_path).write(SIGN, [b"a store"])
    plan = CheckpointPlan(f"file://{tmp_path}", "00" * 32, 0, 5, saves=False, shared=True)
    script = "trap 'echo told; exit 0' TERM; echo up; while :; do [ -e ../checkpoint.asked ] && [ -z $asked ] && asked=1 && echo asked; sleep 0.05; done"
    node.run(one_of("r1", 0, "/bin/bash", "-c", script, size=1, checkpoint=plan))
    plane.let_begin("r1")
    wait_until(lambda: plane.lines("r1") == ["up"])
    plane.wish_end("r1", StopReason.PREEMPTED, grace_s=2)
    assert plane.end_of("r1").state is ReplicaState.PREEMPTED
    assert plane.lines("r1") == ["up", "asked", "told"]  # asked first; TERM only after its share of the grace
