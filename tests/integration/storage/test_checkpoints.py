"""What nodes saved: recorded, offered again, shared, kept for a while, and gone from the store at last."""

import io
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, text

from app.jobs import checkpoints as of_jobs
from app.jobs import orders
from app.storage import checkpoints as of_storage
from app.storage import packs
from app.storage.models import Checkpoint, CheckpointPack, Pack
from tests.support.builders import a_membership, a_project
from tests.support.fake_node import FakeNode
from tests.support.saving import a_saving_job, contents, lose, save, send, started, store_files
from tests.support.stack import Caller, Stack
from tests.support.world import World
from trellis import wire
from trellis.errors import TrellisError
from trellis.vocabulary import ReplicaState, Role

MODEL = random.Random(1).randbytes(300_000)
# As `tasks.storage` has it.
ORPHANED_S = 86_400.0
OTHER = random.Random(2).randbytes(300_000)


@pytest.fixture
def node(stack: Stack, world: World) -> FakeNode:
    return FakeNode.join(stack, world)


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


@pytest.fixture
def spec(stack: Stack, member: Caller, node: FakeNode) -> wire.ReplicaSpec:
    return a_saving_job(stack, member, node)


def plan_of(spec: wire.ReplicaSpec) -> wire.CheckpointPlan:
    assert spec.checkpoint is not None
    return spec.checkpoint


def next_attempt(stack: Stack, node: FakeNode, spec: wire.ReplicaSpec) -> wire.ReplicaSpec:
    lose(node, spec)
    return started(stack, node, spec.job_id)


def count(stack: Stack, model: Any) -> int:
    return stack.run(lambda uow: uow.session.execute(select(func.count()).select_from(model)).scalar_one())


def sweep(stack: Stack) -> None:
    """What the three ticks do, all waiting over."""
    stack.run(packs.doom_unreferenced)
    due = stack.run(lambda uow: packs.list_doomed(uow, readers_s=-1))
    gone = packs.delete_from(stack.app.extensions["store"], due)
    stack.run(lambda uow: packs.forget(uow, gone))


def doomed(stack: Stack) -> set[str]:
    marked = select(Pack.key).where(Pack.doomed_at.is_not(None))
    return set(stack.run(lambda uow: uow.session.execute(marked).scalars().all()))


def stored(stack: Stack) -> set[str]:
    store = stack.app.extensions["store"]
    return {one.key for prefix in ("packs", "manifests") for one in store.find(prefix)}


# Recorded


def test_a_saved_checkpoint_is_listed_with_what_it_took(
    stack: Stack, member: Caller, node: FakeNode, spec: wire.ReplicaSpec
) -> None:
    first, manifest = save(stack, node, spec, {"a": MODEL}, step=1, metrics={"loss": 0.5})
    save(stack, node, spec, {"a": MODEL, "b": b"new"}, manifest, step=2)
    second, one = member.get(f"/jobs/{spec.job_id}/checkpoints").json["items"]
    assert one["id"] == first
    assert (one["step"], one["metrics"], one["new_bytes"]) == (1, {"loss": 0.5}, len(MODEL))
    assert (second["step"], second["size_bytes"], second["new_bytes"], second["files"]) == (2, len(MODEL) + 3, 3, 2)
    assert "checkpoint.saved" in [e["kind"] for e in member.get(f"/jobs/{spec.job_id}/events?limit=500").json["items"]]


def test_the_same_save_told_twice_is_kept_once(stack: Stack, node: FakeNode, spec: wire.ReplicaSpec) -> None:
    manifest = store_files(stack, spec, {"a": MODEL})
    assert send(node, spec, manifest).json == send(node, spec, manifest).json
    assert count(stack, Checkpoint) == 1


def test_a_save_of_an_attempt_that_is_over_is_refused(stack: Stack, node: FakeNode, spec: wire.ReplicaSpec) -> None:
    manifest = store_files(stack, spec, {"a": MODEL})
    lose(node, spec)
    answer = send(node, spec, manifest)
    assert (answer.status, answer.json["code"]) == (409, "stale_fence")
    assert count(stack, Checkpoint) == 0


def test_a_job_that_saves_nothing_costs_no_statement_more_and_has_no_plan(
    stack: Stack, member: Caller, node: FakeNode
) -> None:
    answer = member.post("/jobs", {"command": ["true"]})
    assert started(stack, node, answer.json["id"]).checkpoint is None


# Gone on from


def test_the_next_attempt_is_offered_the_newest_first(stack: Stack, node: FakeNode, spec: wire.ReplicaSpec) -> None:
    assert plan_of(spec).restore == ()
    save(stack, node, spec, {"a": MODEL}, step=1)
    save(stack, node, spec, {"a": OTHER}, step=2)
    again = plan_of(next_attempt(stack, node, spec))
    found = [contents(stack, key, again.public_key) for key in again.restore]
    assert found == [{"a": OTHER}, {"a": MODEL}]
    assert again.base == again.restore[0]


