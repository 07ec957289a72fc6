"""How a node is wired."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Read from the environment by `trellis.settings.load`, or built by the command that starts the node.

    url: the control plane, such as `http://127.0.0.1:8420`.
    join_token: lets an unknown node register; a node that comes back uses the token it was given then.
    name: the node's name; empty for the host's.
    home: where the node keeps its replicas; one daemon a home.
    profile: a name of `agent.profiles.PROFILES`, or one in words such as `gpu_type=H100,gpus=8,cpu_cores=96,memory_gb=2048`,
        whose devices the node then offers; empty for what is really there.
    cpus, memory: override what was detected (a number; text such as `64GiB`); 0 and empty leave it.
    job_uid: the user and group that jobs run as when the agent is root; it needs no account.
    isolation: empty for the strongest level that works here; or the one level that the node must reach to start.
    container_socket: the socket of a container engine; empty for Docker's or Podman's usual place, `none` for no containers.
    container_options: security options that each container gets, such as `apparmor=trellis-job,label=type:trellis_t`.
    package_index: where packages of jobs' requirements come from, such as the address of a PEP 503 index; empty for nowhere.
    package_links: a folder with wheels, or a page that links to some, beside the index or in its place.
    environment_cache: how much room environments of jobs may take; what was used longest ago goes first.
    code_cache: how much code of jobs the node keeps for the next ones; what was used longest ago goes first.
    address: by which other nodes reach this one, for jobs with replicas on several; empty for the one that it reaches the
        control plane from.
    ports: of which ports replicas of such jobs are given one each, such as `20000-29999`; none of those that the kernel
        gives to outgoing connections.
    on_join, prolog, epilog: programs that run before the node joins, before a replica starts and after it ended: see docs/guides/nodes.md.
    health_check: a program that says whether the node is well, by its exit code (0, 1 a warning, others bad) and one line.
    hook_within_s: how long each of these may take; then it is killed and counts as failed.
    health_every_s: how often the node looks at its own health.
    device_record: of a node with a profile, a file that says what is wrong with its devices; empty for nothing.
    timezone: handed to jobs as TZ; empty leaves them to /etc/localtime.
    """

    url: str
    join_token: str = ""
    name: str = ""
    home: Path = Path(".trellis/node")
    profile: str = ""
    cpus: float = 0.0
    memory: str = ""
    job_uid: int = 65533
    isolation: str = ""
    timezone: str = ""
    container_socket: str = ""
    container_options: str = ""
    code_cache: str = "10GiB"
    package_index: str = ""
    package_links: str = ""
    address: str = ""
    ports: str = "20000-29999"
    environment_cache: str = "20GiB"
    on_join: str = ""
    prolog: str = ""
    epilog: str = ""
    health_check: str = ""
    hook_within_s: float = 60.0
    health_every_s: float = 15.0
    device_record: str = ""
