"""Files that outlive the job."""

import os
import re
import shutil
from pathlib import Path

from trellis.runtime.context import context

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def save_artifact(path: str | os.PathLike[str], name: str | None = None) -> Path:
    """Keep a copy of the file at `path` under `name` (its own by default); it is stored when the job has ended.

    Saving under a name again replaces what was there: readers see the old file or the new, never half. Returns
    where the copy lies for now.

    Raises:
        ValueError: the name is not 1 to 128 letters, digits, dots, dashes and underscores, not beginning with a
            dot or dash.
        NotInAJob: there is nowhere to keep it.
        OSError: the file can't be read, or the disk is full.
    """
    kept_as = Path(path).name if name is None else name
    if not _NAME.fullmatch(kept_as):
        raise ValueError(f"{kept_as!r} can't be an artifact's name: letters, digits, '.', '-' and '_' only")
    folder = context().artifacts_dir
    half = folder / f".{kept_as}.{os.getpid()}"
    try:
        shutil.copyfile(path, half)
        half.rename(folder / kept_as)
    finally:
        half.unlink(missing_ok=True)
    return folder / kept_as
