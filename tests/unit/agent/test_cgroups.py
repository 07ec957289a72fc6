"""Control groups, on a tree of plain files: what is written where, of either version, and where there is none."""

from pathlib import Path

import pytest

from agent import cgroups
from agent.cgroups import Cgroups, Limits

LIMITS = Limits(memory_bytes=1 << 30, cpu_milli=2500)
FIRST = "\n".join(
    f"3{number} 25 0:2{number} {begins} {{root}}/{name} rw - cgroup cgroup rw,{name}"
    for number, (name, begins) in enumerate([("memory", "/box"), ("pids", "/"), ("cpu,cpuacct", "/"), ("freezer", "/")])
)
SECOND = "30 25 0:26 / {root} rw shared:9 - cgroup2 cgroup2 rw,nsdelegate"


def of_one_version(root: Path, version: int) -> Cgroups:
    names = cgroups.CONTROLLERS if version == 1 else ("",)
    return Cgroups(version, {name: str(root / (name or "all")) for name in names}, {})


def folder(root: Path, path: str, **files: str) -> Path:
    made = root / path
    made.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (made / name.replace("__", ".")).write_text(text)
    return made


def found(tmp_path: Path, mounts: str, membership: str) -> Cgroups:
    (tmp_path / "mounts").write_text(mounts.format(root=tmp_path))
    (tmp_path / "membership").write_text(membership)
    return cgroups.find("/home", str(tmp_path / "mounts"), str(tmp_path / "membership"))


@pytest.fixture
def plain_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel makes the files of a group; here they are made as they are written. That a group works is assumed."""
    monkeypatch.setattr(cgroups, "_write", lambda path, value: Path(path).write_text(str(value)))
    monkeypatch.setattr(cgroups, "_works", lambda _: True)


@pytest.mark.usefixtures("plain_files")
def test_limits_are_written_in_the_words_of_the_first_version(tmp_path: Path) -> None:
    for name in cgroups.CONTROLLERS:
        (tmp_path / name).mkdir()
    group = of_one_version(tmp_path, 1).group("r1.1")
    assert group is not None
    group.make(LIMITS)
    assert (tmp_path / "memory/r1.1/memory.limit_in_bytes").read_text() == str(1 << 30)
    assert (tmp_path / "pids/r1.1/pids.max").read_text() == str(4096 + 1280)
    assert (tmp_path / "cpu/r1.1/cpu.shares").read_text() == "2560"


@pytest.mark.usefixtures("plain_files")
def test_limits_are_written_in_the_words_of_the_second_version(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    group = of_one_version(tmp_path, 2).group("r1.1")
    assert group is not None
    group.make(LIMITS)
    written = {path.name: path.read_text() for path in (tmp_path / "all/r1.1").iterdir()}
    assert written == {"memory.max": str(1 << 30), "memory.oom.group": "1", "pids.max": "5376", "cpu.weight": "250"}


@pytest.mark.usefixtures("plain_files")
def test_who_asked_for_no_memory_has_no_limit_of_it(tmp_path: Path) -> None:
    (tmp_path / "all").mkdir()
    group = of_one_version(tmp_path, 2).group("r1.1")
    assert group is not None
    group.make(Limits(memory_bytes=0, cpu_milli=0))
    assert {path.name for path in (tmp_path / "all/r1.1").iterdir()} == {"memory.oom.group", "pids.max", "cpu.weight"}


@pytest.mark.parametrize(
    ("version", "files"),
    [
        (1, {"memory/r/memory.oom_control": "oom_kill_disable 0\noom_kill 2", "pids/r/pids.events": "max 7"}),
        (2, {"all/r/memory.events": "low 0\noom 3\noom_kill 2\noom_group_kill 1", "all/r/pids.events": "max 7"}),
    ],
)
def test_a_group_tells_what_its_limits_did(tmp_path: Path, version: int, files: dict[str, str]) -> None:
    group = of_one_version(tmp_path, version).group("r")
    assert group is not None
    assert (group.out_of_memory, group.refused, group.pids()) == (0, 0, [])
    for path, text in files.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    assert (group.out_of_memory, group.refused) == (2, 7)


@pytest.mark.usefixtures("plain_files")
def test_of_the_first_version_groups_lie_below_our_own(tmp_path: Path) -> None:
    for path in ("memory/ours", "pids/ours", "cpu,cpuacct/ours"):
        folder(tmp_path, path)
    here = found(tmp_path, FIRST, "4:memory:/box/ours\n3:pids:/ours\n2:cpu,cpuacct:/ours\n1:name=systemd:/\n0::/")
    assert here.version == 1
    assert here.origins == {
        "memory": f"{tmp_path}/memory/ours", "pids": f"{tmp_path}/pids/ours", "cpu": f"{tmp_path}/cpu,cpuacct/ours",
    }  # fmt: skip
    assert {Path(path).parent.as_posix() for path in here.folders.values()} == set(here.origins.values())


@pytest.mark.usefixtures("plain_files")
def test_of_the_second_version_they_lie_beside_our_own_in_a_subtree_that_is_ours(tmp_path: Path) -> None:
    files = {"cgroup__controllers": "cpuset cpu io memory pids", "cgroup__procs": ""}
    above = folder(tmp_path, "system.slice/trellis.service", **files)
    folder(above, "agent")
    here = found(tmp_path, SECOND, "0::/system.slice/trellis.service/agent")
    assert (here.version, here.origins) == (2, {"": str(above / "agent")})
    assert Path(here.folders[""]).parent == above
    assert (above / "cgroup.subtree_control").read_text() == "+memory +pids +cpu"


@pytest.mark.usefixtures("plain_files")
@pytest.mark.parametrize(
    ("controllers", "others"), [("cpu memory pids", "4711"), ("cpu pids", "")], ids=["others are there", "no memory"]
)
def test_a_subtree_that_can_hand_on_nothing_is_left_alone(tmp_path: Path, controllers: str, others: str) -> None:
    above = folder(tmp_path, "user", cgroup__controllers=controllers, cgroup__procs=others)
    folder(above, "agent")
    assert found(tmp_path, SECOND, "0::/user/agent") == Cgroups()
    assert not (above / "cgroup.subtree_control").exists()


def test_without_control_groups_there_is_no_group(tmp_path: Path) -> None:
    here = found(tmp_path, "22 1 0:5 / /proc rw - proc proc rw", "0::/")
    assert here == Cgroups()
    assert here.group("r1.1") is None


@pytest.mark.usefixtures("plain_files")
@pytest.mark.parametrize("version", [1, 2])
def test_groups_that_nothing_is_known_of_are_killed_and_the_others_are_not(
    tmp_path: Path, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed: list[str] = []
    monkeypatch.setattr(cgroups.Group, "kill", lambda group: killed.extend(group._paths.values()))
    monkeypatch.setattr(cgroups.Group, "remove", lambda group: None)
    groups = of_one_version(tmp_path, version)
    for where in groups.folders.values():
        for name in ("r1.1", "r2.7"):
            (Path(where) / name).mkdir(parents=True)
    assert groups.reap(["r1.1", "r9.1"]) == ["r2.7"]
    assert sorted(killed) == sorted(f"{where}/r2.7" for where in groups.folders.values())
    assert Cgroups().reap([]) == []
