"""Directories that a job filled: gone through by descriptors, so that no link leads out and no depth is too deep."""

import errno
import heapq
import itertools
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

DEEPEST = 32
ENTRIES_AT_MOST = 100_000
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def open_files(folder: Path, at_most: int) -> Iterator[tuple[str, int]]:
    """Regular files below `folder`: their names from there and an open descriptor, closed when the next is taken.

    Not what is hidden, linked, deeper than DEEPEST or can't be opened; of each directory the `at_most` first by name.
    Raises OSError if `folder` itself is none, or a link; once there were more than ENTRIES_AT_MOST files and folders.
    """
    top = os.open(folder, _FOLDER)
    try:
        yield from _open_below(top, "", DEEPEST, (at_most, itertools.count()))
    finally:
        os.close(top)


def _open_below(folder: int, prefix: str, depth: int, limits: tuple[int, Iterator[int]]) -> Iterator[tuple[str, int]]:
    at_most, opened = limits
    with os.scandir(folder) as entries:
        shown = (entry for entry in entries if not entry.name.startswith("."))
        first = heapq.nsmallest(at_most, shown, key=lambda entry: (entry.is_dir(follow_symlinks=False), entry.name))
    for entry in first:
        is_folder = entry.is_dir(follow_symlinks=False)
        if next(opened) >= ENTRIES_AT_MOST:
            raise OSError(errno.E2BIG, f"there are more than {ENTRIES_AT_MOST} files and folders")
        try:
            fd = os.open(entry.name, _FOLDER if is_folder else _FILE, dir_fd=folder)
        except OSError:  # a link, a socket, or its owner shut it
            continue
        try:
            if is_folder and depth:
                yield from _open_below(fd, f"{prefix}{entry.name}/", depth - 1, limits)
            elif stat.S_ISREG(os.fstat(fd).st_mode):
                yield f"{prefix}{entry.name}", fd
        finally:
            os.close(fd)


def read_beside(folder: Path, name: str, at_most: int) -> bytes:
    """What a regular file right in `folder` holds; empty where there is none, it is a link, or has more bytes."""
    with suppress(OSError):
        top = os.open(folder, _FOLDER)
        try:
            fd = os.open(name, _FILE, dir_fd=top)
        finally:
            os.close(top)
        with os.fdopen(fd, "rb") as file:
            block = file.read(at_most + 1) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
        return block if len(block) <= at_most else b""
    return b""


def remove(path: Path) -> None:
    """Delete `path` and all below it. Raises OSError for what can't be; nothing there is fine.

    A directory in a directory is moved to the top before it is emptied: however deep they lie in one another, it
    takes neither stack nor descriptors nor long names.
    """
    try:
        top = os.open(path, _FOLDER)
    except FileNotFoundError:
        return
    try:
        folders = _empty(top, top)
        while folders:
            name = folders.pop()
            folder = os.open(name, _FOLDER, dir_fd=top)
            try:
                folders += _empty(folder, top)
            finally:
                os.close(folder)
            os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    os.rmdir(path)


def _empty(folder: int, top: int) -> list[str]:
    """Delete the files in `folder` and move its directories to `top`; what they are called there."""
    with os.scandir(folder) as found:
        entries = list(found)
    moved = []
    for entry in entries:
        if not entry.is_dir(follow_symlinks=False):
            os.unlink(entry.name, dir_fd=folder)
            continue
        with suppress(OSError):  # most are empty
            os.rmdir(entry.name, dir_fd=folder)
            continue
        if os.geteuid() != 0:  # its owner may have taken his own rights away; root is not kept out
            os.chmod(entry.name, 0o700, dir_fd=folder)
        if folder == top:
            name = entry.name
        else:
            name = f".{entry.inode()}"
            os.rename(entry.name, name, src_dir_fd=folder, dst_dir_fd=top)
        moved.append(name)
    return moved
