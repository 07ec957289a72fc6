"""Files beside a job's results: sent in parts, checked, listed, read in ranges, removed, and gone from the store."""

import errno
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from uuid import UUID

import pytest
from moto.server import ThreadedMotoServer
from sqlalchemy import select, update

from app.core.access import SYSTEM
from app.core.uow import UnitOfWork
from app.jobs.models import Replica
from app.storage import discards, uploads
from app.storage.artifacts import Owner, hold_room
from app.storage.models import Artifact, Upload
from tests.support.code import digest_of
from tests.support.fake_node import FakeNode
from tests.support.files import append, begin, put
from tests.support.stack import Caller, Stack
from tests.support.world import World
from trellis.errors import Unavailable
from trellis.stores.base import Store, Written
from trellis.stores.local import LocalStore
from trellis.stores.urls import open_store


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


@pytest.fixture
def job_id(member: Caller) -> str:
    return str(member.post("/jobs", {"command": ["true"]}).json["id"])


def names(caller: Caller, job_id: str, **query: str) -> list[str]:
    answer = caller.get(f"/jobs/{job_id}/artifacts", query_string=query)
    assert answer.status == 200, answer.text
    return [item["name"] for item in answer.json["items"]]


def test_an_artifact_may_be_larger_than_other_bodies(stack: Stack, world: World, store: LocalStore) -> None:
    node = FakeNode.join(stack, world)
    stack.client(world.member).post("/jobs", {"command": ["true"]})
    stack.run(stack.cycle)
    replica = stack.run(lambda uow: uow.session.execute(select(Replica)).scalar_one())
    content = b"x" * (stack.settings.max_body_bytes + 1)
    path = f"/agent/replicas/{replica.id}/artifacts?fence={replica.fence}&name=weights.bin&type=model"
    headers = {"Digest": f"sha-256={digest_of(content)}", "Artifact-Metadata": '{"a": 1}'}
    answer = node.caller.call("PUT", path, data=content, headers=headers)
    assert answer.status == 200, answer.text
    (shown,) = stack.client(world.member).get(f"/jobs/{replica.job_id}/artifacts").json["items"]
    assert (shown["type"], shown["metadata"], shown["replica_id"]) == ("model", {"a": 1}, str(replica.id))
    assert node.caller.call("PUT", path, data=content, headers=headers).json == answer.json


def test_a_file_is_sent_in_parts_and_read_again_whole_and_in_ranges(
    stack: Stack, member: Caller, job_id: str, store: LocalStore
) -> None:
    content = os.urandom(3_000_000)
    begun = begin(member, job_id, "models/best.safetensors", content, metadata={"epoch": 3})
    url = begun.json["upload"]["url"]
    for start, end in ((0, 1_000_000), (1_000_000, 2_500_000)):
        part = append(member, url, start, content[start:end])
        assert (part.status, part.headers["Upload-Offset"]) == (200, str(end))
        assert names(member, job_id) == []
    sent = append(member, url, 2_500_000, content[2_500_000:]).json["artifact"]
    assert (sent["type"], sent["metadata"], sent["digest"]) == ("model", {"epoch": 3}, digest_of(content))
    path = f"/jobs/{job_id}/artifacts/{sent['id']}"
    client = stack.app.test_client()

    def fetch(**headers: str) -> tuple[int, bytes, str]:
        answer = client.get(f"/api/v1{path}", headers={**member.headers, **headers})
        return answer.status_code, answer.get_data(), answer.headers.get("Content-Range", "")

    assert fetch() == (200, content, "")
    assert fetch(Range="bytes=999990-1000009") == (206, content[999_990:1_000_010], "bytes 999990-1000009/3000000")
    assert fetch(Range="bytes=-5")[:2] == (206, content[-5:])
    assert fetch(Range="bytes=2999999-9999999")[:2] == (206, content[-1:])
    assert fetch(Range="bytes=3000000-")[0] == 416
    assert fetch(Range="bytes=0-1,5-6")[:2] == (200, content)
    assert fetch(**{"If-None-Match": f'"{sent["digest"]}"'})[0] == 304
    assert fetch(**{"If-Range": '"another"', "Range": "bytes=0-1"})[0] == 200
    assert fetch(**{"If-Range": f'"{sent["digest"]}"', "Range": "bytes=0-1"})[0] == 206


