"""What a bundle of code holds, and what it may never hold: checked by whoever sends, keeps or unfolds one.

A bundle is named by the SHA-256 of its manifest, so equal directories are one bundle, whoever sends them and when.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from trellis.units import format_bytes

# How many files and links, how deep, and how long a name; how many bytes no bundle holds, whatever a server allows.
MOST_FILES = 20_000
DEEPEST = 32
LONGEST_PATH, LONGEST_NAME = 1024, 255
MOST_BYTES = 16 << 30
FILE_MODE, PROGRAM_MODE = 0o644, 0o755
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SHOWN = 5
_MODES = (FILE_MODE, PROGRAM_MODE)


class BadManifest(ValueError):
    """The entry `number` of a manifest may not be; the message begins with its path. None: the whole is at fault."""

    def __init__(self, number: int | None, message: str) -> None:
        super().__init__(message)
        self.number = number


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, or a symbolic link where `link` says what it points to, from the folder it lies in.

    `mode` is 0o644 or 0o755: nobody's umask is part of a bundle. `digest` is the SHA-256 of the file's bytes, in hex.
    """

    path: str
    mode: int = FILE_MODE
    size_bytes: int = 0
    digest: str = ""
    link: str = ""


@dataclass(frozen=True)
class Manifest:
    """What a bundle holds, sorted by path. `check` comes before anything is done by it."""

    files: tuple[Entry, ...]

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> "Manifest":
        """The entries in their order."""
        return cls(tuple(sorted(entries, key=lambda entry: entry.path)))

    @cached_property
    def digest(self) -> str:
        """The bundle's name: the SHA-256 of its entries, one JSON array a line, in hex."""
        digest = hashlib.sha256()
        for one in self.files:
            digest.update(json.dumps([one.path, one.mode, one.size_bytes, one.digest, one.link]).encode() + b"\n")
        return digest.hexdigest()

    @cached_property
    def size_bytes(self) -> int:
        """Of all its files together, equal ones counted each time."""
        return sum(entry.size_bytes for entry in self.files)

    @cached_property
    def blobs(self) -> dict[str, int]:
        """The different contents: digest to size in bytes."""
        return {entry.digest: entry.size_bytes for entry in self.files if not entry.link}

    def check(self) -> None:
        """Raises BadManifest for the first entry that leads out of its folder, hides another, or is more than a file."""
        if len(self.files) > MOST_FILES:
            raise BadManifest(None, f"holds {len(self.files)} files, more than the {MOST_FILES} that a bundle may")
        spelled: dict[str, str] = {}
        taken: dict[str, bool] = {}
        sizes: dict[str, int] = {}
        before = ""
        for number, entry in enumerate(self.files):
            fault = _path_fault(entry.path) or _content_fault(entry) or _order_fault(before, entry.path)
            fault = fault or _clash(entry.path, spelled, taken)
            if not fault and not entry.link and sizes.setdefault(entry.digest, entry.size_bytes) != entry.size_bytes:
                fault = "has the digest of another file, and another size"
            if fault:
                raise BadManifest(number, f"{entry.path[:200]!r} {fault}")
            before = entry.path
        if self.size_bytes > MOST_BYTES:
            raise BadManifest(None, f"holds {self.size_bytes} bytes, more than any bundle may ({MOST_BYTES})")


def largest_of(entries: Iterable[Entry]) -> str:
    """The largest files in words, for who has to leave some of them out."""
    largest = sorted(entries, key=lambda entry: -entry.size_bytes)[:_SHOWN]
    return ", ".join(f"{entry.path} ({format_bytes(entry.size_bytes)})" for entry in largest)


def _path_fault(path: str) -> str:
    try:
        length = len(path.encode())
    except UnicodeEncodeError:
        return "is no text in UTF-8: rename it"
    names = path.split("/")
    if not path or length > LONGEST_PATH:
        return f"is not 1 to {LONGEST_PATH} bytes long"
    if any(name in ("", ".", "..") for name in names):
        return "is no path below the folder: it is absolute, or has an empty part, `.` or `..`"
    if any(character < " " or character == "\x7f" for character in path):
        return "has a control character in its name: rename it"
    if len(names) > DEEPEST:
        return f"lies deeper than {DEEPEST} folders"
    if any(len(name.encode()) > LONGEST_NAME for name in names):
        return f"has a part that is longer than {LONGEST_NAME} bytes"
    return ""


def _content_fault(entry: Entry) -> str:
    if entry.link:
        if entry.mode != FILE_MODE or entry.size_bytes or entry.digest:
            return "is a link, and so has no mode, size or digest of its own"
        return _link_fault(entry)
    if entry.mode not in _MODES:
        return f"has the mode {entry.mode:o}: a file of a bundle has 644 or 755, and nothing else is one"
    if not 0 <= entry.size_bytes <= MOST_BYTES:
        return "has a size that no file of a bundle has"
    if not _DIGEST.fullmatch(entry.digest):
        return "has a digest that is not 64 digits of hex"
    return ""


def _link_fault(entry: Entry) -> str:
    target = entry.link
    parts = target.split("/")
    climbs = next((number for number, part in enumerate(parts) if part != ".."), len(parts))
    if _path_fault("/".join(parts[climbs:]) or "x"):
        return f"points to {target[:200]!r}, which is no plain path within the folder"
    # Only at its beginning may it climb: after a name `..` would be that of wherever another link leads.
    if climbs > entry.path.count("/"):
        return f"points to {target[:200]!r}, out of the folder"
    return ""


def _order_fault(before: str, path: str) -> str:
    if path == before:
        return "stands twice in it"
    return "" if path > before else f"is out of order: it belongs before {before[:200]!r}"


def _clash(path: str, spelled: dict[str, str], taken: dict[str, bool]) -> str:
    """Two names that some file system takes for one; a file that is also a folder. `taken`: whether it is a folder."""
    end = len(path)
    is_folder = False
    while end > 0:
        part = path[:end]
        alike = unicodedata.normalize("NFC", part).casefold()
        if spelled.setdefault(alike, part) != part:
            return f"differs from {spelled[alike][:200]!r} in case or in Unicode form alone"
        if taken.setdefault(part, is_folder) != is_folder:
            return f"makes {part[:200]!r} a file or link, and a folder"
        is_folder = True
        end = path.rfind("/", 0, end)
    return ""
