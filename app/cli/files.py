"""Files that must be whole or absent, and private from their first byte."""

import os
from pathlib import Path

from app.cli.accounts import Account, give


def write_private(path: Path, text: str, owner: Account | None = None) -> Path:
    """Replace `path` by `text` at once, readable by its owner alone."""
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    if owner:
        give(new, owner)
    return new.rename(path)


def make_folder(path: Path, owner: Account | None = None, mode: int = 0o700) -> Path:
    """Make `path` with `mode`, whatever the caller's umask; what was there keeps its owner and mode."""
    if not path.is_dir():
        path.mkdir(parents=True)
        path.chmod(mode)
        if owner:
            give(path, owner)
    return path
