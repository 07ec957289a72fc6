"""Code as the control plane keeps it."""

import io
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Barrier
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from app.jobs.code import needed
from app.jobs.models import Job, Replica
from app.storage import blobs, bundles
from app.storage.models import Blob, Bundle
from tests.support.code import a_bundle, a_manifest, an_entry, digest_of, parcels, put, send
from tests.support.fake_node import FakeNode
from tests.support.stack import Answer, Caller, Stack
from tests.support.statements import counted
from tests.support.world import World
from trellis import wire
from trellis.bundles.manifest import Entry, Manifest
from trellis.bundles.parcels import unwrap
from trellis.stores.local import LocalStore
from trellis.wire import pack, unpack

ROOT = Path(__file__).parents[3]
FILES = {"train.py": b"print(1)", "lib/a.py": b"A = 1", "lib/same.py": b"A = 1"}


@pytest.fixture
def member(stack: Stack, world: World, store: LocalStore) -> Caller:
    return stack.client(world.member)


def held(store: LocalStore, tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "store").rglob("*") if path.is_file()]


def age(stack: Stack, model: Any, column: str, days: int) -> None:
    stack.run(lambda uow: uow.session.execute(update(model).values({column: uow.clock.now() - timedelta(days=days)})))


def sweep(stack: Stack, store: LocalStore) -> None:
    """What the tick does, until there is nothing left to do."""
    stack.run(lambda uow: bundles.drop_unused(uow, 30, needed))
    stack.run(blobs.drop_loose)
    dropped = stack.run(blobs.list_dropped)
    for key in dropped.values():
        store.delete(key)
    stack.run(lambda uow: blobs.forget(uow, list(dropped)))


def submit(caller: Caller, bundle: str, **body: Any) -> Answer:
    return caller.post("/jobs", {"command": ["true"], "bundle": bundle, **body})


def test_only_what_is_missing_is_asked_for_and_then_the_bundle_is_there(member: Caller) -> None:
    asked = put(member, FILES, name="mine").json
    assert (asked["bundle"], set(asked["missing"])) == (None, {digest_of(b"print(1)"), digest_of(b"A = 1")})
    assert send(member, b"A = 1").json == {"stored": 1, "known": 0}
    assert put(member, FILES).json["missing"] == [digest_of(b"print(1)")]
    assert send(member, b"print(1)", b"A = 1").json == {"stored": 1, "known": 1}
    made = put(member, FILES, name="mine").json
    assert made["missing"] == []
    shown = made["bundle"]
    assert (shown["digest"], shown["files"], shown["size_bytes"]) == (a_manifest(FILES).digest, 3, 18)
    assert (shown["name"], put(member, FILES).json["bundle"]["id"]) == ("mine", shown["id"])
    assert member.get(f"/bundles/{shown['id']}").json["digest"] == shown["digest"]
    assert [item["id"] for item in member.get("/bundles").json["items"]] == [shown["id"]]


def test_a_bundle_comes_back_as_it_was(member: Caller, stack: Stack) -> None:
    made = a_bundle(member, FILES)
    files = unpack(Manifest, {"files": member.get(f"/bundles/{made['id']}/files").json["items"]})
    assert files == a_manifest(FILES)
    body = member._client.get(f"/api/v1/bundles/{made['id']}/blobs", headers=member.headers).data
    contents = {parcel.digest: b"".join(parcel.pieces) for parcel in unwrap(io.BytesIO(body).read)}
    assert contents == {digest_of(content): content for content in FILES.values()}


def test_what_was_whole_when_the_connection_broke_need_not_be_sent_again(member: Caller) -> None:
    broken = parcels(b"print(1)", b"A = 1")[:-3]
    answer = member.call("PUT", "/bundles/blobs", data=broken)
    assert (answer.status, "ends within" in answer.text) == (422, True)
    assert put(member, FILES).json["missing"] == [digest_of(b"A = 1")]


