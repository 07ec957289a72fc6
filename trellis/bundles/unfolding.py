"""A bundle as a directory again."""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from trellis.bundles.manifest import Manifest

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER_MODE = 0o755


class WrongContent(ValueError):
    """What was to be written under `digest` is something else."""

    def __init__(self, digest: str) -> None:
        super().__init__(f"the content kept under {digest} is not that")
        self.digest = digest


def unfold(
    manifest: Manifest, target: Path, content: Callable[[str], Iterable[bytes]], owner: int | None = None
) -> None:
    """Write the files of `manifest` below `target`, a new directory; what is written is theirs, byte by byte.

    `content` gives the bytes of a digest; `owner` is the user and group that it shall all belong to, where that is
    not whoever calls. Links come last, so that nothing is ever written through one.

    Raises: BadManifest; WrongContent; OSError, also where `target` is there already.
    """
    manifest.check()
    target.mkdir(mode=_FOLDER_MODE)
    folders = [str(target)]
    for name in sorted({parent for entry in manifest.files for parent in _parents(entry.path)}):
        folders.append(os.path.join(target, name))  # noqa: PTH118  # thousands of them: Path costs as much as mkdir
        os.mkdir(folders[-1], _FOLDER_MODE)  # noqa: PTH102  # likewise
    for entry in manifest.files:
        if not entry.link:
            _write(os.path.join(target, entry.path), entry.mode, entry.digest, content(entry.digest), owner)  # noqa: PTH118
    for entry in manifest.files:
        if entry.link:
            place = os.path.join(target, entry.path)  # noqa: PTH118
            os.symlink(entry.link, place)  # noqa: PTH211
            if owner is not None:
                os.chown(place, owner, owner, follow_symlinks=False)
    for folder in folders if owner is not None else ():
        os.chown(folder, owner, owner, follow_symlinks=False)  # type: ignore[arg-type]  # the line above says which


def _parents(path: str) -> Iterable[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _write(place: str, mode: int, digest: str, pieces: Iterable[bytes], owner: int | None) -> None:
    found = hashlib.sha256()
    fd = os.open(place, _NEW_FILE, mode)
    try:
        for piece in pieces:
            found.update(piece)
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
        if found.hexdigest() != digest:
            raise WrongContent(digest)
        os.fchmod(fd, mode)
        if owner is not None:
            os.fchown(fd, owner, owner)
    finally:
        os.close(fd)
