"""Environments of Python for jobs: built once for each content, kept on the node, and shared read-only.

<home>/environments/<project id>/<key>/         the environment
                                 <key>.lock      exclusively held by who builds it, shared by who uses it
                                 <key>.json      it is whole: its size; touched when it is used
                                 <key>.failed    why the last try to build it failed

The key stands for the text of the requirements, the Python they are for, and the path that jobs see it at.
"""

import fcntl
import hashlib
import json
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import uv

import trellis
from agent import trees
from agent.ground import Ground
from agent.layout import Home, read_json, safe_name, write_json
from agent.workspace import Mount, Places, Program
from trellis import requirements
from trellis.vocabulary import Isolation, NetworkPolicy
from trellis.wire import ReplicaSpec

WITHIN_S = 1800.0
WORDS_LAST = 5
_INSIDE, _PACKAGES_INSIDE = "/environment", "/packages"
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
# Two steps of one program. What it needs to know comes as arguments, never as text of the shell's.
_BUILD = """
uv=$1 python=$2 environment=$3 requirements=$4
shift 4
"$uv" venv --quiet --no-config --no-project --no-python-downloads --clear --python "$python" "$environment" &&
exec "$uv" pip install --no-config --no-progress --no-cache --no-build --link-mode copy --python "$environment/bin/python" \
  "$@" --requirements "$requirements"
"""


class Unbuildable(Exception):
    """There can be no such environment here; the message is for the job's owner."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where packages come from: an index, a folder or page of files, or both; neither: nowhere."""

    index: str = ""
    links: str = ""

    @property
    def folder(self) -> str:
        """The folder of files, where it is one of this machine's."""
        return self.links if self.links.startswith("/") else ""

    @property
    def far(self) -> bool:
        """Whether they are reached over a network."""
        return bool(self.index or (self.links and not self.folder))


def keep_sources(home: Home, sources: Sources) -> None:
    """Tell supervisors where packages come from: in a file of the agent's own, for an address may hold a password."""
    write_json(home.sources, {"index": sources.index, "links": sources.links})


