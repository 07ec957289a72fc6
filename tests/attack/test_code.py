"""Code that means harm, and code of others."""

from pathlib import Path
from typing import Any

import pytest

from tests.support.code import a_bundle, a_manifest, an_entry, digest_of, parcels, put, send
from tests.support.stack import Caller, Stack
from tests.support.world import World
from trellis.bundles.manifest import Entry, Manifest
from trellis.stores.local import LocalStore
from trellis.wire import pack


@pytest.fixture
def member(stack: Stack, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Caller:
    monkeypatch.setitem(stack.app.extensions, "store", LocalStore(tmp_path / "store"))
    return stack.client(world.member)


@pytest.mark.parametrize(
    "entry",
    [
        an_entry("/etc/cron.d/x"), an_entry("../../x"), an_entry("a/../../x"), an_entry("x\0y"), an_entry(mode=0o4755),
        an_entry(mode=0o060644), Entry("l", link="/etc"), Entry("l", link="../../x"), an_entry(digest="../../../x"),
    ],
    ids=repr,
)  # fmt: skip
def test_an_entry_that_means_harm_is_named_and_changes_nothing(member: Caller, stack: Stack, entry: Entry) -> None:
    before = stack.dump()
    answer = member.put("/bundles", pack(Manifest((an_entry("A"), entry) if entry.path > "A" else (entry,))))
    assert answer.status == 422
    assert answer.json["errors"][0]["pointer"].startswith("/files") or "NUL" in answer.text
    assert stack.dump() == before


@pytest.mark.parametrize(
    "files",
    [
        None, "x", {}, 7, [None], [[]], ["a"], [{}], [{"path": 1}], [{"path": "a", "mode": "644"}],
        [{"path": "a", "surprise": 1}], [{"path": "a", "size_bytes": 1e400}], [{"path": "a", "mode": True}],
        [{"path": ["a"]}],
    ],
    ids=repr,
)  # fmt: skip
def test_a_manifest_that_is_none_is_refused(member: Caller, files: Any) -> None:
    assert member.put("/bundles", {"files": files}).status in (400, 422)


@pytest.mark.parametrize("body", [b"x", b"\0" * 40, b"\xff" * 48, parcels(b"a") + b"x", bytes(32) + b"\xff" * 8])
def test_a_body_that_is_no_parcels_is_refused_and_kept_by_nobody(member: Caller, body: bytes) -> None:
    assert member.call("PUT", "/bundles/blobs", data=body).status in (403, 422)


def test_nobody_learns_from_a_digest_whether_another_project_has_a_file(
    stack: Stack, world: World, member: Caller
) -> None:
    a_bundle(member, {"secret.txt": b"the secret"})
    stranger = stack.client(world.stranger)
    asked = put(stranger, {"secret.txt": b"the secret"}).json
    assert (asked["bundle"], asked["missing"]) == (None, [digest_of(b"the secret")])
    assert send(stranger, b"the secret").json == {"stored": 1, "known": 0}
    mine = put(stranger, {"secret.txt": b"the secret"}).json["bundle"]
    assert stranger.get("/bundles").json["items"] == [mine]


def test_a_body_over_the_limit_is_not_read_to_its_end(member: Caller) -> None:
    answer = member.call("PUT", "/bundles/blobs", environ_overrides={"CONTENT_LENGTH": str(1 << 40)})
    assert answer.status == 413


def test_a_bundle_cannot_be_used_from_another_project_by_its_id(stack: Stack, world: World, member: Caller) -> None:
    made = a_bundle(member, {"a.py": b"print()"})
    stranger = stack.client(world.stranger)
    for path in (f"/bundles/{made['id']}", f"/bundles/{made['id']}/files", f"/bundles/{made['id']}/blobs"):
        assert stranger.get(path).status == 404
    assert stranger.post("/jobs", {"command": ["true"], "bundle": made["id"]}).status == 422
    assert stranger.get("/bundles", query_string={"project": str(world.project.id)}).status == 422


def test_a_manifest_may_be_larger_than_other_bodies(member: Caller) -> None:
    files = {f"{'d' * 200}/{number:05}": b"" for number in range(15_000)}
    body = pack(a_manifest(files))
    answer = member.put("/bundles", body)
    assert (answer.status, answer.json["missing"]) == (200, [digest_of(b"")])
