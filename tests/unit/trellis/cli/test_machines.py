"""What operators type about nodes."""

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.command_line import CommandLine
from tests.support.fake_api import problem, reply
from trellis.cli import machines

NODES: list[dict[str, Any]] = [
    {
        "id": "n1", "name": "gpu-1", "state": "ready", "version": 3, "labels": {"disk": "nvme", "old": "yes"},
        "domains": {"zone": "north"}, "pool": "research", "spot": True, "usd_per_hour": 12.5,
        "taints": [{"key": "drivers", "value": "beta", "effect": "refuse"}, {"key": "x", "value": "", "effect": "avoid"}],
    },
    {"id": "n2", "name": "cpu-1", "state": "cordoned"},
]  # fmt: skip


ID = "0198f3c2-7a51-72f2-b24c-ac404b621d72"


@pytest.fixture
def nodes(cli: CommandLine) -> CommandLine:
    def listed(request: httpx.Request) -> httpx.Response:
        name = request.url.params.get("name")
        return reply({"items": [node for node in NODES if name in (None, node["name"])]})

    cli.api.on("GET", "/resources/nodes", listed)
    return cli


def test_a_cluster_file_is_sent_as_it_is(cli: CommandLine) -> None:
    applied = {"pools": ["all"], "nodes": ["gpu-1"], "missing": ["late"]}
    cli.api.on("PUT", "/resources/cluster", reply(applied))
    Path("cluster.yaml").write_text("levels: [zone]\nclusters: [{nodes: [{name: gpu-1}]}]\n")
    done = cli.run("cluster", "apply", "-f", "cluster.yaml")
    assert done.stdout == "Pools changed: all. Nodes changed: gpu-1.\n"
    assert "late" in done.stderr
    assert cli.api.bodies("PUT", "/resources/cluster") == [
        {"levels": ["zone"], "clusters": [{"nodes": [{"name": "gpu-1"}]}]}
    ]
    assert json.loads(cli.run("cluster", "apply", "-f", "cluster.yaml", "--json").stdout) == applied


@pytest.mark.parametrize("text", ["- a\n", "a: [", "!!python/object/apply:os.system ['true']", None])
def test_a_file_that_is_none_is_refused_before_anything_is_asked(cli: CommandLine, text: str | None) -> None:
    if text is not None:
        Path("cluster.yaml").write_text(text)
    done = cli.run("cluster", "apply", "-f", "cluster.yaml")
    assert (done.exit_code, cli.api.asked) == (2, [])
    assert "cluster.yaml" in done.stderr


def test_what_the_server_finds_wrong_is_told_by_its_place(cli: CommandLine) -> None:
    errors = [{"pointer": "/clusters/0/nodes/0/pool", "message": "there is no pool x"}]
    cli.api.on("PUT", "/resources/cluster", problem(422, "invalid", "", errors=errors))
    Path("cluster.yaml").write_text("clusters: []\n")
    done = cli.run("cluster", "apply", "-f", "cluster.yaml")
    assert (done.exit_code, done.stderr) == (2, "trellis: clusters.0.nodes.0.pool there is no pool x\n")


def test_what_is_said_of_a_node_is_added_to_what_was_known(nodes: CommandLine) -> None:
    nodes.api.on("PATCH", "/resources/nodes/n1", reply(NODES[0]))
    words = ["--label", "old=", "--label", "site=lab", "--domain", "rack=r1", "--taint", "a=b:avoid", "--taint", "c"]
    assert nodes.run("node-set", "gpu-1", *words, "--no-spot", "--pool", "").stdout == "Node gpu-1 is changed.\n"
    assert nodes.api.bodies("PATCH", "/resources/nodes/n1") == [
        {
            "labels": {"disk": "nvme", "site": "lab"},
            "domains": {"zone": "north", "rack": "r1"},
            "taints": [
                {"key": "a", "value": "b", "effect": "avoid"},
                {"key": "c", "value": "", "effect": "refuse"},
            ],
            "spot": False,
            "pool": "",
        }
    ]
    assert nodes.api.asked[-1].headers["If-Match"] == '"3"'
    nodes.run("node-set", "gpu-1", "--taint", "none")
    assert nodes.api.bodies("PATCH", "/resources/nodes/n1")[-1] == {"taints": []}


def test_a_taint_that_is_none_is_refused(nodes: CommandLine) -> None:
    done = nodes.run("node-set", "gpu-1", "--taint", "a=b:kill")
    assert (done.exit_code, "taint" in done.stderr) == (2, True)