def test_bytes_without_their_digest_are_not_kept(member: Caller, store: LocalStore, tmp_path: Path) -> None:
    forged = bytes.fromhex(digest_of(b"A = 1")) + (4).to_bytes(8, "big") + b"evil"
    assert member.call("PUT", "/bundles/blobs", data=forged).status == 422
    assert held(store, tmp_path) == []
    assert digest_of(b"A = 1") in put(member, FILES).json["missing"]


def test_a_content_that_is_there_is_not_kept_twice(member: Caller, store: LocalStore, tmp_path: Path) -> None:
    for _ in range(2):
        send(member, b"x", b"x")
    assert len(held(store, tmp_path)) == 1


def test_a_bundle_that_is_too_large_names_its_largest_files(
    stack: Stack, member: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(stack.app.extensions, "settings", replace(stack.settings, bundle_bytes=1000))
    answer = put(member, {"small": b"1", "large": b"x" * 2000})
    assert answer.status == 422
    (fault,) = answer.json["errors"]
    assert fault["pointer"] == "/files"
    assert "the largest are large (2.0 KiB), small (1 B)" in fault["message"]
    assert ".trellisignore" in fault["message"]


def test_a_project_keeps_only_so_much_code(stack: Stack, member: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stack.app.extensions, "settings", replace(stack.settings, project_code_bytes=10))
    assert send(member, b"12345678").status == 200
    refused = put(member, {"a": b"abcdefgh"})
    assert (refused.status, refused.json["code"]) == (403, "quota_exceeded")
    sent = send(member, b"1", b"abcdefgh")
    assert (sent.status, sent.json["code"]) == (403, "quota_exceeded")
    assert put(member, {"a": b"1"}).json["bundle"]["files"] == 1  # what came before the room was used up


def test_a_manifest_whose_sizes_are_a_lie_is_refused(member: Caller) -> None:
    send(member, b"A = 1")
    lie = Manifest((an_entry("a", b"A = 1", size_bytes=1),))
    answer = member.put("/bundles", pack(lie))
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/files/0")


def test_a_job_runs_in_its_bundle_and_its_node_hears_of_it(stack: Stack, world: World, member: Caller) -> None:
    made = a_bundle(member, FILES)
    job = submit(member, made["id"]).json
    shown = {name: made[name] for name in ("id", "digest", "size_bytes", "files")}
    assert job["bundle"] == shown
    assert member.get(f"/jobs/{job['id']}").json["bundle"] == shown
    node = FakeNode.join(stack, world)
    spec = placed(stack, node)
    assert spec.code == wire.Code(made["digest"], made["size_bytes"], made["files"])
    answer = node.caller.get(f"/agent/replicas/{spec.replica_id}/code?fence={spec.fence}")
    assert unpack(Manifest, answer.json) == a_manifest(FILES)
    fetched = fetch(node, spec, [digest_of(b"A = 1"), "0" * 64])
    assert fetched == {digest_of(b"A = 1"): b"A = 1"}


def placed(stack: Stack, node: FakeNode) -> wire.ReplicaSpec:
    """The one replica, once it has its place."""
    stack.run(stack.cycle)
    rows = stack.run(lambda uow: [(str(r.id), r.fence) for r in uow.session.execute(select(Replica)).scalars()])
    (spec,) = node.specs(*rows)
    return spec


def fetch(node: FakeNode, spec: wire.ReplicaSpec, digests: list[str]) -> dict[str, bytes]:
    body = node.caller._client.post(
        f"/api/v1/agent/replicas/{spec.replica_id}/code/blobs?fence={spec.fence}",
        json={"digests": digests}, headers=node.caller.headers,
    ).data  # fmt: skip
    return {parcel.digest: b"".join(parcel.pieces) for parcel in unwrap(io.BytesIO(body).read)}


def test_a_node_gets_no_code_of_a_replica_that_has_ended_or_has_another_fence(
    stack: Stack, world: World, member: Caller
) -> None:
    submit(member, a_bundle(member, FILES)["id"])
    node = FakeNode.join(stack, world)
    spec = placed(stack, node)
    path = f"/agent/replicas/{spec.replica_id}/code"
    assert node.caller.get(f"{path}?fence=99").json["code"] == "stale_fence"
    node.succeed(spec)
    assert node.caller.get(f"{path}?fence={spec.fence}").json["code"] == "stale_fence"


def test_a_replica_without_code_has_none_to_fetch(stack: Stack, world: World, member: Caller) -> None:
    member.post("/jobs", {"command": ["true"]})
    node = FakeNode.join(stack, world)
    spec = placed(stack, node)
    assert spec.code is None
    assert node.caller.get(f"/agent/replicas/{spec.replica_id}/code?fence={spec.fence}").status == 404


def test_a_retry_runs_in_the_same_code(stack: Stack, world: World, member: Caller) -> None:
    made = a_bundle(member, FILES)
    job = submit(member, made["id"]).json
    member.patch(f"/jobs/{job['id']}/status", {"action": "cancel"})
    again = member.patch(f"/jobs/{job['id']}/status", {"action": "retry"})
    assert again.json["bundle"] == job["bundle"]
    kept = stack.run(lambda uow: uow.session.get_one(Job, UUID(again.json["id"])).bundle_id)
    assert str(kept) == made["id"]


def test_an_array_and_a_batch_run_in_a_bundle(member: Caller) -> None:
    made = a_bundle(member, FILES)
    array = submit(member, made["id"], array={"indexes": "0-2"}).json
    assert {item["bundle"]["id"] for item in array["items"]} == {made["id"]}
    batch = member.post("/jobs/batch", {"jobs": [{"command": ["true"], "bundle": made["id"]}] * 3})
    assert {item["bundle"]["id"] for item in batch.json["items"]} == {made["id"]}


def test_a_batch_looks_its_bundle_up_once(stack: Stack, member: Caller) -> None:
    made = a_bundle(member, FILES)
    counts = []
    for many in (2, 20):
        with counted(stack) as statements:
            assert (
                member.post("/jobs/batch", {"jobs": [{"command": ["true"], "bundle": made["id"]}] * many}).status == 201
            )
        counts.append(len(statements))
    assert counts[0] == counts[1]


def test_a_bundle_of_another_project_is_none(stack: Stack, world: World, member: Caller) -> None:
    made = a_bundle(member, FILES)
    answer = submit(stack.client(world.stranger), made["id"])
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/bundle")


def test_a_dry_run_needs_the_bundle_too_and_keeps_nothing(stack: Stack, member: Caller) -> None:
    made = a_bundle(member, FILES)
    assert submit(member, made["id"], dry_run=True).json["bundle"]["digest"] == made["digest"]
    what_if = member.post("/resources/what-if", {"job": {"command": ["true"], "bundle": made["id"]}})
    assert what_if.status == 200, what_if.text
    assert stack.run(lambda uow: uow.session.execute(select(func.count()).select_from(Job)).scalar_one()) == 0
    assert submit(member, made["project_id"], dry_run=True).status == 422


def test_the_jobs_of_a_workflow_run_in_bundles_and_a_wrong_one_is_named_by_its_place(member: Caller) -> None:
    made = a_bundle(member, FILES)
    jobs = [{"name": name, "command": ["true"], "bundle": made["id"]} for name in ("first", "second")]
    flow = member.post("/jobs/workflows", {"name": "nightly", "jobs": jobs}).json
    assert [job["bundle"]["digest"] for job in flow["items"]] == [made["digest"]] * 2
    wrong = [jobs[0], jobs[1] | {"bundle": made["project_id"]}]
    refused = member.post("/jobs/workflows", {"name": "nightly", "jobs": wrong})
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "/jobs/1/bundle")


