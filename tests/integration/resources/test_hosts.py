"""Many nodes that one host speaks for."""

from typing import Any

import pytest
from sqlalchemy import text

from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Caller, Stack
from tests.support.statements import counted
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import ReplicaState, StopReason
from trellis.wire import Heartbeat, Held, HostHeartbeat, HostOrders, HostRegistration, HostShipment, HostWelcome


def a_heartbeat(*held: Held) -> Heartbeat:
    return Heartbeat(held, load_percent=10, memory_used_bytes=1, disk_free_bytes=1)


@pytest.fixture
def door(stack: Stack, world: World) -> Caller:
    """A machine with a join token."""
    return stack.client(credential=stack.client(world.admin).post("/resources/join-tokens", {}).json["token"])


def join(door: Caller, *names: str, **values: Any) -> list[wire.Welcome]:
    nodes = tuple(a_description(name, **values) for name in names)
    answer = door.post("/agent/host/register", wire.pack(HostRegistration(nodes)))
    assert answer.status == 201, answer.text
    return list(wire.unpack(HostWelcome, answer.json).nodes)


class Host:
    """Speaks for nodes that have joined."""

    def __init__(self, stack: Stack, welcomes: list[wire.Welcome]) -> None:
        self.caller = stack.client(credential=welcomes[0].token)
        self.tokens = tuple(welcome.token for welcome in welcomes)

    def beat(self, *held: tuple[Held, ...]) -> list[wire.Orders]:
        beats = tuple(a_heartbeat(*of_node) for of_node in held or ((),) * len(self.tokens))
        answer = self.caller.post("/agent/host/heartbeats", wire.pack(HostHeartbeat(self.tokens, beats)))
        assert answer.status == 200, answer.text
        return list(wire.unpack(HostOrders, answer.json).orders)

    def specs(self, pairs: list[list[Any]]) -> list[wire.ReplicaSpec]:
        answer = self.caller.post("/agent/host/specs", {"tokens": list(self.tokens), "replicas": pairs})
        assert answer.status == 200, answer.text
        return [wire.unpack(wire.ReplicaSpec, spec) for spec in answer.json["specs"]]

    def ship(self, *reports: wire.Report) -> wire.Receipt:
        body = wire.pack(HostShipment(self.tokens, wire.Shipment((), (), reports)))
        answer = self.caller.post("/agent/host/shipments", body)
        assert answer.status == 200, answer.text
        return wire.unpack(wire.Receipt, answer.json)


@pytest.fixture
def host(stack: Stack, door: Caller) -> Host:
    """Of three nodes of four GPUs."""
    return Host(stack, join(door, "a", "b", "c", gpus=4))


def placed(stack: Stack, world: World, replicas: int) -> list[list[Any]]:
    """A gang of so many whole nodes, as the pairs that messages name."""
    body = {"command": ["true"], "replicas": replicas, "resources": {"cpus": 1, "gpus": 4}}
    assert stack.client(world.member).post("/jobs", body).status == 201
    stack.run(stack.cycle)
    job = stack.client(world.member).get("/jobs").json["items"][0]
    return [[replica["id"], replica["fence"]] for replica in _replicas(stack, job["id"])]


def _replicas(stack: Stack, job_id: str) -> list[dict[str, Any]]:
    statement = text("SELECT id::text, fence FROM replicas WHERE job_id = :job_id ORDER BY index")
    rows = stack.run(lambda uow: uow.session.execute(statement, {"job_id": job_id}).all())
    return [{"id": row.id, "fence": row.fence} for row in rows]


def report(spec: wire.ReplicaSpec, seq: int, state: ReplicaState) -> wire.Report:
    return wire.Report(spec.replica_id, spec.fence, seq, state, "2026-01-01T00:00:00+00:00")


def job_state(stack: Stack, world: World) -> str:
    return str(stack.client(world.member).get("/jobs").json["items"][0]["state"])


def test_nodes_join_together_each_with_its_devices_and_a_token_of_its_own(
    stack: Stack, world: World, host: Host
) -> None:
    items = stack.client(world.member).get("/resources/nodes").json["items"]
    assert [(node["name"], len(node["gpus"])) for node in items] == [("a", 4), ("b", 4), ("c", 4)]
    assert len(set(host.tokens)) == 3


def test_nodes_that_come_back_keep_their_ids_and_get_new_tokens(stack: Stack, door: Caller) -> None:
    first, again = join(door, "a", "b"), join(door, "b", "a", "c")
    assert {one.node_id for one in first} < {one.node_id for one in again}
    old = stack.client(credential=first[0].token)
    assert old.post("/agent/heartbeat", wire.pack(a_heartbeat())).status == 401


@pytest.mark.parametrize("names", [("a", "a"), ("a", "Ä b")])
def test_all_join_or_none(stack: Stack, world: World, door: Caller, names: tuple[str, ...]) -> None:
    nodes = tuple(a_description(name) for name in names)
    assert door.post("/agent/host/register", wire.pack(HostRegistration(nodes))).status == 422
    assert stack.client(world.member).get("/resources/nodes").json["items"] == []


