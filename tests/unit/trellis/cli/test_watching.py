"""Why a job waits, and how the cluster is, as a person reads it."""

import json
from typing import Any

import pytest

from tests.support.command_line import CommandLine
from tests.support.fake_api import a_job_body, problem, reply

QUEUES = [{"id": "q1", "name": "default", "state": "open", "pending": 3, "running": 1, "held": {"gpu_milli": 1500}}]
KINDS = [
    {"gpu_model": "H100", "gpus": 2, "cpu_milli": 8000, "memory_bytes": 2**34, "nodes": 1, "nodes_ready": 1,
     "held": {"cpu_milli": 2000, "memory_bytes": 2**33, "gpu_milli": 1500}},
    {"gpus": 0, "cpu_milli": 4000, "memory_bytes": 2**34, "nodes": 1, "nodes_ready": 0,
     "held": {"cpu_milli": 0, "memory_bytes": 0, "gpu_milli": 0}},
]  # fmt: skip

IDLE = {"gpu_type": "H100", "devices": 2, "idle_milli": 500, "whole": 0, "most_on_one_node": 0, "useless_milli": 200}


def head(**values: Any) -> dict[str, Any]:
    base = {"position": 1, "count": 2, "priority": 0, "reason": "no_room", "waiting_since": "2026-01-31T11:00:00+00:00"}
    return base | values


@pytest.fixture
def queue(cli: CommandLine) -> CommandLine:
    cli.api.on("GET", "/queues", reply({"items": QUEUES})).on("GET", "/resources/capacity", reply({"gpus": [IDLE]}))
    return cli


def test_why_says_what_is_missing_when_it_starts_and_what_comes_before(queue: CommandLine) -> None:
    job = a_job_body(why="3 of 40 nodes fit but for memory", expected_start_at="2026-01-31T13:00:00+00:00")
    heads = [head(job_id="j9", name="first", project="vision", message="needs 8 GPUs"), head(priority=5)]
    told = {"position": 5, "policy": "fair_share", "second_policy": "fifo", "heads": heads}
    queue.api.on("GET", "/jobs/0193-job", reply(job)).on("GET", "/queues/q1/explain", reply(told))
    said = queue.run("why", "0193-job").stdout
    for part in ("is queued", "3 of 40 nodes fit but for memory", "expected to start", "first", "needs 8 GPUs"):
        assert part in said
    assert "It is number 5 in queue default, ranked by fair_share, then fifo." in said
    assert json.loads(queue.run("why", "0193-job", "--json").stdout)["position"] == 5
    assert len(said.partition("Before it")[2].splitlines()) == 4
    assert len(json.loads(queue.run("why", "0193-job", "--json").stdout)["ahead"]) == 2
    asked = [request.url.params.get("job") for request in queue.api.asked if request.url.path.endswith("/explain")]
    assert set(asked) == {"0193-job"}


def test_why_of_a_job_that_started_meanwhile_names_nobody_before_it(queue: CommandLine) -> None:
    queue.api.on("GET", "/jobs/0193-job", reply(a_job_body(why="no room")))
    queue.api.on("GET", "/queues/q1/explain", problem(404, "not_found"))
    said = queue.run("why", "0193-job")
    assert (said.exit_code, "Before it" in said.stdout) == (0, False)


def test_why_says_of_a_job_that_runs_why_it_runs_there(cli: CommandLine) -> None:
    attempts = [{"number": 1, "reason": "the tightest fit", "replicas": [{"node": "gpu-1"}]}]
    cli.api.on("GET", "/jobs/0193-job", reply(a_job_body(state="running", why="", attempts=attempts)))
    assert "placed on gpu-1: the tightest fit" in cli.run("why", "0193-job").stdout


def test_why_names_each_node_of_a_gang_once_and_of_many_the_first(cli: CommandLine) -> None:
    replicas = [{"node": node} for node in ["gpu-0", "gpu-0", *(f"gpu-{n}" for n in range(1, 13))]]
    attempts = [{"number": 1, "reason": "one rack", "replicas": replicas}]
    cli.api.on("GET", "/jobs/0193-job", reply(a_job_body(state="running", why="", attempts=attempts)))
    said = " ".join(cli.run("why", "0193-job").stdout.split())
    assert "placed on gpu-0 (2 replicas), gpu-1, gpu-2" in said
    assert "gpu-9 and 3 more nodes: one rack." in said


def test_top_counts_the_gpus_of_all_replicas(queue: CommandLine) -> None:
    queue.api.on("GET", "/resources/kinds", reply({"items": KINDS}))
    roles = [
        {"name": "driver", "min_replicas": 1, "max_replicas": 1, "resources": {"cpu_milli": 1}},
        {"name": "worker", "min_replicas": 3, "max_replicas": 4, "resources": {"gpu_milli": 2000}},
    ]
    gang = a_job_body(state="running", name="gang", replicas=4, resources={"gpu_milli": 8000})
    mixed = a_job_body(state="running", name="mixed", replicas=4, roles=roles, resources={"gpu_milli": 2000})
    queue.api.on("GET", "/jobs", reply({"items": [gang, mixed]}), reply({"items": []}))
    lines = queue.run("top", "--once").stdout.splitlines()
    assert [line.split()[4] for line in lines if "gang" in line or "mixed" in line] == ["32", "6"]


def test_top_once_sums_up_nodes_queues_and_jobs(queue: CommandLine) -> None:
    queue.api.on("GET", "/resources/kinds", reply({"items": KINDS}))
    queue.api.on("GET", "/jobs", reply({"items": [a_job_body(state="running", run_s=61.0)]}), reply({"items": []}))
    said = queue.run("top", "--once").stdout
    for part in (
        "nodes 1/2 ready",
        "CPUs 2/12",
        "GPUs 1.5/2 [###############.....]",
        "H100: 0.5 of 2 idle, 0 of them whole, 40 % fragmented",
        "default",
        "train",
        "Running",
    ):
        assert part in said
    assert "Waiting" not in said


def test_top_as_json_is_one_object(queue: CommandLine) -> None:
    queue.api.on("GET", "/resources/kinds", reply({"items": KINDS})).on("GET", "/jobs", reply({"items": []}))
    told = json.loads(queue.run("top", "--json").stdout)
    assert (told["gpu_milli"], told["nodes"]) == ({"total": 2000, "held": 1500}, {"total": 2, "ready": 1})
    assert told["queues"] == QUEUES


def test_top_looks_again_until_it_is_interrupted(queue: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.api.on("GET", "/resources/kinds", reply({"items": KINDS})).on("GET", "/jobs", reply({"items": []}))
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("trellis.cli.watching.time.sleep", nap)
    assert queue.run("top", "--interval", "1").exit_code == 0
    assert naps == [1.0] * 3
    assert sum(request.url.path.endswith("/resources/kinds") for request in queue.api.asked) == 3


def test_top_that_is_refused_is_one_line(cli: CommandLine) -> None:
    cli.api.on("GET", "/jobs", problem(401, "unauthenticated")).on(
        "GET", "/resources/kinds", problem(401, "unauthenticated")
    )
    done = cli.run("top", "--once")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
