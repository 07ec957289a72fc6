"""What of the machine a job may see, read-only: the system's programs, the node's Python, and little of /etc."""

import os
import re
import shutil
import stat
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import trellis

_ROOTS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "crypto-policies", "fonts", "gai.conf", "host.conf",
    "hosts", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf", "nvidia",
    "OpenCL", "pki", "protocols", "resolv.conf", "services", "ssl", "terminfo", "timezone", "vulkan",
)  # fmt: skip
# Who is who stands in the two files alone: asking the host's other sources costs a job a millisecond and tells it nothing.
_ACCOUNTS = re.compile(r"^(\s*(?:passwd|group|shadow|gshadow|initgroups):).*$", re.MULTILINE)
DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts", "shm")
_NVIDIA = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")


@dataclass(frozen=True, slots=True)
class View:
    """Paths on the host. `links` are those roots that are symbolic links, and where they point."""

    system: tuple[str, ...]
    links: tuple[tuple[str, str], ...]
    etc: tuple[str, ...]
    python: tuple[str, ...]

    @property
    def checkout(self) -> tuple[str, ...]:
        """The folder that holds this library's package, if that is not an installed one."""
        package = _package()
        return (os.path.dirname(package),) if package in self.python else ()


@cache
def host_view() -> View:
    """Looked up once a process: it does not change while the node runs."""
    links = tuple((root, os.readlink(root)) for root in _ROOTS if os.path.islink(root))
    real = tuple(root for root in _ROOTS if os.path.isdir(root) and not os.path.islink(root))
    etc = tuple(path for path in (f"/etc/{name}" for name in _ETC) if os.path.exists(path))
    return View(("/usr", *real), links, etc, _python_paths())


def copy_etc(target: Path, job_uid: int) -> None:
    """Make the /etc that jobs in namespaces see.

    A copy, because a mount for each of its files costs more than all else that bubblewrap does; and with the
    two accounts alone that a job needs to know of.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(mode=0o755)
    for path in map(Path, host_view().etc):
        if path.is_dir():
            shutil.copytree(path, target / path.name, symlinks=True, ignore=_unreadable)
        else:
            shutil.copyfile(path, target / path.name)
    switch = target / "nsswitch.conf"
    if switch.exists():
        switch.write_text(_ACCOUNTS.sub(r"\1 files", switch.read_text()))
    (target / "passwd").write_text(f"root:x:0:0:root:/:/bin/false\njob:x:{job_uid}:{job_uid}:job:/job/work:/bin/sh\n")
    (target / "group").write_text(f"root:x:0:\njob:x:{job_uid}:\n")


def _unreadable(folder: str, names: list[str]) -> set[str]:
    """What not everybody may read (private keys) is not for jobs; nor is what this process can't copy."""
    hidden = set()
    for name in names:
        mode = os.lstat(os.path.join(folder, name)).st_mode
        if not (stat.S_ISLNK(mode) or mode & stat.S_IROTH):
            hidden.add(name)
    return hidden


def gpu_nodes(granted: list[str]) -> list[str]:
    """The device nodes that a job needs to use the devices `granted`, and no other device's."""
    return [*granted, *(path for path in _NVIDIA if os.path.exists(path))] if granted else []


def _package() -> str:
    return str(Path(trellis.__file__).resolve().parent)


def _python_paths() -> tuple[str, ...]:
    """Where the node's Python lies: the environment, the installation below it, and this library's own package."""
    found = {sys.prefix, sys.base_prefix, os.path.realpath(sys.base_prefix)}
    program = sys.executable
    # An environment's python may lead to the installation through links of its own (`3.11` to `3.11.9`).
    while os.path.islink(program):
        program = os.path.normpath(os.path.join(os.path.dirname(program), os.readlink(program)))
        if os.path.basename(os.path.dirname(program)) == "bin":
            found.add(os.path.dirname(os.path.dirname(program)))
    found.add(_package())
    outside = {path for path in found if path != "/usr" and not path.startswith("/usr/")}
    return tuple(sorted(path for path in outside if not any(path.startswith(f"{other}/") for other in outside)))
