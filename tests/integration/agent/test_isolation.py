"""What a job can not reach, tried from inside a real one at each level that this machine has."""

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.agent.conftest import Node
from tests.support.agent_api import ControlPlane, a_spec
from trellis.vocabulary import Isolation, NetworkPolicy

TRY_TO_READ = """
import sys
for path in sys.argv[1:]:
    try:
        open(path, "rb").read()
        print("READ", path)
    except OSError as error:
        print(type(error).__name__)
"""
LOOK_AROUND = """
import os
fields = dict(line.rstrip().split(":", 1) for line in open("/proc/self/status"))
print(fields["NoNewPrivs"].strip(), int(fields["CapEff"], 16), os.getuid())
"""
TRY_TO_CONNECT = """
import socket, sys
try:
    socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2)
    print("connected")
except OSError as error:
    print(type(error).__name__)
"""


def test_a_job_can_not_read_the_nodes_files_nor_another_jobs(
    confined_node: Node, plane: ControlPlane, tmp_path: Path
) -> None:
    home = confined_node.home.path
    private = tmp_path / "secret"
    private.write_text("hush")
    private.chmod(0o644)
    other = a_spec("other", "/bin/sh", "-c", "echo hush > secret; sleep 1000")
    confined_node.run(other)
    secrets = [home / "node.json", home / "lease", home / "replicas/other.1/job/work/secret", private, "/etc/shadow"]
    arguments = tuple(str(path) for path in secrets)
    confined_node.run(a_spec("r1", script=TRY_TO_READ, script_name="spy.py", arguments=arguments))
    assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]
    assert len(plane.lines("r1")) == len(secrets)
    assert not [line for line in plane.lines("r1") if line.startswith("READ")]


def test_a_job_can_not_see_the_environment_of_the_nodes_processes(confined_node: Node, plane: ControlPlane) -> None:
    pids = [os.getpid(), confined_node.daemon._launcher.pid]
    arguments = tuple(f"/proc/{pid}/environ" for pid in pids)
    confined_node.run(a_spec("r1", script=TRY_TO_READ, script_name="spy.py", arguments=arguments))
    assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]
    assert not [line for line in plane.lines("r1") if line.startswith("READ")]


def test_a_job_is_given_its_three_descriptors_and_none_of_the_nodes(confined_node: Node, plane: ControlPlane) -> None:
    script = "import os\nprint([fd for fd in range(1024) if os.path.exists(f'/proc/self/fd/{fd}')])\n"
    confined_node.run(a_spec("r1", "/bin/sh", "-c", f'{sys.executable} -c "$0"', script))
    plane.end_of("r1")
    assert plane.lines("r1") == ["[0, 1, 2]"], plane.logs["r1"]


def test_a_job_has_no_privileges_to_lose(confined_node: Node, plane: ControlPlane) -> None:
    confined_node.run(a_spec("r1", script=LOOK_AROUND, script_name="look.py"))
    assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]
    locked, capabilities, uid = plane.lines("r1")[0].split()
    assert (locked, capabilities) == ("1", "0")
    if confined_node.isolation == Isolation.NAMESPACES:
        assert uid == "65533"


@pytest.mark.parametrize(("network", "said"), [(NetworkPolicy.NONE, "refused"), (NetworkPolicy.HOST, "connected")])
def test_a_job_reaches_the_hosts_network_only_if_it_may(
    confined_node: Node, plane: ControlPlane, network: NetworkPolicy, said: str
) -> None:
    port = str(plane.server.server_port)
    confined_node.run(a_spec("r1", script=TRY_TO_CONNECT, script_name="dial.py", arguments=(port,), network=network))
    assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]
    assert (plane.lines("r1") == ["connected"]) == (said == "connected")


def test_a_job_can_not_signal_the_nodes_processes(confined_node: Node, plane: ControlPlane) -> None:
    launcher = confined_node.daemon._launcher.pid
    confined_node.run(a_spec("r1", "/bin/sh", "-c", f"kill -9 {launcher} && echo killed"))
    plane.end_of("r1")
    confined_node.run(a_spec("r2", "/bin/true"))
    plane.end_of("r2")
    assert plane.lines("r1") == []
    assert confined_node.daemon._launcher.pid == launcher


def test_the_level_and_the_reason_for_it_are_in_the_nodes_description(
    make_node: Callable[..., Node], plane: ControlPlane
) -> None:
    make_node(Isolation.BASIC)
    description = plane.descriptions[0]
    assert description.isolation == Isolation.BASIC
    assert "clean environment" in description.isolation_detail


def test_a_level_that_can_not_be_kept_fails_the_start(make_node: Callable[..., Node], plane: ControlPlane) -> None:
    node = make_node(Isolation.NAMESPACES)
    # What the trial start used is gone: the mount of it now fails.
    (node.home.path / "etc").rename(node.home.path / "etc-gone")
    node.run(a_spec("r1", "/bin/true"))
    end = plane.end_of("r1")
    assert (end.state, end.cause) == ("failed", "start_failed")


def test_a_jobs_accounts_are_looked_up_in_files_alone(node: Node) -> None:
    switch = (node.home.path / "etc/nsswitch.conf").read_text().splitlines()
    asked = [line.split() for line in switch if line.startswith(("passwd:", "group:", "shadow:"))]
    assert asked
    assert {tuple(words[1:]) for words in asked} == {("files",)}


ASK_THE_KERNEL = """
import ctypes, errno, fcntl, json, os, platform, socket, subprocess, threading
libc = ctypes.CDLL(None, use_errno=True)
def call(*numbers):
    return "done" if libc.syscall(*numbers) >= 0 else errno.errorcode[ctypes.get_errno()]
def family(number, kind=socket.SOCK_STREAM):
    try:
        socket.socket(number, kind).close()
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
def push():
    try:
        fcntl.ioctl(0, 0x5412, b"x")
    except OSError as error:
        return errno.errorcode[error.errno]
arm = platform.machine() == "aarch64"
said = []
thread = threading.Thread(target=lambda: said.append("thread"))
thread.start()
thread.join()
print(json.dumps({
    "io_uring": call(425, 1, 0), "bpf": call(280 if arm else 321, 0, 0, 0), "keyctl": call(219 if arm else 250, 0, 0),
    "unshare": call(97 if arm else 272, 0x10000000), "perf": call(241 if arm else 298, 0, 0, 0, 0, 0),
    "clone": call(220 if arm else 56, 0x10000011, 0, 0, 0, 0), "clone3": call(435, 0, 0),
    "packet": family(17, socket.SOCK_RAW), "vsock": family(40), "unix": family(1), "internet": family(2),
    "terminal": push(), "threads": said, "programs": subprocess.run(["echo", "hello"], capture_output=True).stdout.decode(),
}))
"""


def test_calls_that_widen_what_a_job_can_reach_in_the_kernel_are_refused(
    confined_node: Node, plane: ControlPlane
) -> None:
    confined_node.run(a_spec("r1", script=ASK_THE_KERNEL, script_name="ask.py"))
    assert plane.end_of("r1").exit_code == 0, plane.logs["r1"]
    said = json.loads(plane.lines("r1")[-1])
    refused = {name for name, answer in said.items() if answer == "EPERM"}
    assert refused == {"io_uring", "bpf", "keyctl", "unshare", "perf", "clone", "terminal"}
    assert (said["clone3"], said["packet"], said["vsock"]) == ("ENOSYS", "EAFNOSUPPORT", "EAFNOSUPPORT")
    assert (said["unix"], said["internet"], said["threads"], said["programs"]) == (
        "done",
        "done",
        ["thread"],
        "hello\n",
    )
