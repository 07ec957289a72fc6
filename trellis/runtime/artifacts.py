"""Files that outlive the job."""

import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trellis.runtime.context import context

_TYPE = re.compile(r"[a-z][a-z0-9_-]{0,39}")
_ABOUT_BYTES = 4 * 1024
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


def save_artifact(
    path: str | os.PathLike[str], name: str | None = None, *, type: str = "", metadata: Mapping[str, Any] | None = None,  # noqa: A002  # the word that users know
) -> Path:  # fmt: skip
    """Keep a copy of the file at `path` under `name` (its own by default); it is stored when the job has ended.

    `type` is a word such as model, dataset, plot or report (guessed by the name if not said), `metadata` a JSON object.
    Saving under a name again replaces what was there: readers see the old file or the new, never half. Returns
    where the copy lies for now.

    Raises:
        ValueError: the name is not 1 to 128 letters, digits, dots, dashes and underscores, not beginning with a
            dot or dash; or `type` is no such word, or `metadata` no JSON or too large.
        NotInAJob: there is nowhere to keep it.
        OSError: the file can't be read, or the disk is full.
    """
    kept_as = Path(path).name if name is None else name
    if not _NAME.fullmatch(kept_as):
        raise ValueError(f"{kept_as!r} can't be an artifact's name: letters, digits, '.', '-' and '_' only")
    if type and not _TYPE.fullmatch(type):
        raise ValueError(f"{type!r} can't be an artifact's type: up to 40 of a-z, 0-9, '_' and '-'")
    about = json.dumps({"type": type, "metadata": dict(metadata or {})}, allow_nan=False)
    if len(about) > _ABOUT_BYTES:
        raise ValueError(f"the metadata is larger than {_ABOUT_BYTES // 1024} KiB: save it as a file")
    folder = context().artifacts_dir
    half, described = (folder / f".{kept_as}.{os.getpid()}{end}" for end in ("", ".about"))
    try:
        shutil.copyfile(path, half)
        if type or metadata:
            described.write_text(about)
            described.rename(folder / f".{kept_as}.about")
        else:  # of what was saved under this name before
            (folder / f".{kept_as}.about").unlink(missing_ok=True)
        half.rename(folder / kept_as)
    finally:
        half.unlink(missing_ok=True)
        described.unlink(missing_ok=True)
    return folder / kept_as
