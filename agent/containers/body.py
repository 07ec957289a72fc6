"""What an engine is told of a replica's container: all that keeps it in is said here, and nothing of it by the job."""

from typing import Any

from agent.cgroups import Limits
from agent.containers.site import Site
from agent.executors.base import Start
from agent.view import gpu_nodes
from agent.workspace import LIBRARY_INSIDE, library
from trellis.vocabulary import NetworkPolicy
from trellis.wire import Container

HOME, REPLICA, FENCE, JOB, PROJECT = (f"trellis.{name}" for name in ("home", "replica", "fence", "job", "project"))
_LOG_BYTES = "1g"
_OOM_SCORE = 500


def name_of(start: Start) -> str:
    """What a replica's container is called; no two of any node are called the same."""
    return f"trellis-{start.replica.path.name}"


def body(start: Start, site: Site, wanted: Container, parent: str) -> dict[str, Any]:
    """What `POST /containers/create` takes. `parent` is the control group that it is to be in, "" for the engine's own."""
    spec, program = start.spec, start.program
    return {
        "Image": wanted.image,
        # The job's own words and no others: an image's entrypoint may take them as it likes.
        "Entrypoint": list(program.argv),
        "Cmd": [],
        "Env": [f"{name}={value}" for name, value in program.environment.items()],
        "User": f"{site.user}:{site.user}",
        "WorkingDir": program.places.work,
        "Labels": {
            HOME: start.ground.home_path, REPLICA: spec.replica_id, FENCE: str(spec.fence), JOB: spec.job_id,
            PROJECT: spec.project_id,
        },
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            **_kept_in(site, wanted),
            **_limits(start, parent),
            **_devices(start, site),
            "Mounts": _mounts(start),
            "NetworkMode": "host" if spec.network is NetworkPolicy.HOST else "none",
            "Init": True,
            "RestartPolicy": {"Name": "no"},
            "LogConfig": {"Type": "json-file", "Config": {"max-size": _LOG_BYTES}},
        },
    }  # fmt: skip


def _kept_in(site: Site, wanted: Container) -> dict[str, Any]:
    return {
        "Privileged": False,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges", *site.options],
        "ReadonlyRootfs": wanted.read_only_root,
        "IpcMode": "private",
        "PidMode": "",
        "UTSMode": "",
        "OomScoreAdj": _OOM_SCORE,
    }


def _limits(start: Start, parent: str) -> dict[str, Any]:
    """CPUs are a share, where others want them too. In a group of ours the memory limit is that group's."""
    limits = Limits(start.spec.memory_bytes, start.spec.cpu_milli)
    said: dict[str, Any] = {"PidsLimit": limits.processes, "CpuShares": max(2, limits.cpu_milli * 1024 // 1000)}
    if limits.memory_bytes:
        said["ShmSize"] = limits.memory_bytes
    if parent:
        said["CgroupParent"] = parent
    elif limits.memory_bytes:
        said |= {"Memory": limits.memory_bytes, "MemorySwap": limits.memory_bytes}
    return said


def _devices(start: Start, site: Site) -> dict[str, Any]:
    nodes = start.ground.device_nodes(start.spec)
    if not nodes:
        return {}
    if site.hands_out_gpus:
        ids = start.program.environment["CUDA_VISIBLE_DEVICES"].split(",")
        return {"DeviceRequests": [{"Driver": "nvidia", "DeviceIDs": ids, "Capabilities": [["gpu"]]}]}
    return {
        "Devices": [
            {"PathOnHost": node, "PathInContainer": node, "CgroupPermissions": "rw"} for node in gpu_nodes(nodes)
        ]
    }


def _mounts(start: Start) -> list[dict[str, Any]]:
    """Its own directory, its /tmp (on disk, and gone with it), and this library; nothing else of the host's."""
    folder, temporary = str(start.replica.job), str(start.replica.tmp)
    shown = [(folder, "/job", True), (temporary, "/tmp", True), (library(), f"{LIBRARY_INSIDE}/trellis", False)]  # noqa: S108
    return [
        {
            "Type": "bind", "Source": source, "Target": target, "ReadOnly": not writable,
            "BindOptions": {"Propagation": "rprivate"},
        }
        for source, target, writable in shown
    ]  # fmt: skip