def test_all_elements_of_an_array_are_stored_with_their_bundle_and_tried_again_in_it(
    stack: Stack, member: Caller
) -> None:
    made = a_bundle(member, FILES)
    array = submit(member, made["id"], array={"indexes": "0-5", "max_parallel": 2}).json["array_id"]
    member.patch(f"/jobs/arrays/{array}/status", {"action": "cancel"})
    again = member.patch(f"/jobs/arrays/{array}/status", {"action": "retry"})
    assert (again.status, again.json["changed"]) == (200, 6)
    stored = stack.run(lambda uow: uow.session.execute(select(Job.bundle_id, Job.spec["code"]["digest"])).all())
    assert [tuple(row) for row in stored] == [(UUID(made["id"]), made["digest"])] * 12


def test_a_bundle_is_not_forgotten_while_a_job_needs_it(
    stack: Stack, member: Caller, store: LocalStore, tmp_path: Path
) -> None:
    made = a_bundle(member, FILES)
    job = submit(member, made["id"]).json
    refused = member.delete(f"/bundles/{made['id']}")
    assert (refused.status, refused.json["code"]) == (409, "bundle_in_use")
    age(stack, Bundle, "used_at", 31)
    age(stack, Blob, "created_at", 31)
    sweep(stack, store)
    assert member.get(f"/bundles/{made['id']}").status == 200
    member.patch(f"/jobs/{job['id']}/status", {"action": "cancel"})
    sweep(stack, store)  # it was in use just now, so its time begins again
    assert member.get(f"/bundles/{made['id']}").status == 200
    age(stack, Bundle, "used_at", 31)
    sweep(stack, store)
    assert member.get(f"/bundles/{made['id']}").status == 404
    assert held(store, tmp_path) == []
    assert stack.events_of(UUID(made["id"])) == ["bundle.created", "bundle.removed"]
    retried = member.patch(f"/jobs/{job['id']}/status", {"action": "retry"})
    assert (retried.status, retried.json["errors"][0]["pointer"]) == (422, "/bundle")