def test_an_upload_that_broke_off_goes_on_from_the_byte_where_it_stopped(
    member: Caller, job_id: str, store: LocalStore
) -> None:
    content = os.urandom(100_000)
    url = begin(member, job_id, "a.bin", content).json["upload"]["url"]
    append(member, url, 0, content[:30_000])
    again = begin(member, job_id, "a.bin", content)
    assert (again.status, again.json["upload"]["received_bytes"]) == (201, 30_000)
    assert again.json["upload"]["url"] == url
    stands = member.get(url.partition("/api/v1")[2])
    assert (stands.headers["Upload-Offset"], stands.json["received_bytes"]) == ("30000", 30_000)
    wrong = append(member, url, 20_000, content[20_000:])
    assert (wrong.status, wrong.json["code"]) == (409, "offset_mismatch")
    assert "from byte 30000" in wrong.json["detail"]
    assert append(member, url, 30_000, content[30_000:]).json["artifact"]["size_bytes"] == 100_000


def test_the_same_file_again_is_the_same_artifact_and_sends_nothing(
    member: Caller, job_id: str, store: LocalStore
) -> None:
    first = put(member, job_id, "a.txt", b"hello")
    again = begin(member, job_id, "a.txt", b"hello")
    assert (again.status, again.json["artifact"]["id"]) == (200, first["id"])
    assert put(member, job_id, "a.txt", b"hello", type="report")["id"] != first["id"]


def test_a_file_of_no_bytes_is_a_file(member: Caller, job_id: str, store: LocalStore) -> None:
    empty = put(member, job_id, "empty", b"")
    assert member.get(f"/jobs/{job_id}/artifacts/{empty['id']}").text == ""


