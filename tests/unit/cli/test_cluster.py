"""What a cluster.yaml says, and what is said of one that says nothing."""

from pathlib import Path

import pytest

from agent.profiles import GIB, describe_gpus, find
from app.cli.cluster import Machine, alike, read_cluster, read_profile
from app.cli.errors import StackError
from app.cli.scenarios import read_nodes
from scheduler.simulator.workload import Load, draw_workload
from trellis.settings import SettingsError

LAB = """
clusters:
  - name: lab
    nodes:
      - {name: gpu-1, gpus: 8, gpu_type: H100, gpu_memory_gb: 80, cpu_cores: 96, memory_gb: 2048}
      - {name: cpu, count: 2, cpu_cores: 32, memory_gb: 128}
  - name: edge
    nodes:
      - name: here
"""


def read(tmp_path: Path, text: str) -> tuple[Machine, ...]:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    return read_cluster(path)


def test_every_node_of_every_cluster_is_named_with_what_it_is(tmp_path: Path) -> None:
    assert read(tmp_path, LAB) == (
        Machine("gpu-1", "gpu_type=H100,gpus=8,cpu_cores=96,memory_gb=2048,gpu_memory_gb=80"),
        Machine("cpu-1", "cpu_cores=32,memory_gb=128"),
        Machine("cpu-2", "cpu_cores=32,memory_gb=128"),
        Machine("here", ""),
    )


def test_a_node_understands_what_it_is_told_to_be(tmp_path: Path) -> None:
    gpu, cpu, *_ = read(tmp_path, LAB)
    profile = find(gpu.profile)
    assert profile is not None
    assert (profile.gpus, profile.model, profile.gpu_memory_bytes) == (8, "H100", 80 * GIB)
    assert (profile.cpus, profile.memory_bytes) == (96, 2048 * GIB)
    assert [device.index for device in describe_gpus(profile, gpu.name)] == list(range(8))
    plain = find(cpu.profile)
    assert plain is not None
    assert (plain.gpus, plain.cpus) == (0, 32)
    assert find("") is None


def test_what_is_said_to_the_server_alone_is_no_part_of_what_a_node_claims(tmp_path: Path) -> None:
    traits = "labels: {a: b}, taints: [{key: x}], domains: {zone: n}, pool: p, spot: true, usd_per_hour: 1, caches: []"
    text = f"levels: [zone]\npools: [{{name: p}}]\nclusters: [{{pool: p, nodes: [{{name: a, {traits}}}]}}]"
    assert read(tmp_path, text) == (Machine("a"),)


def test_nodes_that_are_alike_are_numbered() -> None:
    assert alike(2, "h100x8") == (Machine("node-1", "h100x8"), Machine("node-2", "h100x8"))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must hold a list `clusters`"),
        ("clusters: []", "must hold a list `clusters`"),
        ("clusters: [{name: a}]", r"clusters\[0\] must hold a list `nodes`"),
        ("clusters: [{nodes: [{name: A_B}]}]", r"clusters\[0\].nodes\[0\].name"),
        ("clusters: [{nodes: [{name: a, gpus: -1}]}]", "gpus must be a whole number"),
        ("clusters: [{nodes: [{name: a, gpus: true}]}]", "gpus must be a whole number"),
        ("clusters: [{nodes: [{name: a, gpus: 1.5}]}]", "gpus must be a whole number"),
        ("clusters: [{nodes: [{name: a, memory_gb: 9999999}]}]", "memory_gb must be a whole number"),
        ("clusters: [{nodes: [{name: a, gpus: 1}]}]", "both gpus and gpu_type"),
        ("clusters: [{nodes: [{name: a, gpus: 1, gpu_type: 'x,gpus=9'}]}]", "gpu_type must be a name"),
        (
            "clusters: [{nodes: [{name: a, gpus: 1, gpu_type: H100, partitioned: 2}]}]",
            r"nodes\[0\].partitioned must be at most its gpus",
        ),
        ("clusters: [{nodes: [{name: a, colour: red}]}]", "colour is not known"),
        ("clusters: [{nodes: [{name: a}, {name: a}]}]", "names the node a twice"),
        ("clusters: [{nodes: [{name: a, count: 64}, {name: b}]}]", "65 nodes"),
        ("clusters: [", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
    ],
)
def test_a_file_that_makes_no_sense_gets_a_sentence(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(StackError, match=says):
        read(tmp_path, text)


def test_a_file_that_is_not_there_gets_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StackError, match="can't be read"):
        read_cluster(tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["h900x8", "gpus=8,colour=red", "gpus=eight", "gpus=-1", "cpu_cores=1e3"])
def test_a_profile_that_is_none_gets_a_sentence(text: str) -> None:
    with pytest.raises(SettingsError, match="profile"):
        find(text)


def test_all_who_read_a_cluster_know_what_of_it_is_given_in_slices(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(
        "clusters: [{nodes: [{name: a, gpus: 4, gpu_type: H100, cpu_cores: 8, partitioned: 1, gpus_a_link: 2}]}]"
    )
    (machine,) = read_cluster(file)
    (group,) = read_profile(file).nodes
    for claims in (machine.profile, group.profile):
        profile = find(claims)
        assert profile is not None
        devices = describe_gpus(profile, "a")
        assert [device.partitioned for device in devices] == [False, False, False, True]
        assert [device.links for device in devices] == [(1,), (0,), (3,), (2,)]
    (simulated,) = read_nodes(file)
    assert (simulated.partitioned, simulated.gpu_milli_free) == ((3,), (1000, 1000, 1000, 0))
    sizes = {
        work.job_class.roles[0].request.gpu_milli
        for work in draw_workload(Load(sizes=((3, 1.0),)), [simulated], 1).works
    }
    assert sizes == {3000}
    with pytest.raises(ValueError, match="4 is more than the cluster has"):
        draw_workload(Load(sizes=((4, 1.0),)), [simulated], 1)


def test_a_profile_names_nodes_by_the_thousand_and_how_their_jobs_are_played(tmp_path: Path) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(
        "clusters: [{nodes: [{name: dgx, count: 1000, gpus: 8, gpu_type: H100, rack_of: 16}]}]\nsimulation: {speed: 60}\n"
    )
    plan = read_profile(file)
    assert [(len(group.names), group.names[-1], group.profile) for group in plan.nodes] == [
        (1000, "dgx-1000", "gpu_type=H100,cpu_cores=32,memory_gb=128,gpus=8")
    ]
    assert plan.simulation.speed == 60


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "clusters:\n- nodes:\n  - {name: a}\n  - name: b\n    gpus: many\n",
            r"line 5: clusters\[0\].nodes\[1\].gpus must",
        ),
        (
            "clusters:\n- nodes: [{name: a}]\nsimulation:\n  jobs:\n  - {name: x, run_time: soon}\n",
            "line 5: simulation.jobs",
        ),
        ("clusters:\n- nodes: [{name: a}]\nsimulation:\n  speed: fast\n", "line 4: simulation.speed must be a number"),
        ("clusters:\n- nodes: [{name: a, labels: [b]}]\n", "line 2: .*labels must be a mapping"),
        ("clusters:\n- nodes: [{name: a, taints: [b]}]\n", "line 2: .*taints must be a list"),
    ],
)
def test_a_fault_is_named_by_line_and_field(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "profile.yaml"
    file.write_text(text)
    with pytest.raises(StackError, match=says):
        read_profile(file)