def test_a_damaged_checkpoint_is_said_and_offered_no_more(
    stack: Stack, member: Caller, node: FakeNode, spec: wire.ReplicaSpec
) -> None:
    save(stack, node, spec, {"a": MODEL}, step=1)
    save(stack, node, spec, {"a": OTHER}, step=2)
    again = next_attempt(stack, node, spec)
    bad, good = plan_of(again).restore
    told = wire.Restored(again.fence, good, (f"{bad} a: a chunk is damaged",))
    assert node.caller.post(f"/agent/replicas/{again.replica_id}/restored", wire.pack(told)).status == 200
    events = member.get(f"/jobs/{spec.job_id}/events?limit=500").json["items"]
    damaged = [e for e in events if e["kind"] == "checkpoint.damaged"]
    restored = [e["data"]["step"] for e in events if e["kind"] == "checkpoint.restored"]
    assert [e["reason"] for e in damaged] == ["a: a chunk is damaged"]
    assert restored == [1]
    assert [c["damaged"] for c in member.get(f"/jobs/{spec.job_id}/checkpoints").json["items"]] == [True, False]
    assert plan_of(next_attempt(stack, node, again)).restore == (good,)


def test_another_job_goes_on_from_a_checkpoint_that_it_names(
    stack: Stack, member: Caller, node: FakeNode, spec: wire.ReplicaSpec
) -> None:
    saved, _ = save(stack, node, spec, {"a": MODEL})
    fork = a_saving_job(stack, member, node, from_checkpoint=saved)
    (key,) = plan_of(fork).restore
    assert contents(stack, key, plan_of(fork).public_key) == {"a": MODEL}


def test_asking_reaches_the_node_until_it_has_saved(
    stack: Stack, member: Caller, node: FakeNode, spec: wire.ReplicaSpec
) -> None:
    held = wire.Held(spec.replica_id, spec.fence, ReplicaState.RUNNING)
    assert node.beat(held).save == ()
    assert member.post(f"/jobs/{spec.job_id}/checkpoints").status == 202
    assert node.beat(held).save == (wire.Save(spec.replica_id, spec.fence),)
    save(stack, node, spec, {"a": MODEL}, reason="interval")
    assert node.beat(held).save == (wire.Save(spec.replica_id, spec.fence),)
    save(stack, node, spec, {"a": MODEL}, reason="asked")
    assert node.beat(held).save == ()


def test_asking_a_job_that_saves_nothing_is_refused_with_the_way_out(
    stack: Stack, member: Caller, node: FakeNode
) -> None:
    job = member.post("/jobs", {"command": ["true"]}).json["id"]
    answer = member.post(f"/jobs/{job}/checkpoints")
    assert (answer.status, answer.json["code"]) == (409, "not_checkpointed")
    assert "--checkpoint" in answer.json["detail"]


