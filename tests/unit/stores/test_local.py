from pathlib import Path

import pytest

from trellis.stores.local import LocalStore
from trellis.stores.urls import open_store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "root")


def test_a_link_below_the_root_is_not_followed(store: LocalStore, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    store.write("a/b", [b"x"])
    (tmp_path / "root/a/link").symlink_to(tmp_path / "secret")
    (tmp_path / "root/out").symlink_to(tmp_path)
    assert store.head("a/link") is None
    with pytest.raises(FileNotFoundError):
        store.read_range("a/link", 0, 6)
    with pytest.raises(OSError, match="out"):
        store.write("out/planted", [b"x"])
    assert [one.key for one in store.find("a")] == ["a/b"]
    assert not (tmp_path / "planted").exists()


def test_what_is_deleted_during_a_walk_ends_it_for_nothing_else(store: LocalStore, tmp_path: Path) -> None:
    for number in range(4):
        store.write(f"p/{number}", [b"x"])
    first, second, *others = (f"p/{path.name}" for path in (tmp_path / "root/p").iterdir())
    walk = store.find("p")
    assert next(walk).key == first
    store.delete(second)
    assert [one.key for one in walk] == others


def test_what_a_killed_writer_left_is_swept_once_it_is_old(store: LocalStore, tmp_path: Path) -> None:
    store.write("a", [b"x"])
    left = tmp_path / "root/.parts/a.1234"
    left.write_bytes(b"half")
    born = left.stat().st_mtime
    assert store.sweep(60, born + 59) == 0
    assert store.sweep(60, born + 61) == 1
    assert not left.exists()
    assert store.head("a") == 1


@pytest.mark.parametrize(
    "url",
    [
        "file:///a/../b", "file://host/a", "file:relative", "s3://", "s3://key:secret@bucket", "s3://bucket?x=1",
        "s3://bucket/../other", "http://example.org/", "/plain", "",
    ],
)  # fmt: skip
def test_a_url_that_is_no_store_or_holds_credentials_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match=r"store|file|s3|credentials") as refusal:
        open_store(url)
    assert "secret" not in str(refusal.value)
