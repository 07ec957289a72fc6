"""What all supervisors of a node stand on: settled once, when the node starts."""

from dataclasses import dataclass, field
from pathlib import Path

from agent.cgroups import Cgroups
from agent.containers.site import Site
from agent.layout import Home
from trellis.vocabulary import Isolation
from trellis.wire import ReplicaSpec


def slice_key(uuid: str, profile: str, start: int) -> str:
    """What names a slice of the device `uuid`: what it is, and the memory slot that it begins at."""
    return f"{uuid}/{profile}/{start}"


@dataclass(frozen=True, slots=True)
class Confinement:
    """How far this node keeps jobs in, as a trial start proved; a supervisor does exactly this or fails.

    uid: what a root agent turns jobs into; None leaves the user as it is.
    drop_capabilities: jobs stay root in name only.
    nested_users: jobs could make user namespaces of their own, because this bubblewrap is too old to forbid it.
    filtered: the kernel refuses jobs the system calls of `agent.seccomp`.
    """

    level: Isolation
    detail: str
    uid: int | None = None
    drop_capabilities: bool = False
    bwrap: str = ""
    setpriv: str = ""
    nested_users: bool = False
    landlock_abi: int = 0
    filtered: bool = False


@dataclass(frozen=True, slots=True)
class Hooks:
    """Programs of the operator's (`agent.hooks`), "" for none, how long each may take, and the name of the node."""

    join: str = ""
    prolog: str = ""
    epilog: str = ""
    health: str = ""
    within_s: float = 60.0
    node: str = ""


@dataclass(frozen=True, slots=True)
class Ground:
    """Crosses to the launcher as JSON. `devices` maps a GPU's uuid to its device node, where it has one; `slices` a
    `slice_key` to the slice's own uuid and the device nodes that it takes beside the GPU's. `cgroups` says where limits
    are set that hold for all processes of a job together, `site` with what containers are run. `address` is the one by
    which other nodes reach this one, `ports` the first and the last that replicas of gangs may be given.
    """

    home_path: str
    confinement: Confinement
    job_uid: int
    timezone: str = ""
    devices: dict[str, str] = field(default_factory=dict)
    slices: dict[str, tuple[str, ...]] = field(default_factory=dict)
    cgroups: Cgroups = field(default_factory=Cgroups)
    site: Site = field(default_factory=Site)
    address: str = "127.0.0.1"
    ports: tuple[int, ...] = (20000, 29999)
    hooks: Hooks = field(default_factory=Hooks)

    def device_nodes(self, spec: ReplicaSpec) -> list[str]:
        """The device nodes that a replica needs for the devices and slices it was given; none where there are none."""
        keys = [slice_key(grant.uuid, grant.profile, grant.start) for grant in spec.slices]
        uuids = dict.fromkeys([*(one.uuid for one in spec.gpus), *(one.uuid for one in spec.slices)])
        whole = [self.devices[uuid] for uuid in uuids if uuid in self.devices]
        return [*whole, *(node for key in keys for node in self.slices.get(key, ())[1:])]

    @property
    def home(self) -> Home:
        """The node's directory, from the text that crossed."""
        return Home(Path(self.home_path))
