"""Manifests that lie, sent by a machine that has been taken over: nothing of them is kept."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.support.fake_node import FakeNode, a_description
from tests.support.saving import a_saving_job, save, send, store_files
from tests.support.stack import Stack
from tests.support.world import World
from trellis import wire
from trellis.stores.manifests import Chunk, FileEntry, Manifest


@pytest.fixture
def node(stack: Stack, world: World) -> FakeNode:
    return FakeNode.join(stack, world)


@pytest.fixture
def spec(stack: Stack, world: World, node: FakeNode) -> wire.ReplicaSpec:
    return a_saving_job(stack, stack.client(world.member), node)


def elsewhere(manifest: Manifest, pack: str) -> Manifest:
    """The same, with its chunks said to lie in that pack."""
    files = [
        FileEntry(file.path, tuple(Chunk(c.digest, c.length, pack, c.offset, c.stored) for c in file.chunks))
        for file in manifest.files
    ]
    return Manifest(tuple(files), manifest.about)


def checkpoints_of(stack: Stack, world: World, spec: wire.ReplicaSpec) -> list[Any]:
    found: list[Any] = stack.client(world.member).get(f"/jobs/{spec.job_id}/checkpoints").json["items"]
    return found


def test_another_projects_chunks_can_not_be_made_ones_own(
    stack: Stack, world: World, node: FakeNode, spec: wire.ReplicaSpec
) -> None:
    stranger = stack.client(world.stranger)
    theirs = a_saving_job(stack, stranger, node, project=str(world.strangers_project.id))
    _, secret = save(stack, node, theirs, {"secret": b"secret" * 1000})
    mine = store_files(stack, spec, {"a": b"mine"})
    stolen = Manifest(secret.files, mine.about)
    answer = send(node, spec, stolen)
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/manifest/packs")
    assert checkpoints_of(stack, world, spec) == []


@pytest.mark.parametrize("pack", ["packs/../../etc/passwd", "/etc/passwd", "packs//x", ".parts/x"])
def test_a_pack_that_leads_out_of_the_store_is_refused(
    stack: Stack, world: World, node: FakeNode, spec: wire.ReplicaSpec, pack: str
) -> None:
    answer = send(node, spec, elsewhere(store_files(stack, spec, {"a": b"mine"}), pack))
    assert (answer.status, answer.json["code"]) == (422, "invalid")
    assert checkpoints_of(stack, world, spec) == []


@pytest.mark.parametrize(
    "change",
    [
        {"save": "../../x"}, {"save": ""}, {"save": "x" * 65}, {"save": 5}, {"reason": "mine"}, {"new_bytes": -1}, {"new_bytes": "1"},
        {"packs": []}, {"packs": {"a": -1}}, {"metrics": {"x": "y"}}, {"metrics": [1]}, {"step": "x"}, {"step": 2**70},
        {"metrics": {"x": float("nan")}}, {"metrics": {"a\0b": 1.0}},
    ],
    ids=str,
)  # fmt: skip
def test_what_is_said_of_a_save_is_checked(
    stack: Stack, world: World, node: FakeNode, spec: wire.ReplicaSpec, change: dict[str, Any]
) -> None:
    manifest = store_files(stack, spec, {"a": b"mine"})
    answer = send(node, spec, Manifest(manifest.files, {**manifest.about, **change}))
    assert (answer.status, answer.json["code"]) == (422, "invalid"), answer.text
    assert checkpoints_of(stack, world, spec) == []


@pytest.mark.parametrize(
    "cut", [lambda block: block[:-1], lambda block: b"", lambda block: b"{}", lambda block: block[5:]]
)
def test_a_torn_manifest_is_refused_and_the_one_before_stays_the_latest(
    stack: Stack, world: World, node: FakeNode, spec: wire.ReplicaSpec, cut: Callable[[bytes], bytes]
) -> None:
    kept, base = save(stack, node, spec, {"a": b"good"})
    manifest = store_files(stack, spec, {"a": b"newer"}, base)
    path = f"/agent/replicas/{spec.replica_id}/checkpoints?fence={spec.fence}"
    assert node.caller.call("PUT", path, data=cut(manifest.encode())).status == 422
    assert [one["id"] for one in checkpoints_of(stack, world, spec)] == [kept]


@pytest.mark.parametrize(
    "key", ["{own}/../../../etc/x", "packs/{project}/another-jobs/pack-0", "{own}-" + "9" * 300, "{base}"], ids=str
)
def test_a_pack_that_is_not_of_this_save_is_not_taken_for_a_new_one(
    stack: Stack, world: World, node: FakeNode, spec: wire.ReplicaSpec, key: str
) -> None:
    kept, base = save(stack, node, spec, {"a": b"good"})
    manifest = store_files(stack, spec, {"a": b"mine"})
    (own,) = manifest.packs
    lie = key.format(own=own, project=spec.project_id, base=base.packs[0])
    answer = send(node, spec, Manifest(manifest.files, {**manifest.about, "packs": {own: 1, lie: 1}}))
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/manifest/about/packs")
    assert [one["id"] for one in checkpoints_of(stack, world, spec)] == [kept]


def test_a_machine_can_not_have_checkpoints_of_other_jobs_taken_for_damaged(
    stack: Stack, world: World, node: FakeNode, spec: wire.ReplicaSpec
) -> None:
    stranger = stack.client(world.stranger)
    theirs = a_saving_job(stack, stranger, node, project=str(world.strangers_project.id))
    saved, _ = save(stack, node, theirs, {"secret": b"secret"}, step=77)
    key = stranger.get(f"/checkpoints/{saved}").json["url"].partition("/manifests/")[2]
    told = wire.Restored(spec.fence, f"manifests/{key}", (f"manifests/{key} it is bad", "a\0b c\0d"))
    assert node.caller.post(f"/agent/replicas/{spec.replica_id}/restored", wire.pack(told)).status == 200
    assert stranger.get(f"/checkpoints/{saved}").json["damaged"] is False
    events = stack.client(world.member).get(f"/jobs/{spec.job_id}/events?limit=500").json["items"]
    (restored,) = [event["data"] for event in events if event["kind"] == "checkpoint.restored"]
    assert (restored["checkpoint_id"], restored["step"]) == (None, None)


@pytest.mark.parametrize("faults", [("x",) * 4, ("x" * 5000,)], ids=["many", "long"])
def test_more_faults_than_were_offered_checkpoints_are_refused(
    stack: Stack, node: FakeNode, spec: wire.ReplicaSpec, faults: tuple[str, ...]
) -> None:
    told = wire.pack(wire.Restored(spec.fence, "", faults))
    assert node.caller.post(f"/agent/replicas/{spec.replica_id}/restored", told).status == 422


def test_what_failed_may_be_said_in_any_characters(stack: Stack, node: FakeNode, spec: wire.ReplicaSpec) -> None:
    told = wire.pack(wire.SaveFailed(spec.fence, "no\0room"))
    assert node.caller.post(f"/agent/replicas/{spec.replica_id}/checkpoints", told).status == 200


def test_a_machine_saves_and_restores_for_its_own_replicas_alone(
    stack: Stack, world: World, node: FakeNode, spec: wire.ReplicaSpec
) -> None:
    other = FakeNode.join(stack, world, a_description("node-2"))
    manifest = store_files(stack, spec, {"a": b"mine"})
    assert send(other, spec, manifest).status == 404
    told = wire.pack(wire.Restored(spec.fence, "", ()))
    assert other.caller.post(f"/agent/replicas/{spec.replica_id}/restored", told).status == 404
    failed = wire.pack(wire.SaveFailed(spec.fence, "full"))
    assert other.caller.post(f"/agent/replicas/{spec.replica_id}/checkpoints", failed).status == 404
