"""Going through what a job left behind."""

import os
from pathlib import Path

from agent import trees


def _names(folder: Path, at_most: int = 1000) -> list[str]:
    return sorted(name for name, _ in trees.open_files(folder, at_most))


def _dig(folder: Path, depth: int) -> None:
    fd = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=fd)
        deeper = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(os.open("bottom", os.O_CREAT, dir_fd=fd))
    os.close(fd)


def test_links_and_what_is_no_file_are_passed_over(tmp_path: Path) -> None:
    kept = tmp_path / "artifacts"
    (kept / "deep").mkdir(parents=True)
    (kept / "deep/a").write_text("x")
    (kept / ".hidden").touch()
    (tmp_path / "secret").write_text("hush")
    (kept / "link").symlink_to(tmp_path / "secret")
    (kept / "folder").symlink_to(tmp_path)
    os.mkfifo(kept / "pipe")
    assert _names(kept) == ["deep/a"]


def test_a_folder_that_a_job_replaced_by_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "node.json").write_text("token")
    (tmp_path / "artifacts").symlink_to(tmp_path)
    try:
        found = _names(tmp_path / "artifacts")
    except OSError:
        found = []
    assert found == []


def test_of_a_huge_folder_only_the_first_are_taken(tmp_path: Path) -> None:
    for number in range(20):
        (tmp_path / f"{number:02}").touch()
    assert _names(tmp_path, 3) == ["00", "01", "02"]


def test_a_tree_of_any_depth_is_removed_and_none_too_deep_is_read(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    _dig(tmp_path / "tree", 3000)
    assert _names(tmp_path / "tree") == []
    trees.remove(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()


def test_removing_follows_no_link(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "tree/below").mkdir(parents=True)
    (tmp_path / "tree/link").symlink_to(tmp_path / "kept")
    (tmp_path / "tree/below/link").symlink_to(tmp_path / "kept/file")
    trees.remove(tmp_path / "tree")
    trees.remove(tmp_path / "tree")
    assert (tmp_path / "kept/file").exists()
    assert not (tmp_path / "tree").exists()
