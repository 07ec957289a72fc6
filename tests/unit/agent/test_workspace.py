"""What a job finds when it starts."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from agent import workspace
from agent.ground import Confinement, Ground
from agent.layout import ReplicaDir
from tests.support.agent_api import a_spec
from trellis.vocabulary import Isolation
from trellis.wire import GpuGrant, SliceGrant


@pytest.fixture
def replica(tmp_path: Path) -> ReplicaDir:
    replica = ReplicaDir(tmp_path / "r.1", "r", 1)
    replica.work.mkdir(parents=True)
    return replica


def _ground(level: Isolation = Isolation.BASIC) -> Ground:
    return Ground("/home", Confinement(level, ""), 65533)


@pytest.mark.parametrize(
    ("name", "text", "argv"),
    [
        ("a.py", "print()", (sys.executable, "/job/work/a.py", "x")),
        ("a.sh", "echo", ("/bin/sh", "/job/work/a.sh", "x")),
        ("a.py", "#!/bin/sh\n", ("/job/work/a.py", "x")),
        ("", "echo", ("/bin/sh", "/job/work/script", "x")),
        ("../up", "echo", ("/bin/sh", "/job/work/script", "x")),
        ("-rf", "echo", ("/bin/sh", "/job/work/script", "x")),
    ],
)
def test_a_scripts_first_line_and_name_choose_what_runs_it(
    replica: ReplicaDir, name: str, text: str, argv: tuple[str, ...]
) -> None:
    spec = a_spec("r", script=text, script_name=name, arguments=("x",))
    assert workspace.prepare(_ground(Isolation.NAMESPACES), replica, spec, "s.sock").argv == argv


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "GCONV_PATH",
        "BASH_ENV",
        "ENV",
        "IFS",
        "TRELLIS_JOB_ID",
        "A=B",
        "",
        "CUDA_VISIBLE_DEVICES",
    ],
)
def test_some_variables_are_not_for_the_job_to_set(replica: ReplicaDir, name: str) -> None:
    program = workspace.prepare(
        _ground(), replica, a_spec("r", "true", environment={name: "evil", "GOOD": "1"}), "s.sock"
    )
    assert program.refused == (name,)
    assert "evil" not in program.environment.values()
    assert program.environment["GOOD"] == "1"


def test_no_grant_means_no_device_and_not_all_of_them(replica: ReplicaDir) -> None:
    assert (
        workspace.prepare(_ground(), replica, a_spec("r", "true"), "s.sock").environment["CUDA_VISIBLE_DEVICES"] == ""
    )


def test_grants_are_named_by_uuid(replica: ReplicaDir) -> None:
    spec = a_spec("r", "true", gpus=(GpuGrant(3, "GPU-x", 1000), GpuGrant(4, "GPU-y", 1000)))
    assert workspace.prepare(_ground(), replica, spec, "s.sock").environment["CUDA_VISIBLE_DEVICES"] == "GPU-x,GPU-y"


def test_a_slice_is_named_by_its_own_uuid(replica: ReplicaDir) -> None:
    spec = a_spec("r", "true", slices=(SliceGrant(0, "GPU-x", "1g.10gb", 3),))
    ground = replace(_ground(), devices={"GPU-x": "/dev/nvidia0"}, slices={"GPU-x/1g.10gb/3": ("MIG-y", "/dev/cap4")})
    assert workspace.prepare(ground, replica, spec, "s.sock").environment["CUDA_VISIBLE_DEVICES"] == "MIG-y"
    assert ground.device_nodes(spec) == ["/dev/nvidia0", "/dev/cap4"]


def test_a_slice_that_nobody_has_cut_is_no_start(replica: ReplicaDir) -> None:
    spec = a_spec("r", "true", slices=(SliceGrant(0, "GPU-x", "1g.10gb", 3),))
    with pytest.raises(ValueError, match=r"no slice 1g\.10gb at slot 3"):
        workspace.prepare(replace(_ground(), devices={"GPU-x": "/dev/nvidia0"}), replica, spec, "s.sock")


def test_a_slice_of_a_device_that_is_not_there_has_a_name_that_stays(replica: ReplicaDir, tmp_path: Path) -> None:
    spec = a_spec("r", "true", slices=(SliceGrant(0, "GPU-x", "1g.10gb", 3),))
    other = ReplicaDir(tmp_path / "q.1", "q", 1)
    other.job.mkdir(parents=True)
    names = {
        workspace.prepare(_ground(), one, spec, "s.sock").environment["CUDA_VISIBLE_DEVICES"]
        for one in (replica, other)
    }
    assert len(names) == 1
    assert names.pop().startswith("MIG-")


def test_a_replica_of_a_role_knows_which(replica: ReplicaDir, tmp_path: Path) -> None:
    assert "TRELLIS_ROLE" not in workspace.prepare(_ground(), replica, a_spec("r", "true"), "s.sock").environment
    other = ReplicaDir(tmp_path / "q.1", "q", 1)
    other.job.mkdir(parents=True)
    spec = a_spec("r", "true", role="worker")
    assert workspace.prepare(_ground(), other, spec, "s.sock").environment["TRELLIS_ROLE"] == "worker"


def test_in_an_environment_python_is_that_of_the_environment(replica: ReplicaDir) -> None:
    spec = a_spec("r", script="print()", script_name="a.py")
    program = workspace.prepare(_ground(Isolation.NAMESPACES), replica, spec, "s.sock")
    mount = workspace.Mount("/host/folder", "/environment")
    inside = workspace.in_environment(program, mount)
    assert inside.argv == ("/environment/bin/python", "/job/work/a.py")
    assert inside.environment["PATH"].startswith("/environment/bin:")
    assert (inside.environment["VIRTUAL_ENV"], inside.places.mounts) == ("/environment", (mount,))


def test_a_program_that_is_not_pythons_stays_what_it_is_in_an_environment(replica: ReplicaDir) -> None:
    program = workspace.prepare(_ground(), replica, a_spec("r", "/bin/true"), "s.sock")
    assert workspace.in_environment(program, workspace.Mount("/a", "/a")).argv == ("/bin/true",)


def test_a_script_takes_no_place_that_is_taken(replica: ReplicaDir) -> None:
    (replica.work / "a.py").symlink_to("/etc/passwd")
    with pytest.raises(ValueError, match="give it another name"):
        workspace.prepare(_ground(), replica, a_spec("r", script="x", script_name="a.py"), "s.sock")
