"""The folder that a job saves into, as seen from outside: read by descriptors, trusted in nothing.

A program says that what lies there is complete by renaming a file to `.complete`: JSON with `step` and `metrics`, both
optional. Where there never was one, the folder counts as complete when nothing in it has changed for a while. A file
`.listens` says that the program looks for wishes to save; the wish is a file beside the folder.
"""

import hashlib
import json
import math
import os
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from agent import trees
from agent.layout import ReplicaDir
from trellis.units import LARGEST

FILES_AT_MOST = 10_000
MARKER, LISTENS = ".complete", ".listens"
_MARKER_BYTES = 64 * 1024
_METRICS_AT_MOST = 100
_NAME_LENGTH = 128
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class Marker:
    """What the program says of what it saved. Another `identity` is another save, whatever it says.

    `marked_ns` is when the kernel saw it put in its place (nanoseconds since the epoch).
    """

    identity: str
    marked_ns: int = 0
    step: int | None = None
    metrics: dict[str, float] = field(default_factory=dict)


class CheckpointFolder:
    """One replica's."""

    def __init__(self, replica: ReplicaDir) -> None:
        self._replica = replica
        self.path: Path = replica.checkpoints

    def marker(self) -> Marker | None:
        """The marker that is there; None where there is none. One that makes no sense marks all the same."""
        try:
            folder = os.open(self.path, _FOLDER)
        except OSError:
            return None
        try:
            file = os.open(MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError:
            return None
        finally:
            os.close(folder)
        try:
            seen = os.fstat(file)
            bare = Marker(f"{seen.st_ino}-{seen.st_mtime_ns}", seen.st_ctime_ns)
            return _read_marker(bare, os.read(file, _MARKER_BYTES))
        except OSError:  # a folder of that name
            return None
        finally:
            os.close(file)

    def listens(self) -> bool:
        """Whether the program looks for wishes."""
        return os.path.lexists(self.path / LISTENS)

    def ask(self) -> None:
        """Wish for a checkpoint. Whatever the job put in the wish's place is taken away, not followed."""
        with suppress(FileNotFoundError):
            self._replica.asked.unlink()
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        os.close(os.open(self._replica.asked, flags, 0o644))

    def is_asked(self) -> bool:
        """Whether it is wished that it saves, and it has not yet."""
        return self._replica.asked.exists()

    def answered(self) -> None:
        """The wish is fulfilled."""
        with suppress(OSError):
            self._replica.asked.unlink()

    def fingerprint(self) -> str:
        """Equal as long as no file's name, size, time or identity changed; "" where there is no file.

        Raises OSError where there are more than anybody can look at.
        """
        said = hashlib.sha256()
        empty = True
        try:
            for name, file in trees.open_files(self.path, FILES_AT_MOST):
                seen = os.fstat(file)
                said.update(f"{name}\0{seen.st_size} {seen.st_mtime_ns} {seen.st_ino}\n".encode("utf-8", "replace"))
                empty = False
        except (FileNotFoundError, NotADirectoryError):  # or a link, which is no folder either
            return ""
        return "" if empty else said.hexdigest()


def _read_marker(bare: Marker, block: bytes) -> Marker:
    try:
        said: Any = json.loads(block)
        step, metrics = said.get("step"), said.get("metrics") or {}
        if step is not None and (type(step) is not int or abs(step) > LARGEST):
            step = None
        good = {name: float(value) for name, value in metrics.items() if _is_metric(name, value)}
    except (ValueError, AttributeError, RecursionError):
        return bare
    return replace(bare, step=step, metrics=dict(list(good.items())[:_METRICS_AT_MOST]))


def _is_metric(name: str, value: object) -> bool:
    named = 0 < len(name) <= _NAME_LENGTH and name.isprintable()
    return named and isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