def test_what_another_bundle_holds_too_stays(stack: Stack, member: Caller, store: LocalStore, tmp_path: Path) -> None:
    first, second = a_bundle(member, FILES), a_bundle(member, {"b": b"A = 1"})
    assert member.delete(f"/bundles/{first['id']}").status == 204
    age(stack, Blob, "created_at", 2)
    sweep(stack, store)
    assert [path.read_bytes() for path in held(store, tmp_path)] == [b"A = 1"]
    assert member.get(f"/bundles/{second['id']}").status == 200


def test_the_ticks_erase_what_was_dropped_from_the_store_that_the_settings_name(
    stack: Stack, member: Caller, store: LocalStore, tmp_path: Path
) -> None:
    a_bundle(member, FILES)
    age(stack, Bundle, "used_at", 31)
    age(stack, Blob, "created_at", 31)
    settings = {
        "TRELLIS_DATABASE_URL": stack.settings.database_url,
        "TRELLIS_BROKER_URL": stack.settings.broker_url,
        "TRELLIS_SECRET_KEY": stack.settings.secret_key,
        "TRELLIS_STORE_URL": (tmp_path / "store").as_uri(),
    }
    program = "from tasks.storage import drop_code, erase_code; drop_code(); erase_code()"
    subprocess.run([sys.executable, "-c", program], env=settings, cwd=ROOT, check=True, timeout=60)
    assert held(store, tmp_path) == []
    assert stack.run(lambda uow: uow.session.execute(select(func.count()).select_from(Blob)).scalar_one()) == 0


def test_what_may_still_become_a_bundle_stays_for_a_day(
    stack: Stack, member: Caller, store: LocalStore, tmp_path: Path
) -> None:
    send(member, b"on its way")
    sweep(stack, store)
    assert len(held(store, tmp_path)) == 1
    age(stack, Blob, "created_at", 2)
    sweep(stack, store)
    assert held(store, tmp_path) == []


