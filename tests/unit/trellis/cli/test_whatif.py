"""What people are told before they submit."""

import json
from typing import Any

import pytest

from tests.support.command_line import CommandLine
from tests.support.fake_api import reply

STARTS = "2026-01-31T12:00:00+00:00"
SEAT = {
    "index": 0,
    "role": 0,
    "node": "gpu-1",
    "gpus": [{"index": i, "milli": 1000} for i in (0, 1, 2, 5)],
    "slices": [],
}
TOLD: dict[str, Any] = {
    "queue": "default",
    "asked_at": "2026-01-31T11:00:00+00:00",
    "copies": [
        {"certainty": "now", "starts_at": STARTS, "nodes": ["gpu-1"], "replicas": [SEAT], "reason": "the tightest fit"},
        {"certainty": "promised", "starts_at": STARTS, "position": 1, "nodes": ["gpu-2", "gpu-3"], "replicas": []},
        {"certainty": "later", "starts_at": None, "not_before": STARTS, "position": 2, "nodes": [], "replicas": []},
    ],
    "starting_now": 1,
    "could_ever_start": True,
    "why": {"reason": "no_room", "message": "needs 8 GPUs on one node; the best node has 4 free"},
    "refused": None,
    "displaced": {
        "jobs": [{"job_id": "j1", "name": "idle", "priority": 0, "how": "preempt", "grace_s": 60.0}],
        "others": 2,
    },
    "requeued": 0,
}


@pytest.fixture
def asked(cli: CommandLine) -> CommandLine:
    cli.api.on("POST", "/resources/what-if", reply(TOLD))
    return cli


def test_every_word_reaches_the_question(asked: CommandLine) -> None:
    done = asked.run(
        "what-if", "-G", "8", "--gpu-type", "h100", "-c", "32", "--mem", "64GiB", "-N", "4", "-t", "2h", "--priority", "5",
        "-A", "vision", "-p", "fast", "--copies", "3", "--more", "gpu-1=2", "--more", "gpu-1", "--without", "gpu-9",
    )  # fmt: skip
    assert done.exit_code == 0, done.stderr
    assert asked.api.bodies("POST", "/resources/what-if") == [
        {
            "job": {
                "resources": {"cpus": "32", "memory": "64GiB", "gpus": "8", "gpu_type": "h100"},
                "replicas": 4,
                "time_limit": "2h",
                "priority": 5,
                "project": "vision",
                "queue": "fast",
            },
            "copies": 3,
            "more": [{"like": "gpu-1", "count": 3}],
            "without": ["gpu-9"],
        }
    ]


def test_the_picture_shows_where_when_why_not_and_who_goes(asked: CommandLine) -> None:
    said = asked.run("what-if", "--gpus", "8", "--copies", "3").stdout
    lines = [line.split() for line in said.splitlines()]
    assert said.startswith("1 of 3 would start now in queue default.")
    assert "Why those that wait: needs 8 GPUs on one node; the best node has 4 free." in said
    assert ["1", "now", "-", "gpu-1", "[0-2,5]"] in lines
    (promised,) = [line for line in lines if "latest" in line]
    assert promised[-3:] == ["1", "gpu-2,", "gpu-3"]
    assert any(line[-4:] == ["not", "before", "2", "-"] for line in lines)
    assert ["j1", "idle", "0", "preempt"] in [line[:4] for line in lines]
    assert "2 jobs of others" in said


def test_json_is_the_servers_answer(asked: CommandLine) -> None:
    assert json.loads(asked.run("what-if", "--json").stdout) == TOLD


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"could_ever_start": False, "copies": [{"certainty": "never"}]}, "It could never start"),
        ({"refused": "the project may have 2 jobs"}, "would be refused: the project may have 2 jobs"),
    ],
)
def test_what_can_never_start_is_a_failure_to_scripts(cli: CommandLine, change: dict[str, Any], said: str) -> None:
    cli.api.on("POST", "/resources/what-if", reply(TOLD | change))
    done = cli.run("what-if", "--gpus", "8")
    assert done.exit_code == 1
    assert said in done.stdout


@pytest.mark.parametrize("word", ["=2", "gpu-1=", "gpu-1=many", "gpu-1=-1"])
def test_nodes_more_that_cannot_be_understood_are_refused(asked: CommandLine, word: str) -> None:
    done = asked.run("what-if", "--more", word)
    assert (done.exit_code, "must be LIKE or LIKE=COUNT" in done.stderr) == (2, True)
