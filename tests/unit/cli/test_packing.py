import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from app.cli.errors import StackError
from app.cli.packing import Packing
from app.cli.simulate import run
from scheduler.config import Config

NODES = "sn,cpu_milli,memory_mib,gpu,model\nn0,64000,262144,2,P100\nn1,96000,262144,8,G2\n"
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli\np0,1000,1024,1,500\np1,1000,1024,8,1000\n"


@pytest.fixture
def lists(tmp_path: Path) -> tuple[Path, Path]:
    nodes, pods = tmp_path / "nodes.csv", tmp_path / "pods.csv"
    nodes.write_text(NODES)
    pods.write_text(PODS)
    return nodes, pods


def simulate(*arguments: object) -> Result:
    app = typer.Typer()
    app.command()(run)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_one_object_tells_the_mean_and_every_run(lists: tuple[Path, Path]) -> None:
    nodes, pods = lists
    result = simulate("--openb-nodes", nodes, "--openb-pods", pods, "--load", 0.9, "--seeds", 3, "--json")
    answer = json.loads(result.stdout)
    allocated = answer["allocated_percent"]
    assert len(allocated["per_seed"]) == 3
    assert allocated["mean"] == round(sum(allocated["per_seed"]) / 3, 3)
    assert (answer["mode"], answer["load"], answer["seeds"]) == ("arrivals", 0.9, 3)


def test_a_queue_is_planned_for_and_told_as_a_table(lists: tuple[Path, Path]) -> None:
    nodes, pods = lists
    result = simulate("--openb-nodes", nodes, "--openb-pods", pods, "--load", 0.9, "--seeds", 2, "--queue-visible")
    rows = {line.rsplit(maxsplit=1)[0].strip(): line.rsplit(maxsplit=1)[-1] for line in result.stdout.splitlines()}
    assert rows["mode"] == "queue"
    assert any("allocated" in row for row in rows)


@pytest.mark.parametrize("missing", [0, 1])
def test_one_list_alone_is_refused(lists: tuple[Path, Path], missing: int) -> None:
    names = ("--openb-nodes", "--openb-pods")
    result = simulate(names[1 - missing], lists[1 - missing])
    assert result.exit_code == 1
    assert "--openb-nodes FILE and --openb-pods FILE go together" in result.stderr


@pytest.mark.parametrize(
    ("nodes", "pods", "message"),
    [
        (NODES, "name\n", "is no list that can be read: line 1: there is no column 'cpu_milli'"),
        ("sn,cpu_milli,memory_mib,gpu,model\nn0,1,1,0,\n", PODS, "lists no node with a GPU"),
        (NODES, PODS.splitlines()[0], "lists no pod that asks for a GPU"),
    ],
)
def test_what_cannot_be_packed_is_told_in_a_sentence(tmp_path: Path, nodes: str, pods: str, message: str) -> None:
    first, second = tmp_path / "nodes.csv", tmp_path / "pods.csv"
    first.write_text(nodes)
    second.write_text(pods)
    with pytest.raises(StackError, match=message):
        Packing(first, second, 1.3, 1, queue_visible=False, config=Config()).run(quiet=True)
    with pytest.raises(StackError, match="cannot be read: No such file"):
        Packing(tmp_path / "none", second, 1.3, 1, queue_visible=False, config=Config()).run(quiet=True)
