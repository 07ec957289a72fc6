"""Artifacts and logs in the hands of somebody who means harm."""

from pathlib import Path
from typing import Any

import pytest

from app.storage import uploads
from tests.support.code import digest_of
from tests.support.fake_node import FakeNode
from tests.support.files import append, begin, put
from tests.support.stack import Caller, Stack
from tests.support.world import World
from trellis.stores.local import LocalStore

EVIL_NAMES = [
    "../etc/passwd", "/etc/passwd", "a/../../b", "..", ".", "", "a//b", "a/", "a\0b", "a\nb", "a\r\nSet-Cookie: x", "~root", "-rf",
    "C:\\windows", "a\\..\\b", "%2e%2e/b", "..%2fb", "a/.hidden", ".ssh/authorized_keys", "x" * 256, "a/" * 128 + "a",
    "\u2024\u2024/b", "\uff0e\uff0e/b", "\u202egnp.exe", "caf\u00e9", "a b", "con\u0131", '"; filename="evil.html',
]  # fmt: skip


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


@pytest.fixture
def job_id(member: Caller) -> str:
    return str(member.post("/jobs", {"command": ["true"]}).json["id"])


@pytest.fixture
def store(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalStore:
    made = LocalStore(tmp_path / "store")
    monkeypatch.setitem(stack.app.extensions, "store", made)
    return made


@pytest.mark.parametrize("name", EVIL_NAMES)
def test_a_name_that_is_no_plain_path_is_refused_and_nothing_is_begun(
    member: Caller, job_id: str, stack: Stack, name: str
) -> None:
    before = stack.dump()
    answer = begin(member, job_id, name, b"x")
    assert answer.status == 422, answer.text
    assert {error["pointer"] for error in answer.json["errors"]} & {"/name", ""}  # a NUL is no text to begin with
    assert stack.dump() == before


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("type", "No"), ("type", "x" * 41), ("type", "a\r\nb"), ("media_type", "text/html\r\nX: y"), ("media_type", "html"),
        ("metadata", {"a": "x" * 20_000}), ("metadata", []), ("metadata", {"a": "\0"}), ("size_bytes", -1), ("size_bytes", 1.5),
        ("size_bytes", 2**63), ("digest", "00"), ("digest", "g" * 64), ("digest", None),
    ],
)  # fmt: skip
def test_a_description_that_can_t_be_is_refused(
    member: Caller, job_id: str, stack: Stack, field: str, value: Any
) -> None:
    before = stack.dump()
    body = {"name": "a", "size_bytes": 1, "digest": digest_of(b"x")} | {field: value}
    assert member.post(f"/jobs/{job_id}/artifacts", body).status == 422
    assert stack.dump() == before


def test_names_that_differ_in_case_alone_are_two_files(member: Caller, job_id: str, store: LocalStore) -> None:
    assert put(member, job_id, "Model.pt", b"1")["id"] != put(member, job_id, "model.pt", b"2")["id"]


@pytest.mark.parametrize("name", ["page.html", "picture.svg", "code.js", "page.xhtml"])
def test_what_a_browser_would_run_is_only_ever_saved(member: Caller, job_id: str, store: LocalStore, name: str) -> None:
    kept = put(member, job_id, f"folder/{name}", b"<script>alert(1)</script>", media_type="text/html")
    answer = member.get(f"/jobs/{job_id}/artifacts/{kept['id']}")
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["Content-Disposition"] == f"attachment; filename={name}"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"] == "sandbox; default-src 'none'"


def test_an_upload_is_taken_up_by_nobody_else_of_the_project(
    member: Caller, job_id: str, stack: Stack, world: World, store: LocalStore
) -> None:
    url = begin(member, job_id, "a.bin", b"12345").json["upload"]["url"].partition("/api/v1")[2]
    for other in (world.project_admin, world.viewer, world.stranger, world.admin):
        caller = stack.client(other)
        answers = [caller.get(url), append(caller, url, 0, b"evil!"), caller.delete(url)]
        assert [answer.status for answer in answers] == [404] * 3, [answer.text for answer in answers]
    assert append(member, url, 0, b"12345").status == 200


