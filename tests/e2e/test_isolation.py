import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.platform import Platform
from tests.support.services import wait_until
from trellis.answers import Job, Node

CANARY = "the-neighbours-own-words"
PROBE = """
import glob, json, os, socket, sys
asked = json.loads(sys.argv[1])
found = {}

def attempt(name, act):
    try:
        found[name] = str(act())
    except OSError:
        found[name] = None

for path in asked["files"]:
    attempt(path, lambda: open(path, "rb").read()[:40])
for path in asked["folders"]:
    attempt(path, lambda: os.listdir(path))
for pid in asked["pids"]:
    attempt(f"signal {pid}", lambda: os.kill(pid, 0) or "it heard")
for port in asked["ports"]:
    attempt(f"port {port}", lambda: socket.create_connection(("127.0.0.1", port), 2) and "it answered")
for path in asked["sockets"]:
    def call():
        caller = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        caller.connect(next(iter(glob.glob(path)), path))  # a name that must be guessed may yet be listed
        return "it answered"
    attempt(path, call)
words = ["TRELLIS_SECRET", "TRELLIS_DATABASE", "TRELLIS_BROKER", "TRELLIS_JOIN", "TRELLIS_HOME", asked["yranac"][::-1]]
leaks = []
for path in glob.glob("/proc/*/environ") + glob.glob("/proc/*/cmdline") + glob.glob("/proc/*/root/proc/*/environ"):
    try:
        text = open(path, "rb").read().decode(errors="replace")
    except OSError:
        continue
    leaks += [f"{path}: {word}" for word in words if word in text]
found["leaks"] = leaks
found["environment"] = sorted(os.environ)
found["uid"] = os.getuid()
print(json.dumps(found))
"""


def node_of(platform: Platform, name: str) -> Node:
    return next(node for node in platform.client.nodes.list() if node.name == name)


@contextmanager
def a_neighbour(platform: Platform, home: Path, **body: Any) -> Iterator[tuple[Job, Path, list[int]]]:
    """A job on the same node, its directory, and its processes as the host counts them."""
    script = "echo secret > mine; echo begun; sleep 600"
    job = platform.client.jobs.submit(command=["/bin/sh", "-c", script], environment={"NEIGHBOUR": CANARY}, **body)
    platform.wait_line(job, "begun")
    (replica,) = platform.client.jobs.get(job, verbose=True).attempts[0].replicas
    yield job, home / "replicas" / f"{replica.id}.1", [process.pid for process in platform.processes_of(job)]
    platform.client.jobs.cancel(job, force=True)
    platform.ended(job)


def probe(platform: Platform, home: Path, **body: Any) -> dict[str, Any]:
    """What a job finds out when it looks where it has no business."""
    with a_neighbour(platform, home, **body) as (_, folder, pids):
        assert (folder / "job" / "work" / "mine").exists()
        ports = [urlsplit(platform.broker_url).port, platform.port, postgres_port(platform)]
        asked = {
            "files": [
                *(str(path) for path in (platform.home / "secrets").iterdir()), str(platform.home / "client.json"),
                str(home / "node.json"), str(folder / "job" / "work" / "mine"), str(folder / "output.log"), "/etc/shadow",
            ],
            "folders": [str(platform.home), str(home), str(home / "replicas"), str(folder / "job" / "work")],
            "pids": [*pids, platform.pid("node-1"), platform.pid("postgres"), platform.pid("api")],
            "ports": ports,
            "sockets": [str(folder / "job" / "metrics.sock"), f"{folder}/job/metrics-*.sock"],
            "yranac": CANARY[::-1],  # backwards: the probe must not find its own arguments
        }  # fmt: skip
        script = platform.client.jobs.submit(
            script=PROBE, script_name="probe.py", arguments=[json.dumps(asked)], **body
        )
        ended = platform.ended(script)
        assert ended.state == "succeeded", platform.log(script)
        found: dict[str, Any] = json.loads(platform.lines(script)[-1])
    return found


def postgres_port(platform: Platform) -> int:
    ports: dict[str, int] = json.loads((platform.home / "ports.json").read_text())
    return ports["postgres"]


def assert_found_nothing(found: dict[str, Any]) -> None:
    assert found.pop("leaks") == []
    environment = set(found.pop("environment"))
    platforms_own = {name for name in environment if name.startswith("TRELLIS_")}
    assert platforms_own == {
        "TRELLIS_JOB_ID", "TRELLIS_JOB_NAME", "TRELLIS_ATTEMPT", "TRELLIS_FENCE", "TRELLIS_REPLICA_INDEX",
        "TRELLIS_REPLICA_COUNT", "TRELLIS_ARTIFACTS_DIR", "TRELLIS_RUNTIME_SOCKET",
    }  # fmt: skip
    assert {name: said for name, said in found.items() if said is not None} == {}


def test_in_namespaces_a_job_sees_nothing_of_the_platform_or_of_other_jobs(platform: Platform) -> None:
    node = node_of(platform, "node-1")
    if node.isolation != "namespaces":
        pytest.skip(f"this machine reaches no namespaces: {node.isolation_detail}")
    found = probe(platform, platform.home / "nodes" / "node-1")
    assert found.pop("uid") != 0
    assert_found_nothing(found)


def test_under_landlock_a_job_reads_nothing_of_the_platform_or_of_other_jobs(platform: Platform) -> None:
    home = platform.folder / "landlocked"
    token = platform.client.nodes.create_join_token("landlocked").token
    process = platform.spawn(
        *platform.argv(
            "node", "--join", platform.url, "--name", "landlocked", "--profile", "t4x4", "--home", str(home)
        ),
        environment={**platform.env, "TRELLIS_ISOLATION": "landlock", "TRELLIS_JOIN_TOKEN": token},
        log="landlocked.log",
    )
    said = platform.folder / "landlocked.log"
    wait_until(lambda: process.poll() is not None or " ready." in said.read_text(), 60, "the second node")
    if process.poll() is not None and "can't reach isolation level landlock" in said.read_text():
        pytest.skip(said.read_text().splitlines()[-1])
    assert node_of(platform, "landlocked").isolation == "landlock"
    found = probe(platform, home, resources={"gpus": 1, "gpu_type": "Tesla T4", "cpus": 1})
    version = int(node_of(platform, "landlocked").isolation_detail.split()[1])
    if version < 6:  # older kernels let signals through, and the oldest connections
        found = {
            name: said for name, said in found.items() if not name.startswith(("signal ", "port ")[version >= 4 :])
        }
    found.pop("uid")
    assert_found_nothing(found)
