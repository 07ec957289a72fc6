"""DEF-5, DEF-6: what a stolen node token or join token can't do."""

import hashlib

import pytest

from app.jobs.models import Replica
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Stack
from tests.support.world import World
from trellis import wire
from trellis.vocabulary import ReplicaState


@pytest.fixture
def victim(stack: Stack, world: World) -> wire.ReplicaSpec:
    """A replica that runs on node-1; the thief is node-2."""
    node = FakeNode.join(stack, world, a_description("node-1"))
    stack.client(world.member).post("/jobs", {"command": ["true"]})
    stack.run(stack.cycle)
    pair = stack.run(lambda uow: uow.session.query(Replica.id, Replica.fence).one())
    (spec,) = node.specs((str(pair[0]), pair[1]))
    node.ship(node.report(spec, ReplicaState.STARTING), node.report(spec, ReplicaState.RUNNING))
    return spec


@pytest.fixture
def thief(stack: Stack, world: World) -> FakeNode:
    return FakeNode.join(stack, world, a_description("node-2"))


def test_a_node_can_report_of_its_own_replicas_only(stack: Stack, victim: wire.ReplicaSpec, thief: FakeNode) -> None:
    ended = wire.Report(victim.replica_id, victim.fence, 9, ReplicaState.SUCCEEDED, "2026-01-01T00:00:00+00:00")
    chunk = wire.LogChunk(victim.replica_id, victim.fence, 0, "1 o forged\n")
    point = wire.MetricPoint(victim.replica_id, victim.fence, 1, "loss", 0.0, None, "2026-01-01T00:00:00+00:00")
    receipt = thief.ship(ended, logs=(chunk,), metrics=(point,))
    assert receipt.stale == (victim.replica_id,)
    replica = stack.run(lambda uow: uow.session.query(Replica).one())
    assert (replica.state, replica.log_bytes, replica.metric_seq) == (ReplicaState.RUNNING, 0, 0)


def test_a_node_can_read_the_specs_of_its_own_replicas_only(victim: wire.ReplicaSpec, thief: FakeNode) -> None:
    assert thief.specs((victim.replica_id, victim.fence)) == []


def test_a_node_can_store_artifacts_of_its_own_replicas_only(victim: wire.ReplicaSpec, thief: FakeNode) -> None:
    path = f"/agent/replicas/{victim.replica_id}/artifacts?fence={victim.fence}&name=model.bin"
    digest = hashlib.sha256(b"forged").hexdigest()
    answer = thief.caller.call("PUT", path, data=b"forged", headers={"Digest": f"sha-256={digest}"})
    assert answer.status == 404


def test_a_node_token_opens_no_door_of_users(victim: wire.ReplicaSpec, thief: FakeNode) -> None:
    caller = thief.caller
    for path in ("/jobs", "/projects", "/users", "/queues", "/auth/whoami", f"/jobs/{victim.job_id}/logs"):
        answer = caller.get(path)
        assert answer.status in (403, 404) or answer.json.get("items") == [], path
    assert caller.post("/jobs", {"command": ["true"]}).status in (403, 404, 422)
    assert caller.post("/resources/join-tokens", {}).status == 403


def test_a_node_token_lets_back_in_that_node_alone(thief: FakeNode) -> None:
    for name in ("node-1", "node-3"):
        answer = thief.caller.post("/agent/register", wire.pack(a_description(name)))
        assert answer.status == 422, name


def test_a_join_token_does_nothing_but_join(stack: Stack, world: World, victim: wire.ReplicaSpec) -> None:
    token = stack.client(world.admin).post("/resources/join-tokens", {}).json["token"]
    caller = stack.client(credential=token)
    heartbeat = wire.pack(wire.Heartbeat((), 0, 0, 0))
    assert caller.post("/agent/heartbeat", heartbeat).status == 401
    assert caller.post("/agent/specs", {"replicas": [[victim.replica_id, victim.fence]]}).json["specs"] == []
    assert caller.get("/jobs").status in (403, 404)
    assert caller.post("/resources/join-tokens", {}).status == 403


def test_an_expired_or_unknown_join_token_lets_nobody_in(stack: Stack, world: World) -> None:
    caller = stack.client(credential="trj_" + "x" * 43)
    assert caller.post("/agent/register", wire.pack(a_description())).status == 401


def test_a_node_can_t_take_the_name_of_a_living_one_elsewhere(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world, a_description("node-1"))
    token = stack.client(world.admin).post("/resources/join-tokens", {}).json["token"]
    twin = wire.pack(a_description("node-1", hostname="elsewhere.test"))
    assert stack.client(credential=token).post("/agent/register", twin).status == 409


@pytest.mark.parametrize(
    ("change", "pointer"),
    [
        ({"cpu_milli": -1}, "/cpu_milli"),
        ({"cpu_milli": True}, "/cpu_milli"),
        ({"memory_bytes": 2**60}, "/cpu_milli"),
        ({"isolation": "perfect"}, "/isolation"),
        ({"version": 99}, "/version"),
        ({"surprise": 1}, "/surprise"),
        ({"name": "../x"}, "/name"),
    ],
)
def test_a_description_that_makes_no_sense_is_refused(
    stack: Stack, world: World, change: dict[str, object], pointer: str
) -> None:
    token = stack.client(world.admin).post("/resources/join-tokens", {}).json["token"]
    answer = stack.client(credential=token).post("/agent/register", wire.pack(a_description()) | change)
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, pointer), answer.text


def test_an_artifact_whose_digest_does_not_fit_is_refused(stack: Stack, world: World) -> None:
    node = FakeNode.join(stack, world)
    stack.client(world.member).post("/jobs", {"command": ["true"]})
    stack.run(stack.cycle)
    replica = stack.run(lambda uow: uow.session.query(Replica).one())
    path = f"/agent/replicas/{replica.id}/artifacts?fence={replica.fence}&name="
    honest = hashlib.sha256(b"bytes").hexdigest()
    for name, digest, status in (
        ("a.bin", "0" * 64, 422), ("../a.bin", honest, 422), ("a.bin", "x", 422), ("a.bin", honest, 200),
    ):  # fmt: skip
        headers = {"Digest": f"sha-256={digest}"}
        assert node.caller.call("PUT", path + name, data=b"bytes", headers=headers).status == status, (name, digest)
