"""What a replica finds when it starts: its directories, its script, its environment."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import NAMESPACE_DNS, uuid5

import trellis
from agent import trees
from agent.checkpoint_folder import CheckpointFolder
from agent.ground import Ground, slice_key
from agent.layout import RESTORED, RESTORED_FROM, ReplicaDir, read_json, write_json
from trellis.features import CRASH_TRACES
from trellis.vocabulary import Isolation
from trellis.wire import ReplicaSpec, pack

_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
_SYSTEM_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
# Read by the loader, libc or the shell before the job's own code is.
_REFUSED = frozenset({"GCONV_PATH", "LOCPATH", "NLSPATH", "GLIBC_TUNABLES", "BASH_ENV", "ENV", "IFS"})
_REFUSED_PREFIX = "LD_"
LIBRARY_INSIDE = "/opt/trellis"
"""Where a container sees the folder that this library's package is in."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A directory of the host's that a replica sees at `inside`; without namespaces that is where it is."""

    source: str
    inside: str
    writable: bool = False


@dataclass(frozen=True, slots=True)
class Places:
    """A replica's directories as the job sees them, and what else it sees."""

    work: str
    artifacts: str
    tmp: str
    socket: str
    checkpoints: str
    mounts: tuple[Mount, ...] = ()


@dataclass(frozen=True, slots=True)
class Program:
    """What is to be executed, in the job's own terms. `refused` are variables that are not passed on."""

    argv: tuple[str, ...]
    environment: dict[str, str]
    places: Places
    refused: tuple[str, ...]


def library() -> str:
    """Where this library's package lies, which a container is shown so that its programs can import it."""
    return os.path.dirname(os.path.realpath(trellis.__file__))


def places(ground: Ground, replica: ReplicaDir, socket: str, *, contained: bool = False) -> Places:
    """In a namespace of its own, and in a container, a job sees short paths that tell nothing of the host."""
    if contained or ground.confinement.level is Isolation.NAMESPACES:
        return Places("/job/work", "/job/artifacts", "/job/tmp", f"/job/{socket}", "/job/checkpoints")
    work, artifacts, tmp, checkpoints = map(str, (replica.work, replica.artifacts, replica.tmp, replica.checkpoints))
    return Places(work, artifacts, tmp, f"{replica.job}/{socket}", checkpoints)


class NothingRestored(Exception):
    """What the job was to go on from, and not start without, could not be restored."""


def take_restored(ground: Ground, replica: ReplicaDir, spec: ReplicaSpec) -> None:
    """Take over what it goes on from, before it waits for anything: a daemon that starts clears away what nobody took.

    Raises OSError; NothingRestored where there is nothing of what it must go on from; ValueError where the others go on
    from something that is not to be had here.
    """
    plan, restored = spec.checkpoint, ground.home.restored / replica.path.name
    if said := read_json(restored / RESTORED_FROM):
        (restored / RESTORED).rename(replica.checkpoints)
        (restored / RESTORED_FROM).rename(replica.restored_from)
        trees.remove(restored)
    if plan is None or (said and said["key"]):
        return
    if plan.must_restore:
        faults = [plan.fault, *(said["faults"] if said else ())]
        raise NothingRestored("; ".join(filter(None, faults)) or "there is nothing that it could go on from")
    if said and plan.shared:
        raise ValueError("what all its replicas were to go on from can't be restored here")


def open_checkpoints(ground: Ground, replica: ReplicaDir, spec: ReplicaSpec) -> None:
    """Make the folder that it saves into, unless it goes on from one; and tell the daemon where checkpoints go.

    To be called when its program is about to start: from then on it is asked to save. Raises OSError.
    """
    said = read_json(replica.restored_from)
    folder = CheckpointFolder(replica)
    if not said:
        replica.checkpoints.mkdir(mode=0o700)
        _give(replica.checkpoints, ground)
    marker = folder.marker()
    write_json(
        replica.plan,
        {
            "plan": pack(spec.checkpoint), "project": spec.project_id, "job": spec.job_id,
            "restored": said["key"] if said else "", "marker": marker.identity if marker else "",
            "fingerprint": folder.fingerprint() if said else "",
        },
    )  # fmt: skip


def lay_out(ground: Ground, replica: ReplicaDir, spec: ReplicaSpec) -> None:
    """Make the directories below `replica.job`. Raises OSError."""
    if spec.code is not None:
        replica.code.rename(replica.work)
        replica.work.chmod(0o700)
    for folder in (replica.artifacts, replica.tmp) if spec.code else (replica.work, replica.artifacts, replica.tmp):
        folder.mkdir(mode=0o700)
        _give(folder, ground)


def clear(replica: ReplicaDir) -> None:
    """Remove what nobody needs of a replica that has ended: its files but for what is to be stored."""
    for folder in (replica.work, replica.tmp):
        with suppress(OSError):
            trees.remove(folder)