@dataclass(frozen=True, slots=True)
class Environment:
    """One content on this node. `inside` is where jobs see it."""

    folder: Path
    inside: str
    text: str

    @property
    def marker(self) -> Path:
        """There once it is whole."""
        return self.folder.with_name(f"{self.folder.name}.json")

    @property
    def failure(self) -> Path:
        """There once building it failed."""
        return self.folder.with_name(f"{self.folder.name}.failed")

    def lock(self, how: int) -> int | None:
        """Take its lock (`fcntl.LOCK_SH` or `LOCK_EX`) for as long as the descriptor is open; None if that must wait."""
        self.folder.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
        fd = os.open(self.folder.with_name(f"{self.folder.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, how | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def use(self) -> bool:
        """Whether it is there, whole; it counts as used then. To be asked under its lock."""
        with suppress(FileNotFoundError):
            os.utime(self.marker)
            return True
        return False

    def failed_since(self, moment: float) -> str:
        """Why building it failed, if that was after the boot-time `moment`; empty if it was not."""
        failed = read_json(self.failure)
        return str(failed["why"]) if failed and failed["at"] >= moment else ""

    def begin(self, owner: int | None) -> None:
        """Make way for a new one, to be filled by the user `owner`. To be called under its lock, exclusively."""
        self.marker.unlink(missing_ok=True)
        trees.remove(self.folder)
        self.folder.mkdir(mode=0o755)
        if owner is not None:
            os.chown(self.folder, owner, owner)

    def fail(self, why: str, moment: float) -> None:
        """It can't be built, for those who wait for it too."""
        trees.remove(self.folder)
        write_json(self.failure, {"why": why, "at": moment})

    def finish(self) -> None:
        """It is built: it becomes the agent's own, gets this library to import from, and may be used."""
        (packages,) = self.folder.glob("lib/python*/site-packages")
        if not os.path.lexists(packages / "trellis"):
            os.symlink(os.path.dirname(os.path.realpath(trellis.__file__)), packages / "trellis")
        size = 0
        for folder, names, files in os.walk(self.folder):
            for name in (*names, *files):
                path = os.path.join(folder, name)
                size += os.lstat(path).st_blocks * 512
                os.chown(path, os.geteuid(), os.getegid(), follow_symlinks=False)
        os.chown(self.folder, os.geteuid(), os.getegid())
        self.failure.unlink(missing_ok=True)
        write_json(self.marker, {"size_bytes": size})


def locate(ground: Ground, spec: ReplicaSpec, work: Path) -> Environment:
    """The environment that the requirements of a replica's code ask for. Raises Unbuildable, ValueError."""
    path = spec.code.requirements if spec.code else ""
    try:
        fd = os.open(work / path, _READ)
        with os.fdopen(fd, "rb") as file:
            text = file.read(requirements.LARGEST + 1).decode()
        requirements.check(text)
    except (OSError, ValueError) as error:
        raise Unbuildable(f"{path} {getattr(error, 'strerror', None) or error}") from error
    hidden = ground.confinement.level is Isolation.NAMESPACES
    stands_for = [text, sys.version, sys.base_prefix, platform.machine(), str(ground.confinement.level)]
    key = hashlib.sha256(json.dumps(stands_for).encode()).hexdigest()[:32]
    folder = ground.home.environments / safe_name(spec.project_id) / key
    return Environment(folder, _INSIDE if hidden else str(folder), text)


def build_program(ground: Ground, environment: Environment, places: Places, path: str) -> tuple[Program, NetworkPolicy]:
    """What builds it: in the job's own confinement, with the network where packages come from one. Raises Unbuildable.

    Nothing of the job runs meanwhile, and no package does: they are unpacked, never built.
    """
    sources = Sources(**(read_json(ground.home.sources) or {}))
    if not sources.index and not sources.links:
        raise Unbuildable(
            "this node makes no environments: its operator has named no source of packages "
            "(TRELLIS_PACKAGE_INDEX, TRELLIS_PACKAGE_LINKS)"
        )
    hidden = environment.inside == _INSIDE
    folder = (_PACKAGES_INSIDE if hidden else sources.folder) if sources.folder else ""
    mounts = [Mount(str(environment.folder), environment.inside, writable=True)]
    if folder:
        mounts.append(Mount(sources.folder, folder))
    options = [] if sources.index else ["--no-index"]
    options += ["--find-links", folder or sources.links] if sources.links else []
    options += ["--require-hashes"] if requirements.has_hashes(environment.text) else []
    argv = (
        "/bin/sh", "-c", _BUILD, "build", os.fsdecode(uv.find_uv_bin()), _base_python(), environment.inside,
        f"{places.work}/{path}", *options,
    )  # fmt: skip
    variables = {
        "PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": places.tmp, "TMPDIR": places.tmp, "LANG": "C.UTF-8",
        "UV_NO_PROGRESS": "1", "NO_COLOR": "1",
        # By variable, for the command line of a process is everybody's to read.
        **({"UV_DEFAULT_INDEX": sources.index} if sources.index else {}),
    }  # fmt: skip
    network = NetworkPolicy.HOST if sources.far else NetworkPolicy.NONE
    return Program(argv, variables, replace(places, mounts=tuple(mounts)), ()), network


def _base_python() -> str:
    return os.path.realpath(getattr(sys, "_base_executable", sys.executable))


def trim(home: Home, limit_bytes: int) -> None:
    """Remove those that were used longest ago and that nobody uses now, until the others fit. Raises OSError."""
    kept = sorted(_kept(home), key=lambda item: item[0])
    total = sum(size for _, size, _ in kept)
    for _, size, environment in kept:
        if total <= limit_bytes:
            return
        fd = environment.lock(fcntl.LOCK_EX)
        if fd is None:
            continue
        try:
            environment.marker.unlink(missing_ok=True)
            trees.remove(environment.folder)
            total -= size
        finally:
            os.close(fd)


def _kept(home: Home) -> Iterator[tuple[float, int, Environment]]:
    for marker in home.environments.glob("*/*.json"):
        if not marker.name.startswith(".") and (said := read_json(marker)):
            with suppress(FileNotFoundError):
                yield marker.stat().st_mtime, said["size_bytes"], Environment(marker.with_suffix(""), "", "")
