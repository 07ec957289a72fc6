"""Nodes that are drained, with real rows: who leaves, who may stay and until when, when it is quiet, and maintenance."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from app.jobs.leaving import empty_nodes
from app.resources.allocations import release_expired
from app.resources.reservations import follow_windows
from tests.integration.jobs.test_life import placed, plan, submit
from tests.integration.jobs.test_suspensions import change, held, state_of
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Answer, Caller, Stack
from tests.support.statements import counted
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import Cause, ReplicaState, StopReason

NODES = ("node-1", "node-2")


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


@pytest.fixture
def admin(stack: Stack, world: World) -> Caller:
    return stack.client(world.admin)


@pytest.fixture
def nodes(stack: Stack, world: World) -> dict[str, FakeNode]:
    return {name: FakeNode.join(stack, world, a_description(name, gpus=1)) for name in NODES}


def begin(stack: Stack, nodes: dict[str, FakeNode], caller: Caller, **body: Any) -> tuple[str, str, wire.ReplicaSpec]:
    """A job that runs: its id, the name of its node, and its replica."""
    known = {spec.replica_id for node in nodes.values() for spec in placed(stack, node)}
    job = submit(caller, **{"grace": 7, **body})
    plan(stack)
    ((name, spec),) = [(n, s) for n, node in nodes.items() for s in placed(stack, node) if s.replica_id not in known]
    nodes[name].ship(*(nodes[name].report(spec, state) for state in (ReplicaState.STARTING, ReplicaState.RUNNING)))
    return job["id"], name, spec


def drain(caller: Caller, node: FakeNode, **body: Any) -> Answer:
    return caller.put(f"/resources/nodes/{node.welcome.node_id}/drain", body)


def node_of(caller: Caller, node: FakeNode) -> dict[str, Any]:
    found: dict[str, Any] = caller.get(f"/resources/nodes/{node.welcome.node_id}").json
    return found


def stops(node: FakeNode, spec: wire.ReplicaSpec) -> list[tuple[StopReason, int]]:
    return [(stop.reason, stop.grace_s) for stop in node.beat(held(spec, ReplicaState.RUNNING)).stop]


def turn_back(stack: Stack, seconds: float) -> None:
    """Let the deadlines of all drains have been so much earlier."""
    statement = """UPDATE nodes SET drain = jsonb_set(drain, '{until}',
        to_jsonb((drain ->> 'until')::timestamptz - make_interval(secs => :s))) WHERE drain ->> 'until' IS NOT NULL"""
    stack.run(lambda uow: uow.session.execute(text(statement), {"s": seconds}))


def test_an_idle_node_is_drained_at_once_and_takes_nothing_until_it_is_undrained(
    stack: Stack, nodes: dict[str, FakeNode], admin: Caller, member: Caller
) -> None:
    asked = drain(admin, nodes["node-1"], reason="new drivers")
    assert (asked.json["state"], asked.json["drain"]["reason"]) == ("draining", "new drivers")
    stack.run(empty_nodes)
    found = node_of(admin, nodes["node-1"])
    assert (found["state"], found["jobs_left"], found["drain"]["quiet_at"] is None) == ("drained", 0, False)
    for _ in range(2):
        assert begin(stack, nodes, member)[1] == "node-2"
    back = admin.put(f"/resources/nodes/{nodes['node-1'].welcome.node_id}/undrain", {"reason": "done"})
    assert (back.json["state"], back.json["drain"]) == ("ready", None)
    assert stack.events_of(UUID(nodes["node-1"].welcome.node_id)) == [
        "node.joined",
        "node.draining",
        "node.drained",
        "node.ready",
    ]


def test_who_can_go_on_elsewhere_moves_at_once_and_the_node_is_quiet_when_it_has_left(
    stack: Stack, nodes: dict[str, FakeNode], admin: Caller, member: Caller
) -> None:
    job, here, spec = begin(stack, nodes, member, checkpointable=True)
    drain(admin, nodes[here], reason="new drivers")
    stack.run(empty_nodes)
    assert stops(nodes[here], spec) == [(StopReason.MIGRATED, 7)]
    assert (node_of(admin, nodes[here])["state"], node_of(admin, nodes[here])["jobs_left"]) == ("draining", 1)
    stack.run(empty_nodes)  # asks nobody twice
    events = [one["kind"] for one in member.get(f"/jobs/{job}/events").json["items"]]
    assert events.count("job.migration_asked") == 1
    nodes[here].ship(nodes[here].report(spec, ReplicaState.PREEMPTED, cause=Cause.MIGRATED, message="moves"))
    stack.run(empty_nodes)
    assert node_of(admin, nodes[here])["state"] == "drained"
    plan(stack)
    found = member.get(f"/jobs/{job}?verbose=true").json
    assert (found["attempt"], found["attempts"][0]["replicas"][0]["node"]) == (2, min(set(NODES) - {here}))
    assert '"preemptions": 0' in stack.dump()


def test_who_would_begin_again_may_stay_until_the_deadline_and_is_queued_again_then(
    stack: Stack, nodes: dict[str, FakeNode], admin: Caller, member: Caller
) -> None:
    job, here, spec = begin(stack, nodes, member)
    drain(admin, nodes[here], deadline="30m")
    stack.run(empty_nodes)
    assert stops(nodes[here], spec) == []
    turn_back(stack, 1801)
    stack.run(empty_nodes)
    assert stops(nodes[here], spec) == [(StopReason.PREEMPTED, 7)]
    nodes[here].ship(nodes[here].report(spec, ReplicaState.PREEMPTED, cause=Cause.PREEMPTED, message="made way"))
    found = member.get(f"/jobs/{job}").json
    assert (found["state"], found["message"]) == ("queued", f"node {here} is drained")


def test_who_fails_by_itself_while_it_is_told_to_leave_says_so(
    stack: Stack, nodes: dict[str, FakeNode], admin: Caller, member: Caller
) -> None:
    job, here, spec = begin(stack, nodes, member)
    drain(admin, nodes[here], deadline=0)
    stack.run(empty_nodes)
    assert member.get(f"/jobs/{job}").json["message"] == f"node {here} is drained"
    nodes[here].ship(nodes[here].report(spec, ReplicaState.FAILED, cause=Cause.EXIT_CODE, message="exit code 3"))
    assert member.get(f"/jobs/{job}").json["message"] == "exit code 3"


def test_whose_rule_for_preemption_allows_no_other_try_fails_at_the_deadline(
    stack: Stack, nodes: dict[str, FakeNode], admin: Caller, member: Caller
) -> None:
    job, here, spec = begin(stack, nodes, member, retries={"by_cause": {"preempted": {"limit": 0}}})
    drain(admin, nodes[here], deadline=0)
    stack.run(empty_nodes)
    nodes[here].ship(nodes[here].report(spec, ReplicaState.PREEMPTED, cause=Cause.PREEMPTED, message="made way"))
    assert member.get(f"/jobs/{job}").json["state"] == "failed"


def test_without_moving_jobs_stay_until_the_deadline(
    stack: Stack, nodes: dict[str, FakeNode], admin: Caller, member: Caller
) -> None:
    _, here, spec = begin(stack, nodes, member, checkpointable=True)
    drain(admin, nodes[here], deadline="10m", migrate=False)
    stack.run(empty_nodes)
    assert stops(nodes[here], spec) == []
    turn_back(stack, 601)
    stack.run(empty_nodes)
    assert stops(nodes[here], spec) == [(StopReason.MIGRATED, 7)]


def test_what_is_parked_on_a_drained_node_is_ended_and_goes_on_elsewhere_when_resumed(
    stack: Stack, nodes: dict[str, FakeNode], admin: Caller, member: Caller
) -> None:
    job, here, spec = begin(stack, nodes, member, checkpointable=True)
    change(member, {"id": job}, "suspend")
    nodes[here].ship(nodes[here].report(spec, ReplicaState.SUSPENDED))
    drain(admin, nodes[here])
    assert node_of(admin, nodes[here])["jobs_left"] == 1
    stack.run(empty_nodes)
    (stop,) = nodes[here].beat(held(spec, ReplicaState.SUSPENDED)).stop
    assert stop.reason is StopReason.DISPLACED
    nodes[here].ship(nodes[here].report(spec, ReplicaState.PREEMPTED, cause=Cause.SUSPENDED, message="room"))
    stack.run(empty_nodes)
    assert (node_of(admin, nodes[here])["state"], state_of(member, {"id": job})) == ("drained", "suspended")


def test_what_is_held_without_a_job_is_given_back_at_the_deadline(
    stack: Stack, nodes: dict[str, FakeNode], admin: Caller, member: Caller
) -> None:
    made = member.post("/resources/allocate", {"cpus": 1, "ttl": "5h"}).json
    node = nodes[made["node"]]
    drain(admin, node, deadline=0)
    stack.run(empty_nodes)
    stack.run(release_expired)
    stack.run(empty_nodes)
    assert node_of(admin, node)["state"] == "drained"
    assert member.get(f"/resources/allocations/{made['id']}").json["released_at"] is not None


def test_a_drained_node_that_was_silent_comes_back_drained(
    stack: Stack, world: World, nodes: dict[str, FakeNode], admin: Caller
) -> None:
    stack.run(lambda uow: uow.session.execute(text("UPDATE nodes SET state = 'unreachable' WHERE name = 'node-1'")))
    assert drain(admin, nodes["node-1"]).json["state"] == "unreachable"
    nodes["node-1"].beat()
    stack.run(empty_nodes)
    assert node_of(admin, nodes["node-1"])["state"] == "drained"
    FakeNode.join(stack, world, a_description("node-1", gpus=1))
    assert node_of(admin, nodes["node-1"])["state"] == "drained"


def test_operators_alone_may_drain(stack: Stack, nodes: dict[str, FakeNode], world: World) -> None:
    before = stack.dump()
    for user in (world.member, world.project_admin, world.stranger):
        for verb in ("drain", "undrain"):
            path = f"/resources/nodes/{nodes['node-1'].welcome.node_id}/{verb}"
            assert stack.client(user).put(path, {}).status == 403
    assert nodes["node-2"].caller.put(f"/resources/nodes/{nodes['node-1'].welcome.node_id}/drain", {}).status in (
        403,
        404,
    )
    assert stack.dump() == before


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"deadline": -1}, "/deadline"), ({"deadline": "soon"}, "/deadline"), ({"migrate": "yes"}, "/migrate"),
        ({"deadline": 1e30}, "/deadline"), ({"wait": True}, "/wait"),
    ],
)  # fmt: skip
def test_terms_that_make_no_sense_change_nothing(
    nodes: dict[str, FakeNode], admin: Caller, body: dict[str, Any], pointer: str
) -> None:
    refused = drain(admin, nodes["node-1"], **body)
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, pointer)
    assert node_of(admin, nodes["node-1"])["state"] == "ready"


def test_where_nothing_is_drained_a_look_costs_one_statement(stack: Stack, nodes: dict[str, FakeNode]) -> None:
    with counted(stack) as statements:
        stack.run(empty_nodes)
    assert len(statements) <= 1, statements


# Maintenance


def test_a_window_drains_its_nodes_when_it_begins_and_they_are_back_when_it_ends(
    stack: Stack, nodes: dict[str, FakeNode], admin: Caller, member: Caller
) -> None:
    _, here, spec = begin(stack, nodes, member, checkpointable=True)
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = admin.post("/resources/maintenance", {"nodes": [here], "ends_at": ends, "name": "a new fan"})
    assert (made.status, made.json["state"]) == (201, "active")
    found = node_of(admin, nodes[here])
    assert (found["state"], found["drain"]["reason"]) == ("draining", "maintenance: a new fan")
    assert found["drain"]["reservation_id"] == made.json["id"]
    stack.run(empty_nodes)
    assert stops(nodes[here], spec) == [(StopReason.MIGRATED, 7)]
    nodes[here].ship(nodes[here].report(spec, ReplicaState.PREEMPTED, cause=Cause.MIGRATED, message="moves"))
    stack.run(empty_nodes)
    assert node_of(admin, nodes[here])["state"] == "drained"
    shift = "UPDATE reservations SET starts_at = starts_at - interval '2h', ends_at = ends_at - interval '2h'"
    stack.run(lambda uow: uow.session.execute(text(shift)))
    stack.run(follow_windows)
    assert node_of(admin, nodes[here])["state"] == "ready"


def test_a_window_that_is_cancelled_gives_its_nodes_back_but_not_those_an_operator_drained(
    stack: Stack, nodes: dict[str, FakeNode], admin: Caller
) -> None:
    drain(admin, nodes["node-2"], reason="mine")
    ends = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    made = admin.post("/resources/maintenance", {"nodes": list(NODES), "ends_at": ends}).json
    admin.delete(f"/resources/reservations/{made['id']}")
    assert [node_of(admin, nodes[name])["state"] for name in NODES] == ["ready", "draining"]


def test_of_two_windows_over_one_node_it_is_back_after_the_second(
    stack: Stack, nodes: dict[str, FakeNode], admin: Caller
) -> None:
    made = [
        admin.post(
            "/resources/maintenance",
            {"nodes": ["node-1"], "ends_at": (datetime.now(UTC) + timedelta(hours=hours)).isoformat()},
        ).json["id"]
        for hours in (1, 2)
    ]
    admin.delete(f"/resources/reservations/{made[0]}")
    assert node_of(admin, nodes["node-1"])["drain"]["reservation_id"] == made[1]
    admin.delete(f"/resources/reservations/{made[1]}")
    assert node_of(admin, nodes["node-1"])["state"] == "ready"


def test_no_job_that_might_still_run_is_started_before_a_window(
    stack: Stack, world: World, admin: Caller, member: Caller
) -> None:
    node = FakeNode.join(stack, world, a_description("node-1"))
    start = datetime.now(UTC) + timedelta(hours=1)
    window = {"starts_at": start.isoformat(), "ends_at": (start + timedelta(hours=1)).isoformat()}
    admin.post("/resources/maintenance", {"nodes": ["node-1"], **window})
    long, short = submit(member, time_limit="2h"), submit(member, time_limit="10m")
    plan(stack)
    assert [spec.job_id for spec in placed(stack, node)] == [short["id"]]
    assert "maintenance" in member.get(f"/jobs/{long['id']}").json["why"]


def test_a_file_plans_windows_once_and_names_nodes_that_are_not_there(
    stack: Stack, nodes: dict[str, FakeNode], admin: Caller
) -> None:
    start = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    window = {"starts_at": start.isoformat(), "ends_at": (start + timedelta(hours=1)).isoformat()}
    past = {"ends_at": (start - timedelta(days=2)).isoformat()}
    file = {
        "maintenance": [
            {"nodes": ["node-1"], "name": "fans", "drain_within": "5m", **window},
            {"nodes": ["node-9"], **window},
            {"nodes": ["node-2"], **past},
        ]
    }
    for _ in range(2):
        done = admin.put("/resources/cluster", file)
        assert (done.status, done.json["missing"]) == (200, ["node-9"]), done.text
    (planned,) = admin.get("/resources/reservations").json["items"]
    assert (planned["name"], [part["node"] for part in planned["parts"]]) == ("fans", ["node-1"])