def in_environment(program: Program, mount: Mount) -> Program:
    """The same program in an environment of Python of its own, which is mounted so."""
    bin_folder = f"{mount.inside}/bin"
    variables = {**program.environment, "VIRTUAL_ENV": mount.inside}
    variables["PATH"] = f"{bin_folder}:{variables['PATH']}"
    argv = program.argv
    if argv[0] == sys.executable:  # that of the node: what runs a script by default
        argv = (f"{bin_folder}/python", *argv[1:])
    return replace(program, argv=argv, environment=variables, places=replace(program.places, mounts=(mount,)))


def prepare(ground: Ground, replica: ReplicaDir, spec: ReplicaSpec, socket: str) -> Program:
    """Write the script into the directories that `lay_out` made, and say what to execute. Raises OSError, ValueError.

    `socket` is the name, in that directory, of the socket for metric points.
    """
    seen = places(ground, replica, socket, contained=spec.container is not None)
    argv = (*(spec.command or _write_script(ground, replica, spec, seen)), *(() if spec.command else spec.arguments))
    environment, refused = _environment(ground, spec, seen)
    return Program(argv, environment, seen, refused)


def prepared_before(ground: Ground, replica: ReplicaDir, spec: ReplicaSpec, socket: str) -> Program:
    """What of `prepare` can still be said of one that runs: where its directories are."""
    return Program((), {}, places(ground, replica, socket, contained=spec.container is not None), ())


def _give(path: Path, ground: Ground) -> None:
    if ground.confinement.uid is not None:
        os.chown(path, ground.confinement.uid, ground.confinement.uid, follow_symlinks=False)


def _write_script(ground: Ground, replica: ReplicaDir, spec: ReplicaSpec, seen: Places) -> tuple[str, ...]:
    text = spec.script or ""
    name = spec.script_name if _SAFE_NAME.fullmatch(spec.script_name) else "script"
    path = replica.work / name
    try:
        # Exclusively: the job's code may have a file of that name, or a link.
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        message = f"the code has a file {name!r}, and the script is to be called so too: give it another name"
        raise ValueError(message) from error
    path.chmod(0o700)
    _give(path, ground)
    inside = f"{seen.work}/{name}"
    if text.startswith("#!"):
        return (inside,)
    python = "python3" if spec.container else sys.executable
    return (python, inside) if name.endswith(".py") else ("/bin/sh", inside)


def _environment(ground: Ground, spec: ReplicaSpec, seen: Places) -> tuple[dict[str, str], tuple[str, ...]]:
    """Nothing of the platform's own environment is in it; what the platform says, the job's wishes can't change."""
    wished = {name: value for name, value in spec.environment.items() if not _is_refused(name, value)}
    if CRASH_TRACES in spec.features:
        wished.setdefault("PYTHONFAULTHANDLER", "1")
    fixed = {
        "TMPDIR": seen.tmp,
        "TRELLIS_JOB_ID": spec.job_id,
        "TRELLIS_JOB_NAME": spec.job_name,
        "TRELLIS_ATTEMPT": str(spec.attempt),
        "TRELLIS_FENCE": str(spec.fence),
        "TRELLIS_REPLICA_INDEX": str(spec.index),
        "TRELLIS_REPLICA_COUNT": str(spec.count),
        "TRELLIS_ARTIFACTS_DIR": seen.artifacts,
        "TRELLIS_RUNTIME_SOCKET": seen.socket,
        **({"TRELLIS_ROLE": spec.role} if spec.role else {}),
        **({"TRELLIS_CHECKPOINT_DIR": seen.checkpoints} if spec.checkpoint else {}),
        # By uuid: an index means another device wherever only some device nodes can be seen.
        "CUDA_VISIBLE_DEVICES": ",".join((*(grant.uuid for grant in spec.gpus), *_slices(ground, spec))),
    }
    defaults = {"HOME": seen.work, "LANG": "C.UTF-8", "USER": "job"}
    if spec.container:  # it has a path of its own, and what it says of devices to NVIDIA's tools is not for it to say
        wished["PYTHONPATH"] = ":".join(filter(None, (wished.get("PYTHONPATH"), LIBRARY_INSIDE)))
        fixed["NVIDIA_VISIBLE_DEVICES"] = fixed["CUDA_VISIBLE_DEVICES"] or "void"
    else:
        defaults["PATH"] = ":".join(dict.fromkeys((os.path.dirname(sys.executable), *_SYSTEM_PATH)))
    if ground.timezone:
        defaults["TZ"] = ground.timezone
    refused = tuple(sorted((spec.environment.keys() - wished.keys()) | (wished.keys() & fixed.keys())))
    return {**defaults, **wished, **fixed}, refused


def _slices(ground: Ground, spec: ReplicaSpec) -> Iterator[str]:
    for grant in spec.slices:
        key = slice_key(grant.uuid, grant.profile, grant.start)
        if grant.uuid not in ground.devices:  # a device of a profile, which nobody can ask
            yield f"MIG-{uuid5(NAMESPACE_DNS, key)}"
        elif key in ground.slices:
            yield ground.slices[key][0]
        else:
            raise ValueError(f"device {grant.index} of this node has no slice {grant.profile} at slot {grant.start}")


def _is_refused(name: str, value: str) -> bool:
    broken = not name or "=" in name or "\0" in name + value
    return broken or name in _REFUSED or name.startswith(_REFUSED_PREFIX)
