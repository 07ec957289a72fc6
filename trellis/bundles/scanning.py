"""A directory as a bundle: what belongs to it, what is left out, and what can't be sent at all."""

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pathspec import GitIgnoreSpec

from trellis.bundles.manifest import (
    FILE_MODE,
    MOST_BYTES,
    MOST_FILES,
    PROGRAM_MODE,
    BadManifest,
    Entry,
    Manifest,
    largest_of,
)
from trellis.errors import Field, Invalid
from trellis.units import format_bytes

IGNORE_FILE = ".trellisignore"
# What no job wants, and what may hold secrets; `!NAME` in the ignore file takes one in again.
USUAL = (
    ".git", ".hg", ".svn", "__pycache__", "*.py[cod]", ".venv", "venv", "node_modules", ".tox", ".nox", ".eggs",
    ".mypy_cache", ".pytest_cache", ".ruff_cache", ".ipynb_checkpoints", ".DS_Store", ".trellis", ".env", ".ssh",
)  # fmt: skip
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
_PIECE_BYTES = 1 << 20
Seen = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Tree:
    """A directory that was looked through: its manifest, and where the bytes of each digest are."""

    root: Path
    manifest: Manifest
    places: dict[str, Path] = field(default_factory=dict)

    def read(self, digest: str) -> Iterator[bytes]:
        """The bytes of a content. Raises Invalid where its file is not as it was."""
        place = self.places[digest]
        found = hashlib.sha256()
        for piece in _pieces(place):
            found.update(piece)
            yield piece
        if found.hexdigest() != digest:
            raise Invalid(Field("--dir", f"{_shown(self.root, place)} changed while it was sent: submit again"))


def scan(root: Path, seen: Seen | None = None) -> Tree:
    """Look through `root` as its `.trellisignore` says, which is written like `.gitignore`.

    `seen` is told how many bytes were read so far, and how many there are. Symbolic links stay links; those that lead
    out of the directory, devices, sockets and names that are no text can't be sent.

    Raises: Invalid that names what can't be sent, or the largest files where it is too much.
    """
    if not root.is_dir():
        raise Invalid(Field("--dir", f"{root} is no directory"))
    found = sorted(_walk(root, "", _ignored(root)), key=lambda item: item.path)
    _refuse_too_much(found)
    total, done = sum(item.size_bytes for item in found), 0
    entries, places = [], {}
    for item in found:
        if item.link:
            entries.append(Entry(item.path, link=item.link))
            continue
        place = root / item.path
        digest, size = _digest(root, place)
        entries.append(Entry(item.path, item.mode, size, digest))
        places[digest] = place
        done += size
        if seen:
            seen(done, max(total, done))
    manifest = Manifest.of(entries)
    try:
        manifest.check()
    except BadManifest as error:
        raise Invalid(Field("--dir", f"{error}; or name it in {IGNORE_FILE}")) from error
    return Tree(root, manifest, places)


def _refuse_too_much(found: list[Entry]) -> None:
    total = sum(entry.size_bytes for entry in found)
    if total > MOST_BYTES:
        what = f"{format_bytes(total)}, more than any bundle may ({format_bytes(MOST_BYTES)})"
        raise Invalid(Field("--dir", f"holds {what}; the largest: {largest_of(found)}; name some in {IGNORE_FILE}"))


def _ignored(root: Path) -> GitIgnoreSpec:
    lines: list[str] = []
    try:
        lines = (root / IGNORE_FILE).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        pass
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(Field("--dir", f"{root / IGNORE_FILE} can't be read: {error}")) from error
    try:
        # Not whatever engine happens to be installed: others fail for names that are no text.
        return GitIgnoreSpec.from_lines([*USUAL, *lines], backend="simple")
    except ValueError as error:
        raise Invalid(Field("--dir", f"{root / IGNORE_FILE} can't be understood: {error}")) from error


def _walk(root: Path, prefix: str, ignored: GitIgnoreSpec) -> Iterator[Entry]:
    """What is to be sent, without digests. A directory that is ignored is not looked into."""
    folders = [prefix]
    count = 0
    while folders:
        prefix = folders.pop()
        try:
            with os.scandir(root / prefix) as entries:
                here = list(entries)
        except OSError as error:
            raise _cannot(prefix or ".", f"can't be read: {error.strerror}") from error
        for entry in here:
            path = f"{prefix}{entry.name}"
            if ignored.match_file(f"{path}/" if entry.is_dir(follow_symlinks=False) else path):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(f"{path}/")
                continue
            count += 1
            if count > MOST_FILES:
                raise _cannot(".", f"holds more than {MOST_FILES} files, such as {path}")
            yield _entry(entry, path)


def _entry(entry: "os.DirEntry[str]", path: str) -> Entry:
    status = entry.stat(follow_symlinks=False)
    if stat.S_ISLNK(status.st_mode):
        return Entry(path, link=str(Path(entry.path).readlink()))
    if not stat.S_ISREG(status.st_mode):
        raise _cannot(path, "is neither a file, a folder nor a link")
    return Entry(path, PROGRAM_MODE if status.st_mode & stat.S_IXUSR else FILE_MODE, status.st_size)


def _digest(root: Path, place: Path) -> tuple[str, int]:
    found, size = hashlib.sha256(), 0
    try:
        for piece in _pieces(place):
            found.update(piece)
            size += len(piece)
    except OSError as error:
        raise _cannot(_shown(root, place), f"can't be read: {error.strerror}") from error
    return found.hexdigest(), size


def _pieces(place: Path) -> Iterator[bytes]:
    fd = os.open(place, _OPEN)
    try:
        while piece := os.read(fd, _PIECE_BYTES):
            yield piece
    finally:
        os.close(fd)


def _cannot(path: str, why: str) -> Invalid:
    shown = path.encode(errors="backslashreplace").decode()
    return Invalid(Field("--dir", f"{shown} {why}; name it in {IGNORE_FILE}"))


def _shown(root: Path, place: Path) -> str:
    return str(place.relative_to(root)).encode(errors="backslashreplace").decode()
