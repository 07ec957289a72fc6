"""How the replicas of a gang find each other: what a replica says when it is ready, and what its program is told.

The words are those that others listen to: PyTorch's `env://` and `torchrun`, Open MPI, MPICH's Hydra. With a device of
its own a replica sees that one alone, so for programs that count devices it is the only process of its group.
"""

import fcntl
import os
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from agent.ground import Ground
from agent.layout import ReplicaDir, read_json
from agent.ports import Port
from agent.verdicts import rendezvous_failed
from agent.workspace import Program
from trellis.vocabulary import NetworkPolicy
from trellis.wire import Ready, ReplicaSpec, World, unpack

# For how long the others are waited for: longer than code and environment may take on the slowest of their nodes.
WITHIN_S = 3600.0
SAY_S = 1.0
# A program that could not listen where it was promised to fails soon.
SOON_S = 120.0
_HOST_FILES = {"hostfile": "{host} slots={slots}\n", "hostfile.hydra": "{host}:{slots}\n"}
_INTERFACE_ADDRESS = 0x8915  # SIOCGIFADDR, see netdevice(7)
WAITING = "waiting for the other replicas"
LATE = rendezvous_failed(f"the other replicas were not ready within {WITHIN_S:g} s")
ROBBED = rendezvous_failed("another program listens on the port that was kept for rank 0")
UNREACHABLE = "the replicas can't reach each other: network is none; submit with `--network host` where they should"


@dataclass(slots=True)
class Seat:
    """A replica's place in its gang, while it lives. `port` is None where the replica reaches nobody."""

    ready: Ready
    port: Port | None = None
    leads: bool = False

    @classmethod
    def take(cls, ground: Ground, replica: ReplicaDir, spec: ReplicaSpec) -> "Seat":
        """Raises OSError where there is no port left."""
        restored = (read_json(replica.restored_from) or {}).get("named", "")
        if spec.network is NetworkPolicy.NONE:
            return cls(Ready(ground.address, 0, restored))
        port = Port.reserve(ground.ports)
        return cls(Ready(ground.address, port.number, restored), port)

    def begin(
        self, replica: ReplicaDir, spec: ReplicaSpec, program: Program, told: Any, say: Callable[[str], None]
    ) -> Program:
        """The program as it runs in this world; its owner hears where it can't reach the others. Raises OSError, ValueError."""
        world = unpack(World, told)
        rank = world.ranks[replica.path.name]
        self.leads = rank == 0
        if self.port is not None:
            self.port.let_go()
        elif len(world.places) > 1:
            say(UNREACHABLE)
        folder = program.places.tmp
        wished = {name: value for name, value in program.environment.items() if name in _HINTS}
        said = variables(spec, world, rank) | {
            "TRELLIS_HOSTFILE": f"{folder}/hostfile",
            "OMPI_MCA_orte_default_hostfile": f"{folder}/hostfile",
            "PRTE_MCA_prte_default_hostfile": f"{folder}/hostfile",
            "HYDRA_HOST_FILE": f"{folder}/hostfile.hydra",
        }
        _write_host_files(replica, world)
        hints = _hints(world.hosts[world.places[rank]]) if self.port is not None else {}
        return replace(program, environment={**program.environment, **hints, **wished, **said})

    def was_robbed(self, ran_s: float) -> bool:
        """Whether the program, which is gone now, could not listen where all others look for it."""
        return self.leads and ran_s < SOON_S and self.port is not None and self.port.is_taken()

    def close(self) -> None:
        """Keep nothing."""
        if self.port is not None:
            self.port.close()


_HINTS = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