def test_a_store_that_is_away_holds_up_no_heartbeat(
    stack: Stack, node: FakeNode, spec: wire.ReplicaSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose(node, spec)
    stack.run(stack.cycle)

    def away(*_: object) -> None:
        raise OSError("the store is away")

    monkeypatch.setattr(of_storage, "_KNOWN", set())
    monkeypatch.setattr(type(stack.app.extensions["store"]), "head", away)
    monkeypatch.setattr(orders, "JUST_PLACED", timedelta(seconds=-1))
    (launched,) = node.beat().launch
    assert launched.checkpoint is not None
    assert launched.job_id == spec.job_id


def test_what_a_replica_is_offered_costs_as_much_however_many_there_are(
    stack: Stack, member: Caller, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = a_saving_job(stack, member, node, checkpoint={"keep": {"last": 1000}})
    base = None
    for step in range(6):
        _, base = save(stack, node, spec, {"a": MODEL}, base, step=step)
    sizes = []
    real = of_storage.offered

    def counting(*args: Any) -> Any:
        found = real(*args)
        sizes.append(sum(map(len, found.values())))
        return found

    monkeypatch.setattr(of_storage, "offered", counting)
    keys = plan_of(next_attempt(stack, node, spec)).restore
    assert len(keys) == of_storage.OFFERED
    assert sizes[-1] == of_storage.OFFERED


# Fetched


def test_the_archive_holds_the_files(stack: Stack, member: Caller, node: FakeNode, spec: wire.ReplicaSpec) -> None:
    saved, _ = save(stack, node, spec, {"a/b": MODEL, "empty": b"", "ünï": b"x" * 513})
    response = stack.app.test_client().get(f"/api/v1/checkpoints/{saved}/archive", headers=member.headers)
    with tarfile.open(fileobj=io.BytesIO(response.data)) as archive:
        found = {one.name: archive.extractfile(one).read() for one in archive}  # type: ignore[union-attr]
    assert found == {"a/b": MODEL, "empty": b"", "ünï": b"x" * 513}


# Kept and removed


def test_only_so_many_are_kept_and_what_only_the_others_held_leaves_the_store(
    stack: Stack, member: Caller, node: FakeNode
) -> None:
    spec = a_saving_job(stack, member, node, checkpoint={"keep": {"last": 1}})
    save(stack, node, spec, {"shared": MODEL, "old": OTHER})
    _, base = save(stack, node, spec, {"shared": MODEL, "old": OTHER})
    sweep(stack)
    before = stored(stack)
    _, last = save(stack, node, spec, {"shared": MODEL}, base)
    sweep(stack)
    kept = member.get(f"/jobs/{spec.job_id}/checkpoints").json["items"]
    assert len(kept) == 1
    (row,) = stack.run(lambda uow: [(c.key, c.id) for c in uow.session.execute(select(Checkpoint)).scalars()])
    assert stored(stack) == {*last.packs, row[0]}
    assert len(stored(stack)) < len(before) + 1
    assert contents(stack, row[0], plan_of(spec).public_key) == {"shared": MODEL}


def test_one_object_that_can_not_be_deleted_keeps_no_other(
    stack: Stack, member: Caller, node: FakeNode, spec: wire.ReplicaSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, _ = save(stack, node, spec, {"a": MODEL})
    member.delete(f"/checkpoints/{saved}")
    stack.run(packs.doom_unreferenced)
    due = stack.run(lambda uow: packs.list_doomed(uow, readers_s=-1))
    store = stack.app.extensions["store"]
    real = type(store).delete

    def stubborn(self: Any, key: str) -> None:
        if key == due[0]:
            raise OSError("not this one")
        real(self, key)

    monkeypatch.setattr(type(store), "delete", stubborn)
    assert packs.delete_from(store, due) == due[1:]
    assert stored(stack) == {due[0]}


def test_removing_one_leaves_what_others_need(
    stack: Stack, member: Caller, node: FakeNode, spec: wire.ReplicaSpec
) -> None:
    first, base = save(stack, node, spec, {"a": MODEL})
    second, _ = save(stack, node, spec, {"a": MODEL}, base)
    assert member.delete(f"/checkpoints/{first}").status == 204
    sweep(stack)
    assert member.get(f"/checkpoints/{first}").status == 404
    response = stack.app.test_client().get(f"/api/v1/checkpoints/{second}/archive", headers=member.headers)
    assert MODEL in response.data
    assert member.delete(f"/checkpoints/{second}").status == 204
    sweep(stack)
    assert stored(stack) == set()
    assert count(stack, Pack) == 0


def test_a_save_that_builds_upon_what_is_doomed_is_told_to_store_it_anew(
    stack: Stack, member: Caller, node: FakeNode, spec: wire.ReplicaSpec
) -> None:
    first, base = save(stack, node, spec, {"a": MODEL})
    late = store_files(stack, spec, {"a": MODEL}, base)
    member.delete(f"/checkpoints/{first}")
    stack.run(packs.doom_unreferenced)
    answer = send(node, spec, late)
    assert (answer.status, answer.json["code"]) == (409, "packs_gone")
    assert count(stack, Checkpoint) == 0


def test_a_sweep_and_a_save_that_meet_never_lose_a_pack_that_is_needed(
    stack: Stack, member: Caller, node: FakeNode, spec: wire.ReplicaSpec
) -> None:
    place = stack.app.extensions["checkpoints"]
    outcomes = set()
    for turn in range(12):
        first, base = save(stack, node, spec, {"a": random.Random(turn).randbytes(40_000)})
        late = store_files(stack, spec, {"a": random.Random(turn).randbytes(40_000)}, base)
        member.delete(f"/checkpoints/{first}")

        def tell(late: Any = late) -> str:
            try:
                row = stack.run(
                    lambda uow: of_jobs.take_in(uow, place, _id(spec), spec.fence, late.encode()).id,
                    actor=_node_actor(stack, node),
                )
                return str(row)
            except TrellisError as error:
                return error.code

        with ThreadPoolExecutor(3) as pool:
            told = pool.submit(tell)
            sweeps = [pool.submit(sweep, stack) for _ in range(2)]
            outcome = told.result()
            for one in sweeps:
                one.result()
        outcomes.add("packs_gone" if outcome == "packs_gone" else "kept")
        if outcome != "packs_gone":
            assert set(late.packs) <= stored(stack)
            assert not doomed(stack) & set(late.packs)
    needed = select(CheckpointPack.pack_key)
    assert set(stack.run(lambda uow: uow.session.execute(needed).scalars().all())) <= stored(stack)
    assert outcomes <= {"kept", "packs_gone"}


def test_what_a_killed_save_left_goes_once_its_replica_has_ended(
    stack: Stack, node: FakeNode, spec: wire.ReplicaSpec
) -> None:
    left = set(store_files(stack, spec, {"a": MODEL}).packs)
    _, kept = save(stack, node, spec, {"a": OTHER})

    def abandoned() -> set[str]:
        keys = [key for page in packs.orphans(stack.app.extensions["store"], 0, float("inf")) for key in page]
        assert left <= set(keys)
        return set(stack.run(lambda uow: of_jobs.abandoned(uow, keys)))

    assert abandoned() == set()
    lose(node, spec)
    assert abandoned() == left
    assert not set(kept.packs) & abandoned()


def test_a_manifest_that_was_written_and_never_recorded_goes_a_day_after_its_replica_has_ended(
    stack: Stack, node: FakeNode, spec: wire.ReplicaSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = stack.app.extensions["store"]
    _, kept = save(stack, node, spec, {"a": OTHER})
    recorded = stored(stack)

    def killed(*_: object, **__: object) -> None:
        raise ConnectionError("the process was killed after its write")

    with monkeypatch.context() as patch:
        patch.setattr(of_storage, "_store", killed)
        assert send(node, spec, store_files(stack, spec, {"a": MODEL})).status == 500
    left = stored(stack) - recorded
    assert {key.split("/")[0] for key in left} == {"packs", "manifests"}

    def sweep_orphans(age_s: float) -> None:
        now = stack.run(lambda uow: uow.clock.now()).timestamp() + age_s
        for page in packs.orphans(store, ORPHANED_S, now):
            packs.delete_from(store, stack.run(partial(of_jobs.abandoned, keys=page)))

    sweep_orphans(2 * ORPHANED_S)
    assert stored(stack) == recorded | left
    lose(node, spec)
    sweep_orphans(ORPHANED_S - 600)
    assert stored(stack) == recorded | left
    sweep_orphans(ORPHANED_S + 600)
    assert stored(stack) == recorded
    assert set(kept.packs) <= stored(stack)


def test_orphans_come_in_pages_of_what_one_statement_takes(
    stack: Stack, node: FakeNode, spec: wire.ReplicaSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packs, "AT_ONCE", 2)
    left = {key for turn in range(5) for key in store_files(stack, spec, {"a": bytes([turn]) * 9000}).packs}
    pages = list(packs.orphans(stack.app.extensions["store"], 0, float("inf")))
    assert [len(page) for page in pages] == [2, 2, 1]
    assert {key for page in pages for key in page} == left


# Shared


def test_a_grant_lets_another_project_go_on_from_it_until_it_is_taken_back(
    stack: Stack, world: World, node: FakeNode, spec: wire.ReplicaSpec
) -> None:
    other = stack.add(a_project(world.organisation))
    stack.add(a_membership(other, world.project_admin, Role.MEMBER))
    chief = stack.client(world.project_admin)
    saved, _ = save(stack, node, spec, {"a": MODEL})
    wish = {"command": ["true"], "project": str(other.id), "from_checkpoint": saved}
    refused = chief.post("/jobs", wish)
    # Seeing both projects is not enough: what runs in one must not carry the other's data.
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "/from_checkpoint")
    assert chief.put(f"/checkpoints/{saved}/grants/{other.id}").status == 204
    first, second = (chief.post("/jobs", wish).json["id"] for _ in range(2))
    forked = plan_of(started(stack, node, first))
    assert contents(stack, forked.restore[0], forked.public_key) == {"a": MODEL}
    assert forked.base == ""  # another project's chunks are copied, not referred to
    assert chief.delete(f"/checkpoints/{saved}/grants/{other.id}").status == 204
    rows = "SELECT id, fence FROM replicas WHERE job_id = CAST(:job AS uuid)"
    pairs = stack.run(lambda uow: uow.session.execute(text(rows), {"job": second}).all())
    (late,) = node.specs(*((str(row.id), row.fence) for row in pairs))
    assert plan_of(late).restore == ()


def test_who_only_works_in_a_project_can_not_share_its_checkpoints(
    stack: Stack, world: World, member: Caller, node: FakeNode, spec: wire.ReplicaSpec
) -> None:
    saved, _ = save(stack, node, spec, {"a": MODEL})
    assert member.put(f"/checkpoints/{saved}/grants/{world.strangers_project.id}").status == 403
    viewer = stack.client(world.viewer)
    assert viewer.delete(f"/checkpoints/{saved}").status == 403


def _id(spec: wire.ReplicaSpec) -> Any:
    return UUID(spec.replica_id)


def _node_actor(stack: Stack, node: FakeNode) -> Any:
    credential = node.caller.credential
    return stack.run(lambda uow: stack.app.extensions["door"].actor(uow, credential))