def test_a_node_is_cordoned_by_its_name(nodes: CommandLine) -> None:
    nodes.api.on("PUT", "/resources/nodes/n1/cordon", reply(NODES[0])).on(
        "PUT", "/resources/nodes/n2/uncordon", reply(NODES[1])
    )
    assert "takes nothing new" in nodes.run("cordon", "gpu-1", "--reason", "fans").stdout
    assert nodes.api.bodies("PUT", "/resources/nodes/n1/cordon") == [{"reason": "fans"}]
    assert "takes work again" in nodes.run("uncordon", "cpu-1").stdout
    assert "no node called" in nodes.run("cordon", "nothing").stderr


def test_a_node_is_found_without_listing_all(nodes: CommandLine) -> None:
    nodes.api.on("PUT", "/resources/nodes/n1/cordon", reply(NODES[0]))
    nodes.run("cordon", "gpu-1")
    assert [dict(asked.url.params) for asked in nodes.api.asked if asked.method == "GET"] == [{"name": "gpu-1"}]


def test_a_node_is_found_by_its_id(nodes: CommandLine) -> None:
    found = {**NODES[1], "id": ID}
    nodes.api.on("GET", f"/resources/nodes/{ID}", reply(found)).on("PUT", f"/resources/nodes/{ID}/cordon", reply(found))
    assert "cpu-1 takes nothing new" in nodes.run("cordon", ID.upper()).stdout


def test_traits_are_listed_one_node_a_line(nodes: CommandLine) -> None:
    lines = nodes.run("nodes", "--traits", "--pool", "research").stdout.splitlines()
    for part in ("gpu-1", "research", "zone=north", "drivers=beta, x (rather not)", "12.5 spot", "disk=nvme"):
        assert part in lines[1]
    assert nodes.api.asked[0].url.params["pool"] == "research"


def test_maintenance_is_planned_for_a_window(cli: CommandLine) -> None:
    made = {"id": "r1", "starts_at": "2026-01-31T08:00:00+00:00", "ends_at": "2026-01-31T12:00:00+00:00"}
    cli.api.on("POST", "/resources/maintenance", reply(made, 201))
    done = cli.run("maintenance", "gpu-1", "gpu-2", "--ends", "2026-01-31T12:00", "--name", "fans")
    assert done.stdout.startswith("Maintenance r1 from")
    (body,) = cli.api.bodies("POST", "/resources/maintenance")
    assert (body["nodes"], body["name"], "starts_at" in body) == (["gpu-1", "gpu-2"], "fans", False)
    assert cli.run("maintenance", "gpu-1", "--ends", "soon").exit_code == 2


def test_times_of_a_file_are_sent_as_text(cli: CommandLine) -> None:
    cli.api.on("PUT", "/resources/cluster", reply({}))
    window = "{nodes: [gpu-1], starts_at: 2026-01-31T08:00:00Z, ends_at: 2026-01-31 12:00:00+00:00}"
    Path("cluster.yaml").write_text(f"maintenance: [{window}]\n")
    assert cli.run("cluster", "apply", "-f", "cluster.yaml").exit_code == 0
    (body,) = cli.api.bodies("PUT", "/resources/cluster")
    assert body["maintenance"] == [
        {"nodes": ["gpu-1"], "starts_at": "2026-01-31T08:00:00+00:00", "ends_at": "2026-01-31T12:00:00+00:00"}
    ]


def test_a_drain_is_waited_for_until_nothing_is_left(nodes: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machines, "_LOOK_EVERY_S", 0.0)
    drain = {"reason": "fans", "until": None}
    states = [
        {**NODES[0], "state": "draining", "drain": drain, "jobs_left": left} for left in (2, 1)
    ] + [{**NODES[0], "state": "drained", "drain": drain, "jobs_left": 0}]  # fmt: skip
    nodes.api.on("PUT", "/resources/nodes/n1/drain", reply(states[0]))
    coming = iter(states[1:])
    nodes.api.on("GET", "/resources/nodes/n1", lambda _: reply(next(coming)))
    done = nodes.run("drain", "gpu-1", "--reason", "fans", "--deadline", "30m", "--no-migrate", "--wait")
    assert done.stdout == ("Node gpu-1 is drained, 0 jobs left; `trellis undrain gpu-1` lets it take work again.\n")
    assert nodes.api.bodies("PUT", "/resources/nodes/n1/drain") == [
        {"reason": "fans", "deadline": "30m", "migrate": False}
    ]


def test_a_drain_that_is_not_waited_for_says_how_many_are_left(nodes: CommandLine) -> None:
    nodes.api.on("PUT", "/resources/nodes/n1/drain", reply({**NODES[0], "state": "draining", "jobs_left": 1}))
    assert "is draining, 1 job left" in nodes.run("drain", "gpu-1").stdout
    nodes.api.on("PUT", "/resources/nodes/n1/undrain", reply(NODES[0]))
    assert nodes.run("undrain", "gpu-1").stdout == "Node gpu-1 is ready.\n"