def test_a_gang_over_nodes_of_one_host_runs_to_its_end(stack: Stack, world: World, host: Host) -> None:
    specs = host.specs(placed(stack, world, replicas=3))
    assert len(specs) == 3
    host.ship(
        *(
            report(spec, seq, state)
            for spec in specs
            for seq, state in enumerate((ReplicaState.STARTING, ReplicaState.RUNNING), 1)
        )
    )
    assert job_state(stack, world) == "running"
    host.ship(*(report(spec, 3, ReplicaState.SUCCEEDED) for spec in specs))
    assert job_state(stack, world) == "succeeded"
    nodes = stack.client(world.member).get("/resources/nodes").json["items"]
    assert [(node["cpu_milli_used"], node["jobs"]) for node in nodes] == [(0, [])] * 3


def test_each_node_is_told_of_its_own_replicas(stack: Stack, world: World, host: Host) -> None:
    pairs = placed(stack, world, replicas=2)
    stack.run(lambda uow: uow.session.execute(_aged("replicas")))
    orders = host.beat()
    assert sorted(len(one.launch) for one in orders) == [0, 1, 1]
    held = [tuple(Held(s.replica_id, s.fence, ReplicaState.RUNNING) for s in one.launch) for one in orders]
    assert sorted(h.replica_id for of_node in held for h in of_node) == sorted(pair[0] for pair in pairs)
    stranger = Held(held[0][0].replica_id if held[0] else held[1][0].replica_id, 99, ReplicaState.RUNNING)
    stops = [one.stop for one in host.beat(*([(stranger,)] * 3))]
    assert all(stop[0].reason == "stale" for stop in stops)


def test_what_several_nodes_lost_is_locked_in_one_order(stack: Stack, world: World, host: Host) -> None:
    specs = [*host.specs(placed(stack, world, replicas=2)), *host.specs(placed(stack, world, replicas=1))]
    host.ship(*(report(s, n, ReplicaState(state)) for s in specs for n, state in enumerate(("starting", "running"), 1)))
    long_ago = text("UPDATE replicas SET started_at = started_at - interval '1 minute'")
    stack.run(lambda uow: uow.session.execute(long_ago))
    with counted(stack) as statements:
        host.beat()
    assert sum("FROM jobs" in statement and "FOR NO KEY UPDATE" in statement for statement in statements) == 1
    states = text("SELECT DISTINCT state::text, cause::text FROM replicas")
    assert stack.run(lambda uow: uow.session.execute(states).all()) == [("lost", "node_lost")]


def _aged(table: str) -> Any:
    return text(f"UPDATE {table} SET created_at = created_at - interval '5 seconds'")


def test_a_node_that_was_given_up_is_ready_again_when_its_host_is_heard(stack: Stack, world: World, host: Host) -> None:
    lost = text("UPDATE nodes SET state = 'lost' WHERE name IN ('a', 'c')")
    stack.run(lambda uow: uow.session.execute(lost))
    host.beat()
    items = stack.client(world.member).get("/resources/nodes").json["items"]
    assert {node["state"] for node in items} == {"ready"}


def test_a_host_speaks_for_no_node_whose_token_it_lacks(stack: Stack, world: World, host: Host, door: Caller) -> None:
    other = FakeNode.join(stack, world, a_description("other", gpus=4))
    pairs = placed(stack, world, replicas=4)
    (mine,) = other.specs(*[(replica_id, fence) for replica_id, fence in pairs])
    assert mine.replica_id not in {spec.replica_id for spec in host.specs(pairs)}
    receipt = host.ship(report(mine, 1, ReplicaState.SUCCEEDED))
    assert receipt.stale == (mine.replica_id,)
    guessed = wire.pack(HostHeartbeat((*host.tokens, "trn_guessed"), (a_heartbeat(),) * 4))
    assert host.caller.post("/agent/host/heartbeats", guessed).status == 401
    assert (
        door.post("/agent/host/heartbeats", wire.pack(HostHeartbeat(host.tokens, (a_heartbeat(),) * 3))).status == 401
    )


@pytest.mark.parametrize("beats", [1, 4])
def test_there_must_be_a_heartbeat_for_each_token(host: Host, beats: int) -> None:
    body = wire.pack(HostHeartbeat(host.tokens, (a_heartbeat(),) * beats))
    assert host.caller.post("/agent/host/heartbeats", body).status == 422


