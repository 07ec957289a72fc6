"""The strongest confinement that a trial start proves to work on this machine, found once when the node starts."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

from agent import cgroups, landlock, seccomp
from agent.containers.site import find
from agent.ground import Confinement, Ground
from agent.launching import program_environment
from agent.settings import NodeSettings
from agent.view import copy_etc
from trellis.settings import SettingsError
from trellis.vocabulary import Isolation
from trellis.wire import pack

_SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
_TRIAL_WITHIN_S = 40.0


def settle(settings: NodeSettings, devices: dict[str, str]) -> Ground:
    """Choose the confinement. Raises SettingsError if the level that the settings insist on can't be reached."""
    home = settings.home.resolve()
    copy_etc(home / "etc", settings.job_uid)
    groups = cgroups.find(str(home))
    ground = Ground(
        str(home), Confinement(Isolation.BASIC, ""), settings.job_uid, settings.timezone, devices, cgroups=groups
    )
    limits = (
        f"limits by control groups, version {groups.version}" if groups.version else "not control groups: none is ours"
    )
    faults: list[str] = []
    for candidate in _candidates(settings.job_uid, faults):
        if settings.isolation and candidate.level != settings.isolation:
            continue
        for confinement in _filtered(candidate):
            fault = _try(replace(ground, confinement=confinement))
            if not fault:
                user = os.getuid() if confinement.uid is None else confinement.uid
                site, containers = find(settings.container_socket, user, settings.container_options)
                detail = "; ".join(filter(None, [confinement.detail, limits, containers, *faults]))
                return replace(ground, confinement=replace(confinement, detail=detail), site=site)
            faults.append(f"not {confinement.detail}: {fault}")
    wanted = f"isolation level {settings.isolation}" if settings.isolation else "any isolation level"
    raise SettingsError(f"this node can't reach {wanted}: {'; '.join(faults) or 'there is no such level here'}")


def _candidates(job_uid: int, faults: list[str]) -> Iterator[Confinement]:
    """Strongest first. What is missing altogether goes to `faults`."""
    root = os.geteuid() == 0
    bwrap = shutil.which("bwrap", path=_SYSTEM_PATH) or ""
    setpriv = shutil.which("setpriv", path=_SYSTEM_PATH) or ""
    if not bwrap:
        faults.append("not bubblewrap: it is not installed")
    elif root and setpriv:
        name = f"bubblewrap as user {job_uid}"
        yield Confinement(Isolation.NAMESPACES, name, uid=job_uid, bwrap=bwrap, setpriv=setpriv)
    elif root:
        faults.append("not bubblewrap: setpriv is not installed")
    else:
        yield Confinement(Isolation.NAMESPACES, "bubblewrap", bwrap=bwrap)
        old = "bubblewrap, nested user namespaces possible"
        yield Confinement(Isolation.NAMESPACES, old, bwrap=bwrap, nested_users=True)
    yield from _without_namespaces(job_uid if root else None, faults)


def _filtered(candidate: Confinement) -> Iterator[Confinement]:
    """With system calls refused where we know the machine's, else as it is."""
    if seccomp.filter_of(own_processes=True):
        yield replace(candidate, filtered=True, detail=f"{candidate.detail}, system calls filtered")
    yield candidate


def _without_namespaces(job_uid: int | None, faults: list[str]) -> Iterator[Confinement]:
    version = landlock.abi()
    if not version:
        faults.append("not Landlock: this kernel does not offer it")
    levels = [(Isolation.LANDLOCK, f"Landlock {version}", version)] if version else []
    for level, name, abi in [*levels, (Isolation.BASIC, "clean environment", 0)]:
        if job_uid is None:
            yield Confinement(level, f"{name} as the node's user", landlock_abi=abi)
        else:
            yield Confinement(level, f"{name} as user {job_uid}", uid=job_uid, landlock_abi=abi)
            yield Confinement(level, f"{name} as root without capabilities", drop_capabilities=True, landlock_abi=abi)


def _try(ground: Ground) -> str:
    command = [sys.executable, "-m", "agent.trial", json.dumps(pack(ground))]
    try:
        done = subprocess.run(
            command, env=program_environment(), cwd="/", stdin=subprocess.DEVNULL, capture_output=True,
            timeout=_TRIAL_WITHIN_S, check=True, start_new_session=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "the trial start hung"
    except subprocess.CalledProcessError as error:
        words: str = error.stderr.decode(errors="replace").strip()
        return words.splitlines()[-1]
    fault: str = json.loads(done.stdout)["fault"]
    return fault