def test_an_upload_of_one_job_is_none_of_another(member: Caller, job_id: str, store: LocalStore) -> None:
    other = member.post("/jobs", {"command": ["true"]}).json["id"]
    url = begin(member, job_id, "a.bin", b"12345").json["upload"]["url"].partition("/api/v1")[2]
    assert append(member, url.replace(job_id, other), 0, b"12345").status == 404
    kept = put(member, job_id, "b", b"1")
    assert member.get(f"/jobs/{other}/artifacts/{kept['id']}").status == 404
    assert member.delete(f"/jobs/{other}/artifacts/{kept['id']}").status == 404


def test_more_bytes_than_were_announced_are_not_taken(member: Caller, job_id: str, store: LocalStore) -> None:
    url = begin(member, job_id, "bomb", b"12345").json["upload"]["url"]
    assert append(member, url, 0, b"x" * 1_000_000).status == 413
    assert list(store.find("artifacts")) == []
    packed = member.call(
        "PATCH",
        url.partition("/api/v1")[2],
        data=b"\x1f\x8b",
        headers={"Upload-Offset": "0", "Content-Encoding": "gzip"},
    )
    assert packed.status == 415


def test_an_upload_in_crumbs_comes_to_an_end(
    member: Caller, job_id: str, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "PARTS_AT_MOST", 3)
    url = begin(member, job_id, "crumbs", b"12345").json["upload"]["url"]
    answers = [append(member, url, at, b"12345"[at : at + 1]).status for at in range(4)]
    assert answers == [200, 200, 200, 422]
    assert len(list(store.find("artifacts"))) == 3, "what was refused is not left in the store"


@pytest.mark.parametrize("offset", ["", "-1", "1.5", "x", "9" * 30, "+1", " 1", "\u0661"])
def test_an_offset_that_is_none_is_refused(member: Caller, job_id: str, store: LocalStore, offset: str) -> None:
    url = begin(member, job_id, "a", b"12345").json["upload"]["url"].partition("/api/v1")[2]
    headers = {"Upload-Offset": offset.encode().decode("latin-1")}
    assert member.call("PATCH", url, data=b"12345", headers=headers).status in (409, 422)


@pytest.mark.parametrize(
    "asked", ["bytes=5-1", "bytes=-0", "bytes=99999999999999999999-", "bytes=x", "bytes=0-0," * 500, "lines=1-2"]
)
def test_a_range_that_makes_no_sense_costs_nothing(member: Caller, job_id: str, store: LocalStore, asked: str) -> None:
    kept = put(member, job_id, "a", b"12345")
    answer = member.get(f"/jobs/{job_id}/artifacts/{kept['id']}", headers={"Range": asked})
    assert answer.status in (200, 416)
    assert len(answer.text) < 1000


def test_links_laid_into_the_store_lead_nowhere(member: Caller, job_id: str, store: LocalStore) -> None:
    kept = put(member, job_id, "a", b"12345")
    (stored,) = store.find("artifacts")
    path = store._root / stored.key
    path.unlink()
    path.symlink_to("/etc/passwd")
    answer = member.get(f"/jobs/{job_id}/artifacts/{kept['id']}")
    assert (answer.status, "root" in answer.text) == (404, False)


def test_a_node_speaks_of_files_of_its_own_replicas_alone(stack: Stack, world: World, job_id: str) -> None:
    node = FakeNode.join(stack, world)
    for method, path in (
        ("GET", f"/jobs/{job_id}/artifacts"),
        ("POST", f"/jobs/{job_id}/artifacts"),
        ("GET", f"/jobs/{job_id}/logs"),
    ):
        body = {"name": "a", "size_bytes": 1, "digest": digest_of(b"x")} if method == "POST" else None
        assert node.caller.call(method, path, json=body).status in (403, 404)
