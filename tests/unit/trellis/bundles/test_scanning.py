"""A directory as a bundle, and back."""

import os
import socket
from pathlib import Path

import pytest

from tests.support.code import write
from trellis.bundles import scanning
from trellis.bundles.manifest import Entry
from trellis.bundles.scanning import scan
from trellis.bundles.unfolding import WrongContent, unfold
from trellis.errors import Invalid


def paths(folder: Path) -> list[str]:
    return [entry.path for entry in scan(folder).manifest.files]


def test_the_ignore_file_says_what_stays_behind_as_git_would_have_it(tmp_path: Path) -> None:
    write(tmp_path, {
        ".trellisignore": b"*.bin\n/data/\n!keep.bin\n# a remark\nsub/**/tmp\n",
        "a.bin": b"", "keep.bin": b"", "data/x": b"", "sub/data/x": b"", "sub/deep/tmp/y": b"", "sub/deep/z": b"",
    })  # fmt: skip
    assert paths(tmp_path) == [".trellisignore", "keep.bin", "sub/data/x", "sub/deep/z"]


def test_what_no_job_wants_and_what_may_hold_secrets_stays_behind_unless_asked_for(tmp_path: Path) -> None:
    usual = [".git/config", "pkg/__pycache__/a.pyc", "b.pyc", ".venv/x", "node_modules/y", ".env", "sub/.env"]
    write(tmp_path, dict.fromkeys([*usual, "a.py"], b""))
    assert paths(tmp_path) == ["a.py"]
    write(tmp_path, {".trellisignore": b"!.env\n"})
    assert paths(tmp_path) == [".env", ".trellisignore", "a.py", "sub/.env"]


def test_programs_stay_programs_and_links_stay_links(tmp_path: Path) -> None:
    write(tmp_path, {"run.sh": b"#!/bin/sh\n", "d/a": b""})
    (tmp_path / "run.sh").chmod(0o4711)
    (tmp_path / "l").symlink_to("d/a")
    (tmp_path / "m").symlink_to("d")
    found = {entry.path: entry for entry in scan(tmp_path).manifest.files}
    assert (found["run.sh"].mode, found["d/a"].mode) == (0o755, 0o644)
    assert (found["l"], found["m"]) == (Entry("l", link="d/a"), Entry("m", link="d"))
    assert "m/a" not in found


def test_equal_contents_are_read_once_and_sent_once(tmp_path: Path) -> None:
    tree = scan(write(tmp_path, {"a": b"same", "b": b"same", "c": b"other"}))
    assert len(tree.manifest.blobs) == 2
    assert {b"".join(tree.read(digest)) for digest in tree.manifest.blobs} == {b"same", b"other"}


def test_a_link_that_leads_out_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to("/etc/passwd")
    with pytest.raises(Invalid, match="'out' points to '/etc/passwd'"):
        scan(tmp_path)


def test_what_is_no_file_is_refused_by_name(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Invalid, match=r"pipe is neither a file.*\.trellisignore"):
        scan(tmp_path)
    (tmp_path / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as opened:
        opened.bind(str(tmp_path / "s"))
        with pytest.raises(Invalid, match="s is neither a file"):
            scan(tmp_path)


def test_a_name_that_is_no_text_is_refused_readably(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")).touch()
    with pytest.raises(Invalid, match="UTF-8") as caught:
        scan(tmp_path)
    str(caught.value).encode()


def test_what_is_far_too_much_is_refused_before_a_byte_is_read(tmp_path: Path) -> None:
    for number in (1, 2):
        with (tmp_path / f"huge{number}").open("wb") as file:
            file.truncate(10 << 30)
    with pytest.raises(Invalid, match=r"20\.0 GiB, more than.*huge1 \(10\.0 GiB\), huge2"):
        scan(tmp_path)


def test_too_many_files_are_refused_with_an_example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning, "MOST_FILES", 3)
    with pytest.raises(Invalid, match="more than 3 files, such as"):
        scan(write(tmp_path, {f"f{i}": b"" for i in range(4)}))


@pytest.mark.parametrize("lines", [b"\xff", b"!"])
def test_an_ignore_file_that_makes_no_sense_is_named(tmp_path: Path, lines: bytes) -> None:
    with pytest.raises(Invalid, match="trellisignore can't be"):
        scan(write(tmp_path, {".trellisignore": lines}))


def test_no_directory_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="is no directory"):
        scan(tmp_path / "nowhere")


def test_a_file_that_changes_while_it_is_sent_is_noticed(tmp_path: Path) -> None:
    tree = scan(write(tmp_path, {"a": b"before"}))
    write(tmp_path, {"a": b"after!"})
    with pytest.raises(Invalid, match="a changed while it was sent"):
        list(tree.read(next(iter(tree.manifest.blobs))))


def test_progress_ends_at_all_there_is(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    scan(write(tmp_path, {"a": b"12", "b": b"3456"}), lambda done, total: told.append((done, total)))
    assert told == [(2, 6), (6, 6)]


def test_a_directory_comes_out_as_it_went_in(tmp_path: Path) -> None:
    source = write(tmp_path / "source", {"run.sh": b"#!/bin/sh\n", "d/e/a": b"1", "empty": b""})
    (source / "run.sh").chmod(0o755)
    (source / "d/l").symlink_to("../run.sh")
    tree = scan(source)
    unfold(tree.manifest, tmp_path / "target", tree.read)
    assert scan(tmp_path / "target").manifest == tree.manifest
    assert (tmp_path / "target/d/l").read_bytes() == b"#!/bin/sh\n"


def test_a_directory_is_not_unfolded_over_another(tmp_path: Path) -> None:
    tree = scan(write(tmp_path / "source", {"a": b""}))
    with pytest.raises(FileExistsError):
        unfold(tree.manifest, tmp_path, tree.read)


def test_a_content_that_is_not_what_it_should_be_is_not_taken(tmp_path: Path) -> None:
    tree = scan(write(tmp_path / "source", {"a": b"good"}))
    with pytest.raises(WrongContent):
        unfold(tree.manifest, tmp_path / "target", lambda _: [b"evil"])