def test_what_was_dropped_can_be_sent_again(stack: Stack, member: Caller, store: LocalStore) -> None:
    send(member, b"A = 1")
    age(stack, Blob, "created_at", 2)
    stack.run(blobs.drop_loose)  # its bytes are not gone yet
    assert digest_of(b"A = 1") in put(member, FILES).json["missing"]
    made = a_bundle(member, FILES)
    sweep(stack, store)
    assert member.get(f"/bundles/{made['id']}/blobs").text.count("A = 1") == 1


def test_using_a_bundle_keeps_it_for_another_while(stack: Stack, member: Caller, store: LocalStore) -> None:
    made = a_bundle(member, FILES)
    age(stack, Bundle, "used_at", 31)
    job = submit(member, made["id"]).json
    member.patch(f"/jobs/{job['id']}/status", {"action": "cancel"})
    sweep(stack, store)
    assert member.get(f"/bundles/{made['id']}").status == 200


def test_a_bundle_that_is_forgotten_while_it_is_asked_for_leaves_no_job_without_code(
    stack: Stack, member: Caller
) -> None:
    outcomes = set()
    for number in range(10):
        made = a_bundle(member, {**FILES, "n": str(number).encode()})
        begin = Barrier(2)

        def forget(made: dict[str, Any] = made, begin: Barrier = begin) -> int:
            begin.wait(30)
            return member.delete(f"/bundles/{made['id']}").status

        with ThreadPoolExecutor(1) as pool:
            forgotten = pool.submit(forget)
            begin.wait(30)
            submitted = submit(member, made["id"]).status
        outcomes.add((forgotten.result(), submitted))
    assert outcomes <= {(204, 422), (409, 201)}


def test_a_viewer_sees_code_and_sends_none(stack: Stack, world: World, member: Caller) -> None:
    made = a_bundle(member, FILES)
    viewer = stack.client(world.viewer)
    assert viewer.get(f"/bundles/{made['id']}").status == 200
    assert put(viewer, FILES, project=str(world.project.id)).status == 403
    assert send(viewer, b"x", project=str(world.project.id)).status == 403
    assert viewer.delete(f"/bundles/{made['id']}").status == 403


def test_a_job_names_the_file_of_its_packages_and_its_node_hears_of_it(
    stack: Stack, world: World, member: Caller
) -> None:
    made = a_bundle(member, {**FILES, "env/requirements.txt": b"numpy"})
    job = submit(member, made["id"], requirements="env/requirements.txt").json
    assert job["bundle"]["requirements"] == "env/requirements.txt"
    spec = placed(stack, FakeNode.join(stack, world))
    assert spec.code is not None
    assert spec.code.requirements == "env/requirements.txt"
    member.patch(f"/jobs/{job['id']}/status", {"action": "cancel", "force": True})


@pytest.mark.parametrize(
    ("path", "why"),
    [("missing.txt", "is no file of the bundle"), ("link", "is no file"), ("lib", "is no file"), ("huge", "is larger")],
)
def test_requirements_that_are_no_file_of_the_bundle_are_refused(member: Caller, path: str, why: str) -> None:
    huge = b"#" * ((1 << 20) + 1)
    send(member, b"A = 1", huge)
    files = [an_entry("lib/a.py", b"A = 1"), an_entry("huge", huge), Entry("link", link="lib/a.py")]
    made = member.put("/bundles", pack(Manifest.of(files))).json["bundle"]
    answer = submit(member, made["id"], requirements=path)
    assert answer.status == 422
    (fault,) = answer.json["errors"]
    assert (fault["pointer"], why in fault["message"]) == ("/requirements", True)


def test_requirements_without_a_bundle_are_refused(member: Caller) -> None:
    answer = member.post("/jobs", {"command": ["true"], "requirements": "requirements.txt"})
    assert answer.json["errors"][0]["pointer"] == "/requirements"


def test_links_are_kept(member: Caller) -> None:
    send(member, b"A = 1")
    manifest = Manifest.of([an_entry("a", b"A = 1"), Entry("l", link="a")])
    made = member.put("/bundles", pack(manifest)).json["bundle"]
    assert (made["files"], made["digest"]) == (2, manifest.digest)
