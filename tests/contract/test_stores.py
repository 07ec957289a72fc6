"""Every store keeps to its interface: files, and objects behind a real S3 server on loopback."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from trellis.stores.base import Store
from trellis.stores.urls import open_store


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "file":
        return open_store(tmp_path.as_uri())
    keys = {"key": "test", "secret": "test", "endpoint_url": request.getfixturevalue("s3")}
    bucket = f"b-{os.urandom(6).hex()}"
    found = open_store(f"s3://{bucket}/below/here", **keys)
    found._files.mkdir(bucket)  # type: ignore[attr-defined]  # a bucket is its owner's to make
    return found


def test_what_was_written_is_read_again_whole_and_in_ranges(store: Store) -> None:
    content = os.urandom(3_000_000)
    written = store.write("a/b/c", [content[:10], content[10:]])
    assert written.size_bytes == store.head("a/b/c") == len(content)
    assert b"".join(store.read("a/b/c")) == content
    assert store.read_range("a/b/c", 1_000_000, 500) == content[1_000_000:1_000_500]
    assert store.read_range("a/b/c", len(content) - 5, 500) == content[-5:]


def test_writing_again_takes_the_place_of_what_was_there(store: Store) -> None:
    store.write("a", [b"old"])
    store.write("a", [b"newer"])
    assert b"".join(store.read("a")) == b"newer"


def test_a_write_that_fails_leaves_what_was_there(store: Store) -> None:
    def breaks() -> Iterator[bytes]:
        yield b"half"
        raise OSError("the source is gone")

    store.write("kept", [b"old"])
    for key in ("kept", "never"):
        with pytest.raises(OSError, match="the source is gone"):
            store.write(key, breaks())
    assert b"".join(store.read("kept")) == b"old"
    assert store.head("never") is None
    assert [one.key for one in store.find("never")] == []


def test_what_is_not_there_is_not_found_and_may_be_deleted(store: Store) -> None:
    assert store.head("no/such") is None
    store.delete("no/such")
    with pytest.raises(FileNotFoundError):
        store.read_range("no/such", 0, 1)
    with pytest.raises(FileNotFoundError):
        list(store.read("no/such"))
    assert list(store.find("no")) == []


def test_keys_are_found_below_a_prefix_and_gone_when_deleted(store: Store) -> None:
    for key in ("packs/p/1", "packs/p/deeper/2", "packs/q/3"):
        store.write(key, [b"12345"])
    found = {one.key: one for one in store.find("packs/p")}
    assert set(found) == {"packs/p/1", "packs/p/deeper/2"}
    assert found["packs/p/1"].size_bytes == 5
    assert found["packs/p/1"].modified_at > 1_700_000_000
    store.delete("packs/p/1")
    assert [one.key for one in store.find("packs/p")] == ["packs/p/deeper/2"]


def test_folders_are_those_right_below_a_prefix(store: Store) -> None:
    for key in ("packs/p/1", "packs/p/deeper/2", "packs/q/3", "packs/plain"):
        store.write(key, [b"12345"])
    assert sorted(store.folders("packs")) == ["packs/p", "packs/q"]
    assert list(store.folders("nothing")) == []


@pytest.mark.parametrize("key", ["", "/", "a//b", "../a", "a/..", "a/../b", ".hidden", "a/.b", "a\0", "ä", "a" * 129])
def test_a_key_that_is_not_safe_is_refused_by_every_verb(store: Store, key: str) -> None:
    for act in (
        store.head,
        store.delete,
        store.locate,
        lambda k: list(store.read(k)),
        lambda k: list(store.find(k)),
        lambda k: list(store.folders(k)),
    ):
        with pytest.raises(ValueError, match="safe key"):
            act(key)
    with pytest.raises(ValueError, match="safe key"):
        store.write(key, [b"x"])


@pytest.mark.parametrize("call", ["head", "write", "read", "read_range", "find", "folders", "delete"])
def test_a_store_of_objects_that_can_not_be_reached_says_so_as_any_other(call: str) -> None:
    once = {"retries": {"total_max_attempts": 1}}
    away = {"key": "a", "secret": "b", "endpoint_url": "http://127.0.0.1:1", "config_kwargs": once}
    store = open_store("s3://bucket/prefix", **away)
    more: dict[str, tuple[object, ...]] = {"write": ([b"x"],), "read_range": (0, 1)}
    with pytest.raises(OSError, match=r"127\.0\.0\.1:1"):
        list(getattr(store, call)("key", *more.get(call, ())) or ())