def test_a_file_of_no_bytes_whose_last_step_was_lost_is_taken_up_again(
    member: Caller, job_id: str, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = begin(member, job_id, "empty", b"").json["upload"]["url"]
    with monkeypatch.context() as patch:
        patch.setattr(uploads, "digest_of", lambda *_: unavailable())
        assert append(member, url, 0, b"").status == 503
    assert append(member, url, 0, b"").json["artifact"]["size_bytes"] == 0


def unavailable() -> str:
    """As where a process is killed at this line."""
    raise Unavailable("the store is away")


def test_bytes_of_another_digest_are_thrown_away(member: Caller, job_id: str, stack: Stack, store: LocalStore) -> None:
    url = begin(member, job_id, "a.bin", b"12345").json["upload"]["url"]
    answer = append(member, url, 0, b"54321")
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/digest")
    assert names(member, job_id) == []
    assert member.get(url.partition("/api/v1")[2]).status == 404
    swept(stack, store)
    assert list(store.find("artifacts")) == []


def test_a_new_content_takes_the_place_of_the_old_one_whose_bytes_leave_the_store(
    member: Caller, job_id: str, stack: Stack, store: LocalStore
) -> None:
    put(member, job_id, "a.bin", b"old")
    kept = put(member, job_id, "a.bin", b"newer")
    assert [item["id"] for item in member.get(f"/jobs/{job_id}/artifacts").json["items"]] == [kept["id"]]
    swept(stack, store)
    assert [stored.size_bytes for stored in store.find("artifacts")] == [5]
    assert member.get(f"/jobs/{job_id}/artifacts/{kept['id']}").text == "newer"


def test_two_uploads_that_race_for_one_name_leave_one_whole_file(
    member: Caller, job_id: str, stack: Stack, store: LocalStore
) -> None:
    contents = [bytes([65 + number]) * 1000 for number in range(4)]
    urls = [begin(member, job_id, "same.bin", content).json["upload"]["url"] for content in contents]
    with ThreadPoolExecutor(4) as pool:
        sent = list(pool.map(lambda pair: append(member, pair[0], 0, pair[1]), zip(urls, contents, strict=True)))
    assert [answer.status for answer in sent] == [200] * 4
    (left,) = member.get(f"/jobs/{job_id}/artifacts").json["items"]
    assert member.get(f"/jobs/{job_id}/artifacts/{left['id']}").text.encode() in contents
    swept(stack, store)
    assert len(list(store.find("artifacts"))) == 1


def test_of_those_who_send_the_same_bytes_at_once_one_is_heard(
    member: Caller, job_id: str, stack: Stack, store: LocalStore
) -> None:
    url = begin(member, job_id, "a.bin", b"x" * 1000).json["upload"]["url"]
    with ThreadPoolExecutor(4) as pool:
        sent = list(pool.map(lambda _: append(member, url, 0, b"x" * 999), range(4)))
    assert sorted(answer.status for answer in sent) == [200, 409, 409, 409]
    assert append(member, url, 999, b"x").json["artifact"]["size_bytes"] == 1000
    swept(stack, store)
    assert sum(stored.size_bytes for stored in store.find("artifacts")) == 1000


def test_a_list_is_filtered_sorted_and_paged(member: Caller, job_id: str, store: LocalStore) -> None:
    for name, content in (("a/1.png", b"12"), ("a/2.csv", b"1"), ("ab.png", b"123"), ("z_.pt", b"")):
        put(member, job_id, name, content)
    assert names(member, job_id) == ["a/1.png", "a/2.csv", "ab.png", "z_.pt"]
    assert names(member, job_id, under="a") == names(member, job_id, under="a/") == ["a/1.png", "a/2.csv"]
    assert names(member, job_id, type="plot") == ["a/1.png", "ab.png"]
    assert names(member, job_id, name="_") == ["z_.pt"]
    assert names(member, job_id, sort="-size_bytes")[0] == "ab.png"
    first = member.get(f"/jobs/{job_id}/artifacts?limit=3").json
    rest = member.get(f"/jobs/{job_id}/artifacts?limit=3&cursor={first['next_cursor']}").json
    assert [len(first["items"]), len(rest["items"]), rest["next_cursor"]] == [3, 1, None]


def test_what_is_removed_is_gone_from_the_list_and_later_from_the_store(
    member: Caller, job_id: str, stack: Stack, store: LocalStore, world: World
) -> None:
    kept = put(member, job_id, "a.bin", b"12345")
    path = f"/jobs/{job_id}/artifacts/{kept['id']}"
    assert stack.client(world.viewer).delete(path).status == 403
    assert member.delete(path).status == 204
    assert (member.get(path).status, names(member, job_id)) == (404, [])
    assert "artifact.removed" in [item["kind"] for item in member.get(f"/jobs/{job_id}/events").json["items"]]
    assert len(list(store.find("artifacts"))) == 1, "who reads it may end"
    swept(stack, store)
    assert list(store.find("artifacts")) == []


def test_a_project_keeps_no_more_than_it_may(
    member: Caller, job_id: str, stack: Stack, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = replace(stack.settings, artifact_bytes=10, project_artifact_bytes=15)
    monkeypatch.setitem(stack.app.extensions, "settings", small)
    too_large = begin(member, job_id, "a", b"x" * 11)
    assert (too_large.status, too_large.json["code"]) == (403, "quota_exceeded")
    assert "larger than an artifact may be (10" in too_large.json["detail"]
    begin(member, job_id, "b", b"x" * 10)
    full = begin(member, job_id, "c", b"x" * 6)
    assert "trellis artifacts rm" in full.json["detail"]
    assert begin(member, job_id, "d", b"x" * 5).status == 201


def test_many_who_begin_at_once_do_not_get_more_room_together(
    member: Caller, job_id: str, stack: Stack, world: World
) -> None:
    small = replace(stack.settings, project_artifact_bytes=30)
    owner = Owner(world.project.id, UUID(job_id))

    def take(uow: UnitOfWork) -> None:
        hold_room(uow, owner, 10, small)
        row = {"name": "a", "kind": "file", "media_type": "a/b", "details": {}, "size_bytes": 10, "digest": "0" * 64}
        ids = {"project_id": owner.project_id, "job_id": owner.job_id, "touched_at": uow.clock.now()}
        uow.session.add(Upload(**row, **ids))
        uow.session.flush()

    results = stack.race(take, 8)
    assert len([result for result in results if result is None]) == 3


def test_a_full_disk_is_said_and_costs_nothing_that_was_taken_in(
    member: Caller, job_id: str, store: LocalStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(1000)
    url = begin(member, job_id, "a.bin", content).json["upload"]["url"]
    append(member, url, 0, content[:600])
    honest = store.write

    def full(key: str, parts: Iterable[bytes]) -> Written:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store, "write", full)
    answer = append(member, url, 600, content[600:])
    assert (answer.status, answer.json["code"]) == (507, "store_full")
    assert "No space left" in answer.json["detail"]
    monkeypatch.setattr(store, "write", honest)
    assert append(member, url, 600, content[600:]).json["artifact"]["digest"] == digest_of(content)


def test_an_upload_that_nobody_goes_on_with_is_given_up(
    member: Caller, job_id: str, stack: Stack, store: LocalStore
) -> None:
    url = begin(member, job_id, "a.bin", b"12345").json["upload"]["url"]
    append(member, url, 0, b"123")
    assert stack.run(uploads.give_up_stale) == 0
    stack.run(lambda uow: uow.execute(update(Upload).values(touched_at=uow.clock.now() - uploads.STALE * 2)))
    assert stack.run(uploads.give_up_stale) == 1
    assert append(member, url, 3, b"45").status == 404
    swept(stack, store)
    assert list(store.find("artifacts")) == []


def test_what_no_row_names_is_an_orphan_once_it_is_old(
    member: Caller, job_id: str, stack: Stack, store: LocalStore
) -> None:
    parts = os.urandom(10)
    kept = begin(member, job_id, "whole.bin", parts).json["upload"]["url"]
    append(member, kept, 0, parts[:5])
    append(member, kept, 5, parts[5:])
    store.write("artifacts/p/j/lost", [b"written, then the process was killed"])
    store.write("blobs/p/lost", [b"likewise"])
    now = stack.run(lambda uow: uow.clock.now()).timestamp()
    assert list(discards.orphans(store, 3600, now)) == []
    old = list(discards.orphans(store, 3600, now + 7200))
    assert len(old) == 4
    assert sorted(stack.run(lambda uow: discards.unknown(uow, old))) == ["artifacts/p/j/lost", "blobs/p/lost"]


def test_nothing_is_told_of_a_file_whose_row_has_no_bytes(
    member: Caller, job_id: str, stack: Stack, store: LocalStore
) -> None:
    kept = put(member, job_id, "a.bin", b"12345")
    store.delete(stack.run(lambda uow: uow.session.execute(select(Artifact.key)).scalar_one()))
    answer = member.get(f"/jobs/{job_id}/artifacts/{kept['id']}")
    assert (answer.status, "no longer in the store" in answer.json["detail"]) == (404, True)


def test_objects_hold_files_as_folders_do(
    member: Caller, job_id: str, stack: Stack, monkeypatch: pytest.MonkeyPatch, s3: str
) -> None:
    bucket = f"b-{os.urandom(6).hex()}"
    found = open_store(f"s3://{bucket}/below", key="test", secret="test", endpoint_url=s3)
    found._files.mkdir(bucket)  # type: ignore[attr-defined]  # a bucket is its owner's to make
    monkeypatch.setitem(stack.app.extensions, "store", found)
    content = os.urandom(200_000)
    url = begin(member, job_id, "a.bin", content).json["upload"]["url"]
    append(member, url, 0, content[:150_000])
    kept = append(member, url, 150_000, content[150_000:]).json["artifact"]
    path = f"/api/v1/jobs/{job_id}/artifacts/{kept['id']}"
    client = stack.app.test_client()
    assert client.get(path, headers=member.headers).get_data() == content
    ranged = client.get(path, headers={**member.headers, "Range": "bytes=149990-150009"})
    assert ranged.get_data() == content[149_990:150_010]
    assert member.delete(f"/jobs/{job_id}/artifacts/{kept['id']}").status == 204
    swept(stack, found)
    assert list(found.find("artifacts")) == []


def swept(stack: Stack, store: Store) -> None:
    """As the task does, once every reader has had its time."""
    for key in stack.run(lambda uow: discards.list_due(uow, readers_s=-1), SYSTEM):
        store.delete(key)
