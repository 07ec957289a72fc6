"""Containers, as far as no engine is needed: what one is told, and what is made of what it says."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import bubblewrap, processes
from agent.cgroups import Limits
from agent.containers import site
from agent.containers.body import body, name_of
from agent.containers.enclosure import Enclosure
from agent.containers.image import split
from agent.containers.site import Site
from agent.executors.base import Start
from agent.executors.container import Contained, ContainerExecutor
from agent.ground import Confinement, Ground
from agent.layout import Home
from agent.output import Limits as LogLimits
from agent.output import OutputLog, ResumedLog
from agent.redaction import Redactor
from agent.sampling import consumed_by
from agent.workspace import prepare
from tests.support.agent_api import a_spec
from trellis.vocabulary import Isolation, NetworkPolicy
from trellis.wire import Container, GpuGrant, ReplicaSpec, SliceGrant

SITE = Site("/engine.sock", user=4711)
IMAGE = Container("tool:1")
SLICE = "GPU-b/1g.10gb/2"
GOOD = {"SecurityOptions": ["name=seccomp,profile=default"], "InitBinary": "docker-init", "Rootless": False}


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    home = Home(tmp_path)
    home.create()
    devices = {"GPU-a": "/dev/nvidia0", "GPU-b": "/dev/nvidia1", "GPU-c": "/dev/nvidia2"}
    slices: dict[str, tuple[str, ...]] = {SLICE: ("MIG-1", "/dev/nvidia-caps/nvidia-cap3")}
    return Ground(str(tmp_path), Confinement(Isolation.BASIC, "why"), 4711, devices=devices, slices=slices, site=SITE)


def told(
    ground: Ground, wanted: Container = IMAGE, at: Site = SITE, parent: str = "", **changes: Any
) -> dict[str, Any]:
    spec: ReplicaSpec = a_spec("r1", "train", "--fast", container=wanted, **changes)
    replica = ground.home.replica("r1", 1)
    start = Start(ground, replica, spec, prepare(ground, replica, spec, "socket"), 1, 2)
    assert name_of(start) == "trellis-r1.1"
    return body(start, at, wanted, parent)


def test_what_keeps_a_job_in_is_always_said(ground: Ground) -> None:
    said = told(ground)
    host = said["HostConfig"]
    assert said["User"] == "4711:4711"
    assert (said["Entrypoint"], said["Cmd"]) == (["train", "--fast"], [])
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert (host["Privileged"], host["ReadonlyRootfs"], host["Init"]) == (False, True, True)
    assert host["NetworkMode"] == "none"
    assert not host.keys() & {"CapAdd", "Devices", "DeviceRequests", "Binds", "VolumesFrom", "UsernsMode"}


def test_the_host_shows_it_its_own_folder_its_tmp_and_the_library(ground: Ground) -> None:
    mounts = told(ground)["HostConfig"]["Mounts"]
    assert [(one["Target"], one["ReadOnly"]) for one in mounts] == [
        ("/job", False), ("/tmp", False), ("/opt/trellis/trellis", True),
    ]  # fmt: skip
    job = ground.home.replica("r1", 1).job
    assert [one["Source"] for one in mounts[:2]] == [str(job), str(job / "tmp")]
    assert {one["Type"] for one in mounts} == {"bind"}


def test_a_node_adds_its_own_labels_and_a_job_may_ask_for_the_hosts_network(ground: Ground) -> None:
    at = replace(SITE, options=("apparmor=jobs", "label=type:job_t"))
    host = told(ground, replace(IMAGE, read_only_root=False), at, network=NetworkPolicy.HOST)["HostConfig"]
    assert host["SecurityOpt"] == ["no-new-privileges", "apparmor=jobs", "label=type:job_t"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"]) == ("host", False)


def test_the_memory_limit_is_set_in_one_place(ground: Ground) -> None:
    alone = told(ground, memory_bytes=1 << 30)["HostConfig"]
    assert (alone["Memory"], alone["MemorySwap"], alone["PidsLimit"]) == (1 << 30, 1 << 30, 4608)
    within = told(ground, parent="/ours/r1.1", memory_bytes=1 << 30)["HostConfig"]
    assert within["CgroupParent"] == "/ours/r1.1"
    assert "Memory" not in within


def test_a_job_gets_its_own_devices_and_no_others(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.view._NVIDIA", ("/dev/null",))  # for those that all share, which this machine may lack
    grants = (GpuGrant(1, "GPU-b", 1000),)
    nodes = [one["PathOnHost"] for one in told(ground, gpus=grants)["HostConfig"]["Devices"]]
    assert nodes == ["/dev/nvidia1", "/dev/null"]
    asked = told(ground, at=replace(SITE, hands_out_gpus=True), gpus=grants)
    assert asked["HostConfig"]["DeviceRequests"][0]["DeviceIDs"] == ["GPU-b"]
    assert "Devices" not in asked["HostConfig"]
    assert {"CUDA_VISIBLE_DEVICES=GPU-b", "NVIDIA_VISIBLE_DEVICES=GPU-b"} <= set(asked["Env"])


def test_a_process_too_gets_its_own_devices_and_no_others(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.view._NVIDIA", ("/dev/null",))
    spec, replica = a_spec("r1", "train", gpus=(GpuGrant(1, "GPU-b", 1000),)), ground.home.replica("r1", 1)
    options, _ = bubblewrap.arguments(ground, replica, spec, prepare(ground, replica, spec, "socket"))
    bound = [options[number + 1] for number, word in enumerate(options) if word == "--dev-bind"]
    assert bound == ["/dev/nvidia1", "/dev/null"]
    none, _ = bubblewrap.arguments(ground, replica, replace(spec, gpus=()), prepare(ground, replica, spec, "socket"))
    assert "--dev-bind" not in none


def test_a_slice_is_named_as_a_slice(ground: Ground) -> None:
    slices = (SliceGrant(1, "GPU-b", "1g.10gb", 2),)
    asked = told(ground, at=replace(SITE, hands_out_gpus=True), slices=slices)
    assert asked["HostConfig"]["DeviceRequests"][0]["DeviceIDs"] == ["MIG-1"]
    nodes = [one["PathOnHost"] for one in told(ground, slices=slices)["HostConfig"]["Devices"]]
    assert nodes[:2] == ["/dev/nvidia1", "/dev/nvidia-caps/nvidia-cap3"]


def test_the_path_is_the_images_and_the_library_can_be_imported(ground: Ground) -> None:
    said = dict(line.split("=", 1) for line in told(ground, environment={"PYTHONPATH": "/mine"})["Env"])
    assert "PATH" not in said
    assert said["PYTHONPATH"] == "/mine:/opt/trellis"
    assert said["NVIDIA_VISIBLE_DEVICES"] == "void"
    assert said["HOME"] == "/job/work"


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("python", ("python", "latest")),
        ("python:3.12", ("python", "3.12")),
        ("registry:5000/a/b", ("registry:5000/a/b", "latest")),
        ("registry:5000/a/b:1", ("registry:5000/a/b", "1")),
        ("a/b@sha256:12", ("a/b", "sha256:12")),
        ("registry:5000/a/b:1@sha256:12", ("registry:5000/a/b", "sha256:12")),
    ],
)
def test_a_reference_is_a_name_and_a_tag_or_a_digest(reference: str, parts: tuple[str, str]) -> None:
    assert split(reference) == parts


@pytest.mark.parametrize(
    ("changes", "user", "words"),
    [
        ({}, 4711, ""),
        ({"Rootless": True}, 4711, "without root"),
        ({"SecurityOptions": ["name=seccomp", "name=rootless"]}, 4711, "without root"),
        ({"SecurityOptions": ["name=seccomp", "name=userns"]}, 4711, "maps users"),
        ({"SecurityOptions": ["name=apparmor"]}, 4711, "filters no system calls"),
        ({"SecurityOptions": None}, 4711, "filters no system calls"),
        ({}, 0, "jobs would be root"),
    ],
)
def test_an_engine_that_can_not_keep_jobs_in_will_not_do(changes: dict[str, Any], user: int, words: str) -> None:
    fault = site._fault(GOOD | changes, user)
    assert words in fault
    assert bool(words) == bool(fault)


def test_control_groups_that_are_not_mounted_whole_are_not_used(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    memory = tmp_path / "memory"
    memory.mkdir()
    whole.write_text(f"30 23 0:26 / {memory} rw - cgroup cgroup rw,memory\n31 23 0:27 / /proc rw - proc proc rw\n")
    part.write_text(f"30 23 0:26 /docker/1 {memory} rw - cgroup cgroup rw,memory\n")
    assert site._hierarchies(str(whole)) == {"memory": str(memory)}
    assert site._hierarchies(str(part)) == {}


def test_a_group_of_version_2_is_told_its_limit_and_asked_what_was_used(tmp_path: Path) -> None:
    enclosure = Enclosure({"": str(tmp_path)}, "/ours/r1.1")
    for name in (
        "cgroup.subtree_control",
        "ours/cgroup.subtree_control",
        "ours/r1.1/memory.oom.group",
        "ours/r1.1/memory.max",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    enclosure.make(Limits(1 << 30, 1000))
    folder = tmp_path / "ours/r1.1"
    assert (folder / "memory.max").read_text() == str(1 << 30)
    assert (folder / "memory.oom.group").read_text() == "1"
    (folder / "cpu.stat").write_text("usage_usec 2500000\nuser_usec 1\n")
    (folder / "memory.peak").write_text("77\n")
    (folder / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert (enclosure.cpu_s, enclosure.peak_bytes, enclosure.pressed, enclosure.out_of_memory) == (2.5, 77, True, True)


def test_a_log_that_is_gone_on_with_leaves_out_what_it_has(tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    first = OutputLog(path)
    first.write("o", b"one\ntwo\n")
    first.say("of the platform")
    first.write("e", b"fault\n")
    first.close()
    again = ResumedLog(path, Redactor())
    again.write("o", b"one\n")
    again.write("o", b"two\nthree\r\n\n")
    again.write("e", b"fault\nanother\n")
    again.close()
    said = [line.split(" ", 2)[1:] for line in path.read_bytes().decode().split("\n")[:-1]]
    assert said == [
        ["o", "one"], ["o", "two"], ["s", "of the platform"], ["e", "fault"], ["o", "three\r"], ["o", ""], ["e", "another"],
    ]  # fmt: skip


def test_a_log_that_is_gone_on_with_knows_of_the_lines_that_were_cut_out_of_it(tmp_path: Path) -> None:
    path = tmp_path / "output.log"
    first = OutputLog(path, LogLimits(burst=60, per_s=1, last=8), now=lambda: 0.0)
    lines = [b"%03d\n" % number for number in range(10)]
    for line in lines:
        first.write("o", line)
    first.rejoin()
    first.close()
    again = ResumedLog(path, Redactor())
    for line in (*lines, b"010\n"):
        again.write("o", line)
    again.close()
    said = [line.split(" ", 2) for line in path.read_text().splitlines()]
    assert [text for _, mark, text in said if mark == "o"] == ["000", "001", "008", "009", "010"]


def test_cpu_of_those_that_live_counts_once_where_the_engine_makes_the_groups() -> None:
    with subprocess.Popen([sys.executable, "-c", "sum(range(20_000_000)); print(flush=True); input()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # fmt: skip
        assert child.stdout is not None
        child.stdout.readline()
        contained = Contained(os.getpid(), born=processes.started_at(os.getpid()))
        used_s = ContainerExecutor().usage(contained).cpu_s
        assert used_s > 0.1
        # What is measured of it adds those that live to those that ended.
        measured = consumed_by(ContainerExecutor().members(contained), contained.cpu_s).cpu_s
        assert used_s <= measured < used_s * 1.5
        child.communicate(b"\n")
