"""The words that make bubblewrap build a job's world.

They are handed over in a file and not on the command line, where every user of the host could read the
job's environment.
"""

import os
from functools import cache

from agent.ground import Confinement, Ground
from agent.layout import ReplicaDir
from agent.view import gpu_nodes, host_view
from agent.workspace import Program
from trellis.vocabulary import NetworkPolicy
from trellis.wire import ReplicaSpec

_ALWAYS = (
    "--unshare-ipc", "--unshare-pid", "--unshare-uts", "--unshare-cgroup-try", "--die-with-parent", "--new-session",
    "--cap-drop", "ALL",
)  # fmt: skip
# A root agent's bubblewrap makes no user namespace: in one, the job's user would be root to the host's files.
# What is left of root is just enough to enter the job's directory, and for setpriv to turn into its user for good.
_FOR_ROOT = (
    "--cap-add", "CAP_DAC_READ_SEARCH", "--cap-add", "CAP_SETPCAP", "--cap-add", "CAP_SETUID",
    "--cap-add", "CAP_SETGID",
)  # fmt: skip


def arguments(ground: Ground, replica: ReplicaDir, spec: ReplicaSpec, program: Program) -> tuple[list[str], list[str]]:
    """The options for `--args`, and the command that belongs behind them."""
    options = [*_namespaces(ground.confinement, ground.job_uid), *common_files(ground.home_path)]
    options += _own(replica)
    for mount in program.places.mounts:
        options += ["--bind" if mount.writable else "--ro-bind", mount.source, mount.inside]
    if spec.network is NetworkPolicy.NONE:
        options.append("--unshare-net")
    elif os.path.exists("/etc/resolv.conf"):  # the copy of it may be old by now
        options += ["--ro-bind", "/etc/resolv.conf", "/etc/resolv.conf"]
    granted = ground.device_nodes(spec)
    for node in gpu_nodes(granted):
        options += ["--dev-bind", node, node]
    if granted:  # NCCL reads the topology there
        options += ["--ro-bind", "/sys", "/sys"]
    for name, value in program.environment.items():
        options += ["--setenv", name, value]
    return options, [*_entry(ground.confinement), *program.argv]


def _namespaces(confinement: Confinement, job_uid: int) -> list[str]:
    if confinement.uid is not None:
        return [*_ALWAYS, *_FOR_ROOT]
    forbid = [] if confinement.nested_users else ["--disable-userns"]
    return [*_ALWAYS, "--unshare-user", *forbid, "--uid", str(job_uid), "--gid", str(job_uid)]


@cache
def common_files(home: str) -> tuple[str, ...]:
    """The part that is the same for every job of the node."""
    view = host_view()
    # Bubblewrap gives the directories that it makes no rights for others; where the job is another user, it needs them.
    options = ["--proc", "/proc", "--dev", "/dev", "--perms", "1777", "--tmpfs", "/dev/shm"]  # noqa: S108  # the job's own
    for root in view.system:
        options += ["--ro-bind", root, root]
    for link, target in view.links:
        options += ["--symlink", target, link]
    options += ["--ro-bind", f"{home}/etc", "/etc"]
    return tuple(options)


def _own(replica: ReplicaDir) -> list[str]:
    """The job's directory, its /tmp (on disk, and gone with it), and the Python that may lie below /tmp."""
    own = ["--bind", str(replica.job), "/job", "--bind", str(replica.tmp), "/tmp"]  # noqa: S108  # the job's own
    return [*own, *_python(), "--chdir", "/job/work"]


@cache
def _python() -> tuple[str, ...]:
    options: list[str] = []
    for path in host_view().python:
        for parent in _parents(path):
            options += ["--perms", "0755", "--dir", parent]
        options += ["--ro-bind", path, path]
    return tuple(options)


def _parents(path: str) -> list[str]:
    above = []
    while (path := os.path.dirname(path)) not in ("/", "/tmp"):  # noqa: S108  # the job's own, made before
        above.append(path)
    return above[::-1]


def _entry(confinement: Confinement) -> list[str]:
    if confinement.uid is None:
        # The shell says 127 for a command that is not there; bubblewrap would say 1, as many programs do.
        return ["/bin/sh", "-c", 'exec "$@"', "sh"]
    user = str(confinement.uid)
    drop = ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
    return [confinement.setpriv, "--reuid", user, "--regid", user, "--clear-groups", *drop, "--"]