def test_members_of_roles_are_told_their_own_command_amounts_and_slices(
    stack: Stack, world: World, door: Caller
) -> None:
    host = Host(stack, [*join(door, "a", devices=cut("a")), *join(door, "b", devices=cut("b"))])
    roles = [
        {"name": "driver", "command": ["drive"], "resources": {"cpus": 6, "memory": "1GiB"}},
        {"name": "worker", "resources": {"cpus": 4, "memory": "2GiB", "mig_profile": "3g.40gb"}},
    ]
    job = stack.client(world.member).post("/jobs", {"command": ["work"], "roles": roles}).json["id"]
    stack.run(stack.cycle)
    pairs = [[replica["id"], replica["fence"]] for replica in _replicas(stack, job)]
    stack.run(lambda uow: uow.session.execute(_aged("replicas")))
    launched = [spec for orders in host.beat() for spec in orders.launch]
    for told in (host.specs(pairs), launched):
        driver, worker = sorted(told, key=lambda spec: spec.role)
        assert [(spec.role, spec.command, spec.cpu_milli, spec.memory_bytes, spec.count) for spec in (driver, worker)] == [
            ("driver", ("drive",), 6000, 1 << 30, 2), ("worker", ("work",), 4000, 2 << 30, 2),
        ]  # fmt: skip
        assert driver.slices == ()
        assert [(piece.profile, piece.uuid[:4]) for piece in worker.slices] == [("3g.40gb", "GPU-")]


def test_what_gives_up_its_room_on_one_node_of_a_host_ends_and_the_rest_goes_on(
    stack: Stack, world: World, door: Caller
) -> None:
    policy = {"preemption": {"grace_period": 30, "min_run_time": 0}, "restart_cost": 0}
    assert stack.client(world.admin).put("/scheduling/policy", policy).status == 200
    host, member = Host(stack, join(door, "a", "b", cpus=2)), stack.client(world.member)
    two = {"command": ["true"], "resources": {"cpus": 2, "memory": "1GiB"}}
    job = member.post("/jobs", {**two, "min_replicas": 1, "max_replicas": 2}).json["id"]
    stack.run(stack.cycle)
    specs = host.specs([[replica["id"], replica["fence"]] for replica in _replicas(stack, job)])
    assert len(specs) == 2
    for spec in specs:
        host.ship(report(spec, 1, ReplicaState.STARTING), report(spec, 2, ReplicaState.RUNNING))
    other = member.post("/jobs", two).json["id"]
    stack.run(stack.cycle)
    held = tuple(Held(spec.replica_id, spec.fence, ReplicaState.RUNNING) for spec in specs)
    stops = [stop for orders in host.beat(held, held) for stop in orders.stop if stop.reason == StopReason.SURPLUS]
    (leaving,) = (spec for spec in specs if spec.replica_id in {stop.replica_id for stop in stops})
    host.ship(report(leaving, 3, ReplicaState.PREEMPTED))
    stack.run(stack.cycle)
    assert len(_replicas(stack, other)) == 1
    assert member.get(f"/jobs/{job}").json["state"] == "running"
    (staying,) = (spec for spec in specs if spec is not leaving)
    host.ship(report(staying, 3, ReplicaState.SUCCEEDED))
    assert member.get(f"/jobs/{job}").json["state"] == "succeeded"


def test_a_device_of_which_a_slice_is_held_is_not_cut_anew_when_its_host_comes_back(
    stack: Stack, world: World, door: Caller
) -> None:
    host = Host(stack, [*join(door, "a", gpus=1), *join(door, "b", devices=cut("b"))])
    resources = {"cpus": 1, "memory": "1GiB", "mig_profile": "1g.10gb"}
    job = stack.client(world.member).post("/jobs", {"command": ["true"], "resources": resources}).json["id"]
    stack.run(stack.cycle)
    (spec,) = host.specs([[replica["id"], replica["fence"]] for replica in _replicas(stack, job)])
    again = HostRegistration((a_description("a", devices=cut("a")), a_description("b", gpus=1)))
    refused = door.post("/agent/host/register", wire.pack(again))
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "/gpus")
    gone = HostRegistration((a_description("a", gpus=1), a_description("b")))
    assert door.post("/agent/host/register", wire.pack(gone)).status == 422
    host.ship(report(spec, 1, ReplicaState.SUCCEEDED))
    assert door.post("/agent/host/register", wire.pack(again)).status == 201
    nodes = stack.client(world.member).get("/resources/nodes").json["items"]
    assert [gpu["partitioned"] for node in nodes for gpu in node["gpus"]] == [True, False]


def cut(name: str) -> tuple[wire.GpuDescription, ...]:
    """One H100 that is given in slices."""
    return (wire.GpuDescription(0, f"GPU-{name}-0", "NVIDIA H100 80GB HBM3", 80 << 30, partitioned=True),)


def test_kinds_sum_nodes_up(stack: Stack, world: World, host: Host, door: Caller) -> None:
    join(door, "cpu-1", "cpu-2", cpus=4)
    placed(stack, world, replicas=2)
    gpu, cpu = stack.client(world.member).get("/resources/kinds").json["items"]
    assert (gpu["gpu_model"], gpu["gpus"], gpu["nodes"], gpu["nodes_ready"]) == ("H100", 4, 3, 3)
    assert (gpu["held"]["gpu_milli"], gpu["held"]["cpu_milli"]) == (8000, 2000)
    assert (cpu["gpus"], cpu["nodes"], cpu["held"]["gpu_milli"]) == (0, 2, 0)


def test_a_job_does_not_ask_to_be_simulated(stack: Stack, world: World) -> None:
    answer = stack.client(world.member).post("/jobs", {"command": ["true"], "executor": "simulated"})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/executor")