def variables(spec: ReplicaSpec, world: World, rank: int) -> dict[str, str]:
    """Who a replica is among the others, and where rank 0 is."""
    size, node = len(world.places), world.places[rank]
    beside = [other for other, place in enumerate(world.places) if place == node]
    alike = [other for other, role in enumerate(world.roles) if role == world.roles[rank]]
    local, locals_ = beside.index(rank), len(beside)
    group = {"LOCAL_RANK": local, "LOCAL_WORLD_SIZE": locals_, "GROUP_RANK": node, "GROUP_WORLD_SIZE": len(world.hosts)}
    if spec.gpus or spec.slices:
        group = {"LOCAL_RANK": 0, "LOCAL_WORLD_SIZE": 1, "GROUP_RANK": rank, "GROUP_WORLD_SIZE": size}
    numbers = group | {
        "RANK": rank, "WORLD_SIZE": size, "NODE_RANK": node,
        "ROLE_RANK": alike.index(rank), "ROLE_WORLD_SIZE": len(alike),
        "TRELLIS_RANK": rank, "TRELLIS_WORLD_SIZE": size, "TRELLIS_REPLICA_COUNT": size,
        "TRELLIS_LOCAL_RANK": local, "TRELLIS_LOCAL_WORLD_SIZE": locals_,
        "TRELLIS_NODE_RANK": node, "TRELLIS_NODE_COUNT": len(world.hosts),
    }  # fmt: skip
    said = {name: str(value) for name, value in numbers.items()} | {"ROLE_NAME": spec.role or "default"}
    if not world.ports[0]:
        return said
    host, port = world.hosts[world.places[0]], str(world.ports[0])
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return said | {
        "MASTER_ADDR": host,
        "MASTER_PORT": port,
        "TRELLIS_MASTER_ADDR": host,
        "TRELLIS_MASTER_PORT": port,
        "TRELLIS_PORT": str(world.ports[rank]),
        "PET_NNODES": str(size),
        "PET_NPROC_PER_NODE": str(max(1, len(spec.gpus) + len(spec.slices))),
        # Fixed ranks: c10d tells replicas apart by address and process id, and on one node, each in a namespace of its own,
        # they may have both in common.
        "PET_RDZV_BACKEND": "static",
        "PET_NODE_RANK": str(rank),
        "PET_MASTER_ADDR": host,
        "PET_MASTER_PORT": port,
        # For those that ask for c10d all the same.
        "PET_RDZV_ENDPOINT": where,
        "PET_RDZV_ID": f"{spec.job_id}.{spec.fence}",
        "PET_RDZV_CONF": f"is_host={int(rank == 0)}",
        "PET_LOCAL_ADDR": world.hosts[node],
    }


def own_address(url: str) -> str:
    """The address from which this host reaches the control plane; its name where that can't be told."""
    parts = urlsplit(url)
    try:
        found = socket.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_DGRAM)
        with socket.socket(found[0][0], socket.SOCK_DGRAM) as probe:
            probe.connect(found[0][4])  # sends nothing: the kernel says which way it would go
            return str(probe.getsockname()[0])
    except OSError:
        return socket.gethostname()


def _hints(address: str) -> dict[str, str]:
    """Which interface collectives are to use: where a host has several, libraries guess, and may guess another one."""
    name = interface_of(address, [name for _, name in socket.if_nameindex()])
    return dict.fromkeys(_HINTS, name) if name else {}


def interface_of(address: str, names: Sequence[str]) -> str:
    """The interface that has this IPv4 address; "" where none has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for name in names:
            wanted = struct.pack("256s", os.fsencode(name)[:15])
            try:
                answer = fcntl.ioctl(probe, _INTERFACE_ADDRESS, wanted)
            except OSError:  # it has none
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return ""


def _write_host_files(replica: ReplicaDir, world: World) -> None:
    """Raises FileExistsError for what is there already: what built the environment may have left a link."""
    for name, line in _HOST_FILES.items():
        text = "".join(
            line.format(host=host, slots=world.places.count(number)) for number, host in enumerate(world.hosts)
        )
        # Below a directory that other users can pass through: the file itself is the job's alone.
        fd = os.open(replica.tmp / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            owner = os.stat(replica.tmp)
            os.write(fd, text.encode())
            os.fchown(fd, owner.st_uid, owner.st_gid)
        finally:
            os.close(fd)
