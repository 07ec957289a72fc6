"""What the node keeps of code."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.code_cache import CodeCache
from tests.support.code import a_manifest, digest_of

PROJECT = "01990000-0000-7000-8000-000000000000"


def opened(folder: Path, limit_bytes: int = 1 << 20) -> CodeCache:
    cache = CodeCache(folder / "code", limit_bytes)
    cache.open()
    return cache


def keep(cache: CodeCache, *contents: bytes) -> list[str]:
    for content in contents:
        cache.keep(PROJECT, digest_of(content), [content])
    return [digest_of(content) for content in contents]


def test_what_was_kept_is_there_also_for_the_next_daemon(tmp_path: Path) -> None:
    digests = keep(opened(tmp_path), b"one", b"two")
    again = opened(tmp_path)
    assert again.lacks(PROJECT, [*digests, "0" * 64]) == ["0" * 64]
    assert b"".join(again.read(PROJECT, digests[1])) == b"two"
    assert again.held_bytes == 6


def test_what_was_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = opened(tmp_path, 100)
    first, second, third = keep(cache, b"1" * 40, b"2" * 40, b"3" * 40)
    list(cache.read(PROJECT, first))
    cache.trim()
    assert cache.lacks(PROJECT, [first, second, third]) == [second]
    assert cache.held_bytes == 80


def test_the_order_of_use_outlives_the_daemon(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    first, second = keep(cache, b"1" * 40, b"2" * 40)
    for age, digest in ((100, first), (200, second)):
        (place,) = (tmp_path / "code").rglob(digest)
        os.utime(place, (1e9 - age, 1e9 - age))
    again = opened(tmp_path, 50)
    again.trim()
    assert again.lacks(PROJECT, [first, second]) == [second]


def test_what_breaks_off_is_not_kept(tmp_path: Path) -> None:
    def breaks() -> Iterator[bytes]:
        yield b"half"
        raise OSError("the disk is full")

    cache = opened(tmp_path)
    with pytest.raises(OSError, match="full"):
        cache.keep(PROJECT, "0" * 64, breaks())
    assert cache.lacks(PROJECT, ["0" * 64])
    assert [path for path in (tmp_path / "code").rglob("*") if path.is_file()] == []


def test_what_was_being_written_when_the_power_failed_is_forgotten(tmp_path: Path) -> None:
    keep(opened(tmp_path), b"one")
    (place,) = (tmp_path / "code").rglob(digest_of(b"one"))
    (place.parent / ".new-1").write_bytes(b"half")
    assert opened(tmp_path).held_bytes == 3
    assert not (place.parent / ".new-1").exists()


def test_the_same_content_counts_once(tmp_path: Path) -> None:
    cache = opened(tmp_path)
    keep(cache, b"one", b"one")
    assert cache.held_bytes == 3


def test_a_manifest_that_rotted_is_no_manifest(tmp_path: Path) -> None:
    cache, manifest = opened(tmp_path), a_manifest()
    cache.keep_manifest(PROJECT, manifest)
    assert cache.find_manifest(PROJECT, manifest.digest) == manifest
    (place,) = (tmp_path / "code").rglob(manifest.digest)
    for rot in (b"not json", b'{"files": [{"path": "/etc/passwd"}]}', b'{"files": []}'):
        cache.keep_manifest(PROJECT, manifest)
        place.write_bytes(rot)
        assert cache.find_manifest(PROJECT, manifest.digest) is None


@pytest.mark.parametrize("word", ["..", "a/b", "", "x" * 65, "a\n"])
def test_only_ids_and_digests_are_names(tmp_path: Path, word: str) -> None:
    cache = opened(tmp_path)
    with pytest.raises(ValueError, match="no id and no digest"):
        cache.keep(word, "0" * 64, [b""])
    with pytest.raises(ValueError, match="no id and no digest"):
        cache.keep(PROJECT, word, [b""])


def test_nobody_else_may_look(tmp_path: Path) -> None:
    keep(opened(tmp_path), b"one")
    assert (tmp_path / "code").stat().st_mode & 0o077 == 0
