"""What operators type about the health of nodes, and about what was used."""

import json
from typing import Any

import pytest

from tests.support.command_line import CommandLine
from tests.support.fake_api import problem, reply

QUARANTINE = {"since": "2026-01-05T08:00:00+00:00", "reason": "ecc: 4 errors", "by": "health", "until": None, "good": 1}
NODE: dict[str, Any] = {
    "id": "n1", "name": "gpu-1", "state": "draining", "isolation": "namespaces", "load_percent": 7, "jobs_left": 2,
    "cpu_milli": 8000, "cpu_milli_used": 2000, "memory_bytes": 64 << 30, "memory_bytes_used": 1 << 30,
    "drain": {"reason": "new drivers", "until": "2026-01-05T08:00:00.123456+00:00"}, "disk_free_bytes": 5 << 30,
    "findings": [{"check": "heat", "severity": "warning", "message": "91 °C \x1b[31m", "device": 0, "since": "2026-01-05T08:00:00+00:00"}],
    "gpus": [{"index": 0, "model": "H100"}, {"index": 1, "model": "H100", "quarantine": QUARANTINE}],
    "jobs": [{"job_id": "j1", "name": "train", "cpu_milli": 2000, "memory_bytes": 1 << 30}],
}  # fmt: skip
EVENT = {"id": 7, "kind": "node.hook_failed", "actor": {"name": "gpu-1"}, "data": {"output": "device busy"}}


@pytest.fixture
def nodes(cli: CommandLine) -> CommandLine:
    cli.api.on("GET", "/resources/nodes", reply({"items": [NODE]}))
    cli.api.on("GET", "/resources/nodes/n1/events", reply({"items": [EVENT]}))
    return cli


def test_a_node_is_shown_with_what_is_wrong_and_what_happened(nodes: CommandLine) -> None:
    shown = nodes.run("node-show", "gpu-1").stdout
    for part in (
        "Node gpu-1 is draining: 2 of 8 CPUs", "It is drained: new drivers, until 2026-01-05 ", "2 left.",
        "Device 1 is quarantined by health: ecc: 4 errors.", "heat", "train", "quarantined", "device busy",
    ):  # fmt: skip
        assert part in shown, part
    assert "\x1b[31m" not in shown
    body = json.loads(nodes.run("node-show", "gpu-1", "--json").stdout)
    assert (body["name"], body["events"][0]["kind"]) == ("gpu-1", "node.hook_failed")


def test_who_may_not_read_events_sees_the_rest(cli: CommandLine) -> None:
    cli.api.on("GET", "/resources/nodes", reply({"items": [NODE]}))
    cli.api.on("GET", "/resources/nodes/n1/events", problem(403, "forbidden", "no"))
    done = cli.run("node-show", "gpu-1")
    assert (done.exit_code, "Node gpu-1 is draining" in done.stdout) == (0, True)


def test_a_node_or_a_device_is_quarantined_and_released(nodes: CommandLine) -> None:
    nodes.api.on("PUT", "/resources/nodes/n1/quarantine", reply(NODE))
    nodes.api.on("PUT", "/resources/nodes/n1/release", reply({**NODE, "state": "ready"}))
    assert nodes.run("quarantine", "gpu-1", "--gpu", "3", "--reason", "noisy").stdout.startswith(
        "Device 3 of node gpu-1"
    )
    assert nodes.api.bodies("PUT", "/resources/nodes/n1/quarantine") == [{"reason": "noisy", "device": 3}]
    assert nodes.run("unquarantine", "gpu-1").stdout == "Node gpu-1 is ready.\n"
    assert nodes.run("quarantine", "gpu-1", "--gpu", "-1").exit_code == 2


USED = {
    "starts_at": "2026-01-05T00:00:00+00:00", "project": "=cmd()", "cpu_hours": 1234.5, "memory_gib_hours": 2.0,
    "gpu_hours": 3.25, "idle_gpu_hours": 1.0, "jobs": 12,
}  # fmt: skip


def test_usage_is_a_table_or_json_or_csv(cli: CommandLine) -> None:
    cli.api.on("GET", "/resources/usage", reply({"items": [USED]}))
    shown = cli.run("usage", "--since", "7d", "--by", "project", "--bucket", "1d").stdout
    assert all(part in shown for part in ("PROJECT", "1,234.5", "3.2", "12"))
    asked = cli.api.asked[-1].url.params
    assert (asked["last"], asked.get_list("by"), asked["bucket"]) == ("604800", ["project"], "1d")
    assert json.loads(cli.run("usage", "--json").stdout)["items"][0]["gpu_hours"] == 3.25
    lines = cli.run("usage", "--by", "project", "--csv").stdout.splitlines()
    # A name that a spreadsheet would run is text.
    assert lines == [
        "project,cpu_hours,memory_gib_hours,gpu_hours,idle_gpu_hours,jobs",
        "'=cmd(),1234.5,2.0,3.25,1.0,12",
    ]


def test_usage_since_a_date_and_nonsense(cli: CommandLine) -> None:
    cli.api.on("GET", "/resources/usage", reply({"items": []}))
    assert cli.run("usage", "--since", "2026-01-05").exit_code == 0
    assert cli.api.asked[-1].url.params["from"].startswith("2026-01-05")
    for words in (("--since", "soon"), ("--by", "colour")):
        done = cli.run("usage", *words)
        assert (done.exit_code, words[0].lstrip("-") in done.stderr) == (2, True)
