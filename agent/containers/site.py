"""Whether this node can run containers: the engine that it finds, and what there is to know of it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.containers.engine import Engine, EngineError, EngineGone

USUAL = ("/var/run/docker.sock", "/run/podman/podman.sock")
NONE = "none"
_COUNTED = frozenset({"memory", "cpuacct"})
# Where Podman looks for what is to be a container's first process; Docker brings its own.
_INITS = ("/usr/libexec/podman/catatonit", "/usr/bin/catatonit", "/usr/local/libexec/podman/catatonit")


@dataclass(frozen=True, slots=True)
class Site:
    """An engine as a supervisor needs to know it; `socket` is empty where there is none. Crosses to the launcher.

    hierarchies: where control groups are mounted, by controller; "" is version 2. Empty where the engine does not put
        a container where it is told to: its own limits hold then, and what was used is measured from outside.
    hands_out_gpus: it is told which devices to hand out, and brings their driver's files along; else it is told of
        their device nodes alone.
    options: the operator's own security options, such as `apparmor=name` or `label=type:name`.
    """

    socket: str = ""
    user: int = 0
    hierarchies: dict[str, str] = field(default_factory=dict)
    hands_out_gpus: bool = False
    options: tuple[str, ...] = ()


def find(wanted: str, user: int, options: str) -> tuple[Site, str]:
    """The engine at `wanted`, or at the first of the usual places that answers, and words on it for the node's record.

    `user` is whom jobs become. Whoever names a socket hears why it will not do; nobody does of a place that is merely
    usual and empty.
    """
    if wanted == NONE:
        return Site(), ""
    faults = []
    for place in [wanted] if wanted else USUAL:
        if not wanted and not os.path.exists(place):
            continue
        try:
            described = Engine(place).describe()
        except (EngineError, EngineGone, ValueError) as error:
            faults.append(f"not containers: {place} does not answer: {error}")
            continue
        if fault := _fault(described, user):
            faults.append(f"not containers: {fault}")
            continue
        site = Site(
            place, user, _hierarchies() if described.get("CgroupDriver") == "cgroupfs" else {},
            "nvidia" in (described.get("Runtimes") or {}), tuple(filter(None, options.replace(" ", "").split(","))),
        )  # fmt: skip
        return site, f"containers by the engine at {place}, version {described.get('ServerVersion', 'unknown')}"
    return Site(), "; ".join(faults)


def _fault(described: Mapping[str, object], user: int) -> str:
    options = described.get("SecurityOptions")
    said = " ".join(map(str, options)) if isinstance(options, list) else ""
    if described.get("Rootless") or "name=rootless" in said:
        return "the engine runs without root, and can't give a job its files as the job's user"
    if "name=userns" in said:
        return "the engine maps users, and can't give a job its files as the job's user"
    if "seccomp" not in said:
        return "the engine filters no system calls"
    if not described.get("InitBinary") and not any(map(os.path.exists, _INITS)):
        return "the engine has no first process for containers: install catatonit"
    if user == 0:
        return "jobs would be root: give the node bubblewrap or Landlock"
    return ""


def _hierarchies(mounts: str = "/proc/self/mountinfo") -> dict[str, str]:
    """Where control groups are mounted whole, by controller; {} where this process can't make any there."""
    found: dict[str, str] = {}
    for line in Path(mounts).read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        root, place = fields.split(" ")[3:5]
        if kind.startswith("cgroup") and root != "/":
            return {}
        if kind == "cgroup2":
            found[""] = place
        elif kind == "cgroup":
            names = _COUNTED.intersection(options.split(","))
            found |= dict.fromkeys(names or [place], place)
    accessible = all(os.access(place, os.W_OK) for place in found.values())
    return found if accessible and ("" in found or "memory" in found) else {}
