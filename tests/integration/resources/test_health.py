"""What nodes find out about themselves, with real rows: what is kept from work for it, for how long, and who leaves."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.jobs.leaving import empty_nodes
from app.resources.health import GOOD_ROUNDS
from tests.integration.jobs.test_life import placed, plan, submit
from tests.integration.jobs.test_suspensions import held
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Caller, Stack
from tests.support.statements import counted
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import Cause, ReplicaState, Severity, StopReason

FULL = wire.Finding("disk", Severity.BAD, "the node's home has 1 MiB free")
ECC = wire.Finding("ecc", Severity.BAD, "4 errors in its memory could not be corrected", 1)
HOT = wire.Finding("heat", Severity.WARNING, "91 °C: it slows itself down", 0)
WHOLE = {"cpus": 1, "memory": "1GiB", "gpus": 1}


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


@pytest.fixture
def admin(stack: Stack, world: World) -> Caller:
    return stack.client(world.admin)


@pytest.fixture
def nodes(stack: Stack, world: World) -> list[FakeNode]:
    return [FakeNode.join(stack, world, a_description(f"node-{i}", gpus=2)) for i in (1, 2, 3)]


@pytest.fixture
def look(admin: Caller) -> Callable[[FakeNode], dict[str, Any]]:
    """The node as it is shown."""

    def shown(node: FakeNode) -> dict[str, Any]:
        found: dict[str, Any] = admin.get(f"/resources/nodes/{node.welcome.node_id}").json
        return found

    return shown


def events(stack: Stack, node: FakeNode) -> list[str]:
    return stack.events_of(UUID(node.welcome.node_id))


def only(stack: Stack, *names: str) -> None:
    """Let the others be out of reach."""
    statement = text("UPDATE nodes SET state = 'unreachable' WHERE name <> ALL(:names)")
    stack.run(lambda uow: uow.session.execute(statement, {"names": list(names)}))


def start(stack: Stack, node: FakeNode, caller: Caller, **body: Any) -> tuple[str, wire.ReplicaSpec]:
    """A job that runs on the node."""
    known = {spec.replica_id for spec in placed(stack, node)}
    job = submit(caller, **body)
    plan(stack)
    (spec,) = [spec for spec in placed(stack, node) if spec.replica_id not in known]
    node.ship(*(node.report(spec, state) for state in (ReplicaState.STARTING, ReplicaState.RUNNING)))
    return job["id"], spec


Look = Callable[[FakeNode], dict[str, Any]]


def test_a_node_that_is_not_well_takes_no_work_until_it_was_well_for_some_rounds(
    stack: Stack, nodes: list[FakeNode], look: Look
) -> None:
    node = nodes[0]
    node.check_up(FULL)
    shown = look(node)
    assert (shown["state"], shown["quarantine"]["by"]) == ("quarantined", "health")
    assert "1 MiB free" in shown["quarantine"]["reason"]
    assert [(one["check"], one["severity"]) for one in shown["findings"]] == [("disk", "bad")]
    for _ in range(GOOD_ROUNDS - 1):
        node.check_up()
    assert look(node)["state"] == "quarantined"
    node.check_up()
    assert (look(node)["state"], look(node)["quarantine"], look(node)["findings"]) == ("ready", None, [])
    told = events(stack, node)
    assert told == ["node.joined", "node.health_changed", "node.quarantined", "node.health_changed", "node.ready"]


def test_one_bad_round_among_good_ones_begins_the_count_anew(nodes: list[FakeNode], look: Look) -> None:
    node = nodes[0]
    for findings in ((FULL,), (), (), (FULL,), (), ()):
        node.check_up(*findings)
    assert look(node)["state"] == "quarantined"
    node.check_up()
    assert look(node)["state"] == "ready"


def test_heartbeats_without_a_new_round_count_nothing(nodes: list[FakeNode], look: Look) -> None:
    node = nodes[0]
    node.check_up(FULL)
    for _ in range(2 * GOOD_ROUNDS):
        node.beat(checkup=wire.Checkup(1, ()))
    assert look(node)["state"] == "quarantined"


def test_a_warning_is_shown_and_keeps_nothing_away(nodes: list[FakeNode], look: Look, admin: Caller) -> None:
    nodes[0].check_up(HOT)
    shown = look(nodes[0])
    since = shown["findings"][0]["since"]
    assert (shown["state"], shown["findings"][0]["device"]) == ("ready", 0)
    nodes[0].check_up(HOT)
    assert look(nodes[0])["findings"][0]["since"] == since
    unwell = admin.get("/resources/nodes?healthy=false").json["items"]
    assert [one["name"] for one in unwell] == ["node-1"]
    assert len(admin.get("/resources/nodes?healthy=true").json["items"]) == 2


def test_a_clock_that_is_off_is_a_warning(nodes: list[FakeNode], look: Look) -> None:
    late = (datetime.now(UTC) - timedelta(minutes=5)).isoformat()
    nodes[0].check_up(at=late)
    assert [(one["check"], one["severity"]) for one in look(nodes[0])["findings"]] == [("clock", "warning")]
    nodes[0].check_up(at=datetime.now(UTC).isoformat())
    assert look(nodes[0])["findings"] == []
    nodes[0].check_up(at="yesterday")
    assert look(nodes[0])["findings"] == []


def test_a_device_that_is_not_well_is_given_to_nobody_and_the_others_are(
    stack: Stack, nodes: list[FakeNode], look: Look, member: Caller
) -> None:
    only(stack, "node-1")
    node = nodes[0]
    node.check_up(ECC)
    shown = look(node)
    assert (shown["state"], [gpu["quarantine"] is None for gpu in shown["gpus"]]) == ("ready", [True, False])
    submit(member, resources=WHOLE), submit(member, resources=WHOLE)
    assert plan(stack) == 1
    ((only_one,),) = [[gpu.index for gpu in spec.gpus] for spec in placed(stack, node)]
    assert only_one == 0
    for _ in range(GOOD_ROUNDS):
        node.check_up()
    assert [gpu["quarantine"] for gpu in look(node)["gpus"]] == [None, None]
    assert plan(stack) == 1


def test_a_device_that_was_in_use_when_it_failed_is_given_to_nobody_when_it_is_free(
    stack: Stack, nodes: list[FakeNode], member: Caller
) -> None:
    only(stack, "node-1")
    node = nodes[0]
    started = [start(stack, node, member, resources=WHOLE)[1] for _ in range(2)]
    (faulty,) = [spec for spec in started if spec.gpus[0].index == 1]
    node.check_up(ECC)
    submit(member, resources=WHOLE)
    assert plan(stack) == 0
    node.succeed_running(faulty)
    assert plan(stack) == 0
    (well,) = [spec for spec in started if spec is not faulty]
    node.succeed_running(well)
    assert plan(stack) == 1
    assert [spec.gpus[0].index for spec in placed(stack, node)] == [0]


def test_who_runs_where_it_is_not_well_and_can_go_on_elsewhere_moves(
    stack: Stack, nodes: list[FakeNode], member: Caller
) -> None:
    only(stack, "node-1")
    node = nodes[0]
    _, moves = start(stack, node, member, resources=WHOLE, checkpointable=True)
    _, stays = start(stack, node, member, resources=WHOLE)
    node.check_up(wire.Finding("xid", Severity.BAD, "Xid 79", moves.gpus[0].index))
    stack.run(empty_nodes)
    stops = {
        stop.replica_id: stop.reason
        for stop in node.beat(*(held(s, ReplicaState.RUNNING) for s in (moves, stays))).stop
    }
    assert stops == {moves.replica_id: StopReason.MIGRATED}


def test_who_waits_hears_how_many_nodes_are_kept_from_work_and_why(
    stack: Stack, nodes: list[FakeNode], admin: Caller, member: Caller
) -> None:
    nodes[0].check_up(FULL)
    for node, verb in ((nodes[1], "drain"), (nodes[2], "cordon")):
        admin.put(f"/resources/nodes/{node.welcome.node_id}/{verb}")
    job = submit(member)["id"]
    plan(stack)
    told = "3 nodes that could hold it are not ready; 1 node is cordoned, 1 node is draining, 1 node is quarantined"
    assert member.get(f"/jobs/{job}").json["why"] == told


def test_an_operators_quarantine_lasts_until_an_operator_ends_it(
    stack: Stack, nodes: list[FakeNode], look: Look, admin: Caller, member: Caller
) -> None:
    path = f"/resources/nodes/{nodes[0].welcome.node_id}"
    assert admin.put(f"{path}/quarantine", {"reason": "smells burnt"}).json["state"] == "quarantined"
    for _ in range(2 * GOOD_ROUNDS):
        nodes[0].check_up()
    assert look(nodes[0])["quarantine"]["reason"] == "smells burnt"
    _, spec = start(stack, nodes[1], member, resources=WHOLE, constraints={"selector": [_named("node-2")]})
    assert admin.put(f"/resources/nodes/{nodes[1].welcome.node_id}/quarantine").json["state"] == "quarantined"
    stack.run(empty_nodes)
    assert nodes[1].beat(held(spec, ReplicaState.RUNNING)).stop == ()
    assert admin.put(f"{path}/release", {"reason": "it was lunch"}).json["state"] == "ready"


def _named(name: str) -> dict[str, Any]:
    return {"label": "name", "operator": "in", "values": [name]}


def test_one_device_is_quarantined_and_released_by_hand(nodes: list[FakeNode], look: Look, admin: Caller) -> None:
    path = f"/resources/nodes/{nodes[0].welcome.node_id}"
    admin.put(f"{path}/quarantine", {"device": 1, "reason": "noisy"})
    nodes[0].check_up(HOT)
    for _ in range(2 * GOOD_ROUNDS):
        nodes[0].check_up()
    shown = look(nodes[0])
    assert (shown["state"], [gpu["quarantine"] and gpu["quarantine"]["by"] for gpu in shown["gpus"]]) == (
        "ready", [None, "operator"],
    )  # fmt: skip
    refused = admin.put(f"{path}/quarantine", {"device": 7})
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "/device")
    admin.put(f"{path}/release", {"device": 1})
    assert [gpu["quarantine"] for gpu in look(nodes[0])["gpus"]] == [None, None]


def test_no_more_than_a_part_of_the_nodes_is_kept_from_work_by_the_platform_itself(
    stack: Stack, nodes: list[FakeNode], look: Look
) -> None:
    for node in nodes:
        node.check_up(FULL)
    assert sorted(look(node)["state"] for node in nodes) == ["quarantined", "ready", "ready"]
    assert all(look(node)["findings"] for node in nodes)
    doubted = "SELECT count(*) FROM events WHERE kind = 'node.health_changed' AND data ->> 'doubted' = 'true'"
    assert stack.run(lambda uow: uow.session.execute(text(doubted)).scalar_one()) == 2


def fail_start(node: FakeNode, spec: wire.ReplicaSpec, message: str) -> None:
    starting = node.report(spec, ReplicaState.STARTING)
    node.ship(starting, node.report(spec, ReplicaState.FAILED, cause=Cause.START_FAILED, message=message))


def place(stack: Stack, node: FakeNode, caller: Caller) -> wire.ReplicaSpec:
    submit(caller)
    plan(stack)
    (spec,) = placed(stack, node)
    return spec


def test_a_node_on_which_job_after_job_fails_to_start_is_kept_from_work_for_a_while(
    stack: Stack, nodes: list[FakeNode], look: Look, admin: Caller, member: Caller
) -> None:
    for number in range(3):
        assert look(nodes[0])["state"] == "ready", number
        only(stack, "node-1")
        spec = place(stack, nodes[0], member)
        for other in nodes[1:]:
            other.beat()
        fail_start(nodes[0], spec, "its control group can't be used")
    shown = look(nodes[0])
    assert (shown["state"], shown["quarantine"]["by"]) == ("quarantined", "starts")
    assert "3 jobs in a row" in shown["quarantine"]["reason"]
    assert "control group" not in shown["quarantine"]["reason"], "every project may read it, and these words are one's"
    (told,) = admin.get(f"/resources/nodes/{nodes[0].welcome.node_id}/events?limit=1").json["items"]
    assert told["reason"] == "3 jobs in a row failed to start: its control group can't be used"
    for _ in range(2 * GOOD_ROUNDS):
        nodes[0].check_up()
    assert look(nodes[0])["state"] == "quarantined"  # nothing was found, and nothing would be: its time must pass
    past = "UPDATE nodes SET quarantine = jsonb_set(quarantine, '{until}', to_jsonb(now() - interval '1s'))"
    stack.run(lambda uow: uow.session.execute(text(f"{past} WHERE quarantine IS NOT NULL")))
    nodes[0].check_up()
    assert look(nodes[0])["state"] == "ready"


def test_a_start_in_between_and_words_heard_elsewhere_speak_for_the_node(
    stack: Stack, nodes: list[FakeNode], look: Look, member: Caller
) -> None:
    for number in range(4):
        only(stack, "node-1")
        spec = place(stack, nodes[0], member)
        for other in nodes[1:]:
            other.beat()
        if number == 2:
            nodes[0].succeed(spec)
        else:
            fail_start(nodes[0], spec, "broken")
    assert look(nodes[0])["state"] == "ready"
    for number in range(4):
        target = nodes[1] if number else nodes[2]
        only(stack, "node-2" if number else "node-3")
        spec = place(stack, target, member)
        for other in nodes:
            other.beat()
        fail_start(target, spec, "there is no such program")
    assert look(nodes[1])["state"] == "ready"


def test_a_node_that_could_not_be_made_ready_is_kept_from_work_and_the_job_goes_elsewhere(
    stack: Stack, nodes: list[FakeNode], look: Look, member: Caller
) -> None:
    only(stack, "node-1")
    job = submit(member)["id"]
    plan(stack)
    (spec,) = placed(stack, nodes[0])
    nodes[1].beat()
    report = nodes[0].report(spec, ReplicaState.LOST, cause=Cause.NODE_FAULT, message="the program ended with 3")
    nodes[0].ship(nodes[0].report(spec, ReplicaState.STARTING), report)
    shown = look(nodes[0])
    assert (shown["state"], shown["quarantine"]["by"]) == ("quarantined", "hook")
    plan(stack)
    assert [one.job_id for one in placed(stack, nodes[1])] == [job]


def test_what_hooks_said_is_in_the_nodes_events_for_its_operators(
    stack: Stack, nodes: list[FakeNode], look: Look, admin: Caller, member: Caller
) -> None:
    ran = wire.HookRun("join", ok=True, output="ready\n")
    failed = wire.HookRun("epilog", ok=False, output="device busy\n", replica_id="r1")
    nodes[0].beat(hooks=(ran, failed))
    assert look(nodes[0])["state"] == "quarantined"
    assert "device busy" not in member.get("/resources/nodes").text  # it is the operators' to read
    path = f"/resources/nodes/{nodes[0].welcome.node_id}/events"
    found = admin.get(path).json
    assert [one["kind"] for one in found["items"]] == [
        "node.quarantined", "node.hook_failed", "node.hook_ran", "node.joined",
    ]  # fmt: skip
    assert found["items"][1]["data"]["output"] == "device busy\n"
    first = admin.get(f"{path}?limit=2").json
    rest = admin.get(f"{path}?limit=2&cursor={first['next_cursor']}").json
    assert [*first["items"], *rest["items"]] == found["items"]
    assert admin.get(f"{path}?cursor=x").status == 422
    assert member.get(path).status == 403


def test_of_a_node_that_is_distrusted_already_health_counts_as_much(
    stack: Stack, nodes: list[FakeNode], look: Look, member: Caller
) -> None:
    only(stack, "node-1")
    _, spec = start(stack, nodes[0], member, checkpointable=True)
    failed = wire.HookRun("epilog", ok=False, output="")
    nodes[0].beat(hooks=(failed,))
    stack.run(empty_nodes)
    assert nodes[0].beat(held(spec, ReplicaState.RUNNING)).stop == ()  # what runs there is in no danger
    nodes[0].check_up(FULL)
    assert look(nodes[0])["quarantine"]["by"] == "health"
    nodes[0].beat(hooks=(failed,))
    assert look(nodes[0])["quarantine"]["by"] == "health", "a hook fails where nothing can be written"
    stack.run(empty_nodes)
    assert [stop.reason for stop in nodes[0].beat(held(spec, ReplicaState.RUNNING)).stop] == [StopReason.MIGRATED]


def test_a_job_that_hangs_is_told_of_in_its_events(stack: Stack, nodes: list[FakeNode], member: Caller) -> None:
    only(stack, "node-1")
    job, spec = start(stack, nodes[0], member, hang_after="10m")
    assert (spec.hang_after_s, spec.hang_action) == (600.0, "warn")
    words = "it printed nothing and used no CPU and no device for 600 s"
    nodes[0].ship(nodes[0].report(spec, ReplicaState.RUNNING, cause=Cause.HUNG, message=words))
    found = member.get(f"/jobs/{job}/events?kind=replica.hung").json["items"]
    assert [one["reason"] for one in found] == [words]
    assert member.get(f"/jobs/{job}").json["state"] == "running"


@pytest.mark.parametrize(("action", "state"), [("restart", "queued"), ("fail", "failed")])
def test_a_job_that_was_ended_for_hanging_goes_as_was_wished(
    stack: Stack, nodes: list[FakeNode], member: Caller, action: str, state: str
) -> None:
    only(stack, "node-1")
    job, spec = start(stack, nodes[0], member, hang_after=60, hang_action=action)
    nodes[0].ship(nodes[0].report(spec, ReplicaState.FAILED, cause=Cause.HUNG, message="hung"))
    assert member.get(f"/jobs/{job}").json["state"] == state


def test_a_project_says_when_jobs_hang_that_say_nothing_of_it(
    stack: Stack, world: World, nodes: list[FakeNode], member: Caller
) -> None:
    only(stack, "node-1")
    chief, path = stack.client(world.project_admin), f"/projects/{world.project.id}"
    assert chief.patch(path, {"hang_after": "1h"}).json["hang_after_s"] == 3600
    assert member.patch(path, {"hang_after": "1h"}).status == 403
    for said, expected in (({}, 3600.0), ({"hang_after": 0}, 0.0), ({"hang_after": "5m"}, 300.0)):
        _, spec = start(stack, nodes[0], member, **said)
        assert spec.hang_after_s == expected


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"load_percent": 101}, "/load_percent"),
        ({"memory_used_bytes": -1}, "/memory_used_bytes"),
        ({"load_percent": float("nan")}, "/load_percent"),
        ({"disk_free_bytes": 2**63}, "/disk_free_bytes"),
        ({"gpus": [wire.pack(wire.GpuReading(0, 0, 0, 10**6, 0))]}, "/gpus/0/temperature_c"),
        ({"gpus": [wire.pack(wire.GpuReading(99, 0, 0, 0, 0))]}, "/gpus/0/index"),
        ({"gpus": [wire.pack(wire.GpuReading(0, 0, 0, 0, 0))] * 65}, "/gpus"),
        ({"gpus": [wire.pack(wire.GpuReading(0, 0, 0, 0, 0)) | {"power_w": float("inf")}]}, "/gpus/0/power_w"),
        ({"checkup": {"number": -1, "findings": []}}, "/checkup"),
        ({"checkup": {"number": 1, "findings": [wire.pack(FULL)] * 101}}, "/checkup"),
        ({"checkup": {"number": 1, "findings": [wire.pack(FULL) | {"message": "x" * 3000}]}}, "/checkup/findings/0"),
        ({"checkup": {"number": 1, "findings": [wire.pack(ECC) | {"device": 64}]}}, "/checkup/findings/0/device"),
        ({"checkup": {"number": 1, "findings": [wire.pack(FULL) | {"severity": "fatal"}]}}, "/checkup/findings/0/severity"),
        ({"hooks": [wire.pack(wire.HookRun("epilog", ok=False, output="x" * 3000))]}, "/hooks/0"),
        ({"at": "x" * 100}, "/at"),
    ],
)  # fmt: skip
def test_readings_that_can_not_be_are_refused_by_name_and_change_nothing(
    stack: Stack, nodes: list[FakeNode], changes: dict[str, Any], pointer: str
) -> None:
    body = wire.pack(wire.Heartbeat((), 1, 1, 1)) | changes
    before = stack.dump()
    refused = nodes[0].caller.post("/agent/heartbeat", body)
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, pointer), refused.text
    assert stack.dump() == before
    nodes[0].beat()


def test_text_in_a_finding_is_kept_as_text(nodes: list[FakeNode], look: Look) -> None:
    words = "'; DROP TABLE nodes; -- <script> \x1b[31m {{7*7}}"
    nodes[0].check_up(wire.Finding("hook", Severity.WARNING, words))
    assert look(nodes[0])["findings"][0]["message"] == words


def test_a_node_that_is_well_costs_no_statement_more(stack: Stack, nodes: list[FakeNode]) -> None:
    nodes[0].check_up()
    with counted(stack) as quiet:
        nodes[0].beat()
    with counted(stack) as checked:
        nodes[0].check_up()
    assert len(checked) == len(quiet)
