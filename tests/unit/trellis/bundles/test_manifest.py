"""What a bundle may hold."""

import pytest

from tests.support.code import a_manifest, an_entry
from trellis.bundles.manifest import DEEPEST, MOST_BYTES, MOST_FILES, BadManifest, Entry, Manifest, largest_of

DIGEST = "0" * 64


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        (an_entry("/etc/passwd"), "below the folder"),
        (an_entry("../up"), "below the folder"),
        (an_entry("a/../../up"), "below the folder"),
        (an_entry("a//b"), "below the folder"),
        (an_entry("./a"), "below the folder"),
        (an_entry("a/"), "below the folder"),
        (an_entry(""), "bytes long"),
        (an_entry("x" * 1025), "bytes long"),
        (an_entry("x" * 256), "longer than 255"),
        (an_entry("a\0b"), "control character"),
        (an_entry("a\nb"), "control character"),
        (an_entry("a\x1b[2J"), "control character"),
        (an_entry("a\ud800"), "UTF-8"),
        (an_entry("/".join("d" * (DEEPEST + 1))), "deeper than"),
        (an_entry(mode=0o4755), "mode 4755"),
        (an_entry(mode=0o2755), "mode 2755"),
        (an_entry(mode=0o777), "mode 777"),
        (an_entry(mode=0o020644), "mode 20644"),
        (an_entry(mode=0o010644), "mode 10644"),
        (an_entry(size_bytes=-1), "size"),
        (an_entry(size_bytes=MOST_BYTES + 1), "size"),
        (an_entry(digest="../../x"), "64 digits"),
        (an_entry(digest="A" * 64), "64 digits"),
        (an_entry(digest="0" * 64 + "\n"), "64 digits"),
        (Entry("l", link="/etc/passwd"), "no plain path"),
        (Entry("l", link="../x"), "out of the folder"),
        (Entry("d/l", link="../../x"), "out of the folder"),
        (Entry("d/l", link="x/../../../y"), "no plain path"),
        (Entry("l", link="x/./y"), "no plain path"),
        (Entry("l", link="a\nb"), "no plain path"),
        (Entry("l", link="x", mode=0o755), "no mode"),
        (Entry("l", link="x", digest=DIGEST), "no mode"),
    ],
    ids=repr,
)
def test_an_entry_that_is_more_than_a_file_of_the_folder_is_refused_by_name(entry: Entry, why: str) -> None:
    with pytest.raises(BadManifest, match=why) as caught:
        Manifest((entry,)).check()
    assert caught.value.number == 0
    assert str(caught.value).startswith(repr(entry.path[:200]))


@pytest.mark.parametrize(
    ("paths", "why"),
    [
        (["a", "a"], "twice"),
        (["b", "a"], "out of order"),
        (["A", "a"], "case"),
        (["A/x", "a/y"], "case"),
        (["caf\u00e9", "cafe\u0301"], "Unicode form"),
        (["a", "a/b"], "a file or link, and a folder"),
    ],
)
def test_two_entries_that_could_be_taken_for_one_are_refused(paths: list[str], why: str) -> None:
    entries = [an_entry(path) for path in paths]
    if why not in ("out of order", "twice"):
        entries.sort(key=lambda entry: entry.path)
    with pytest.raises(BadManifest, match=why):
        Manifest(tuple(entries)).check()


def test_nothing_lies_below_a_link() -> None:
    with pytest.raises(BadManifest, match="a file or link, and a folder"):
        Manifest.of([Entry("d", link="e"), an_entry("d/x")]).check()


def test_one_digest_has_one_size() -> None:
    with pytest.raises(BadManifest, match="another size"):
        Manifest.of([an_entry("a"), an_entry("b", size_bytes=1)]).check()


def test_too_many_files_are_refused_at_once() -> None:
    with pytest.raises(BadManifest, match=f"more than the {MOST_FILES}"):
        Manifest(tuple(an_entry("x") for _ in range(MOST_FILES + 1))).check()


def test_links_within_the_folder_are_fine() -> None:
    Manifest.of([an_entry("d/x"), Entry("a", link="d/x"), Entry("d/l", link="../a"), Entry("d/m", link="x")]).check()


def test_equal_directories_are_one_bundle_and_any_difference_makes_another() -> None:
    one = a_manifest({"a": b"1", "b": b"2"})
    assert one.digest == a_manifest({"b": b"2", "a": b"1"}).digest
    others = [
        a_manifest({"a": b"1", "b": b"3"}), a_manifest({"a": b"1", "c": b"2"}), a_manifest({"a": b"1"}),
        Manifest.of([an_entry("a", b"1", mode=0o755), an_entry("b", b"2")]),
    ]  # fmt: skip
    assert len({one.digest, *(other.digest for other in others)}) == 1 + len(others)


def test_the_largest_files_are_named_largest_first() -> None:
    files = [an_entry(f"f{size}", size_bytes=size << 20) for size in range(1, 8)]
    assert largest_of(files).startswith("f7 (7.0 MiB), f6 (6.0 MiB)")
    assert "f2" not in largest_of(files)
