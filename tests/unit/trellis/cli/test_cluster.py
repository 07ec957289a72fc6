import json

from tests.support.command_line import CommandLine
from tests.support.fake_api import reply

NODE = {
    "id": "n1", "name": "lab-1", "state": "ready", "cpu_milli": 64000, "cpu_milli_used": 1500,
    "memory_bytes": 2**39, "memory_bytes_used": 2**33, "isolation": "namespaces",
    "last_seen_at": "2026-01-31T12:00:00+00:00",
    "gpus": [{"index": index, "model": "NVIDIA H100 80GB HBM3", "memory_bytes": 80 * 2**30, "milli_used": 500 * index,
              "temperature_c": 41, "healthy": index == 0} for index in range(2)],
}  # fmt: skip
QUEUES = [
    {"id": "q1", "name": "default", "state": "open", "pending": 3},
    {"id": "q2", "name": "night", "state": "paused"},
]


def test_nodes_show_what_is_used_of_what_there_is(cli: CommandLine) -> None:
    cli.api.on("GET", "/resources/nodes", reply({"items": [NODE]}))
    lines = cli.run("nodes").stdout.splitlines()
    assert all(len(line) <= 100 for line in lines)
    for part in ("lab-1", "ready", "1.5/64", "8.0 GiB / 512.0 GiB", "0.5/2"):
        assert part in lines[1]


def test_devices_are_listed_one_a_line(cli: CommandLine) -> None:
    cli.api.on("GET", "/resources/nodes", reply({"items": [NODE]}))
    lines = cli.run("nodes", "--gpus", "--state", "ready", "--label", "rack=7").stdout.splitlines()
    assert len(lines) == 3
    for part in ("lab-1", "H100", "50 %", "41 °C", "faulty"):
        assert part in lines[2]
    assert (cli.api.asked[0].url.params["state"], cli.api.asked[0].url.params["label"]) == ("ready", "rack:7")


def test_a_cluster_without_nodes_says_how_to_get_one(cli: CommandLine) -> None:
    cli.api.on("GET", "/resources/nodes", reply({"items": []}))
    assert "trellis node --join" in cli.run("nodes").stdout


def test_a_join_token_is_printed_alone_so_that_a_shell_can_take_it(cli: CommandLine) -> None:
    made = {"id": "t1", "token": "trj_secret", "expires_at": "2026-01-31T13:00:00+00:00"}
    cli.api.on("POST", "/resources/join-tokens", reply(made, 201))
    assert cli.run("node-token", "--name", "lab", "--expires", "2h").stdout == "trj_secret\n"
    assert json.loads(cli.api.asked[0].content) == {"name": "lab", "expires_in_s": 7200}


def test_a_join_token_for_an_odd_while_is_refused_before_anything_is_asked(cli: CommandLine) -> None:
    done = cli.run("node-token", "--expires", "soon")
    assert (done.exit_code, cli.api.asked) == (2, [])
    assert "expires" in done.stderr


def test_queues_alone_lists_them(cli: CommandLine) -> None:
    cli.api.on("GET", "/queues", reply({"items": QUEUES}))
    assert cli.run("queues").stdout == cli.run("queues", "list").stdout
    assert "default" in cli.run("queues").stdout
    for words in (["queues", "--json"], ["queues", "list", "--json"], ["--json", "queues"]):
        assert json.loads(cli.run(*words).stdout) == QUEUES


def test_a_queue_is_paused_and_resumed_by_its_name(cli: CommandLine) -> None:
    cli.api.on("GET", "/queues", reply({"items": QUEUES}))
    cli.api.on("PUT", "/queues/q2/pause", reply(QUEUES[1])).on("PUT", "/queues/q2/resume", reply(QUEUES[1]))
    assert "is paused; `trellis queues resume`" in cli.run("queues", "pause", "night").stdout
    assert cli.run("queues", "resume", "q2").stdout == "Queue night is open.\n"


HEAD = {"position": 1, "count": 2, "priority": 5, "reason": "no_room", "message": "needs 8 GPUs", "name": "big"}


def test_a_queue_is_explained_in_its_order(cli: CommandLine) -> None:
    told = {"name": "night", "state": "paused", "policy": "priority", "second_policy": "fifo", "heads": [HEAD]}
    cli.api.on("GET", "/queues", reply({"items": QUEUES})).on("GET", "/queues/q2/explain", reply(told))
    first, _, headings, line = cli.run("queues", "explain", "night").stdout.splitlines()
    assert first == "Queue night is ranked by priority, then fifo. It is paused."
    assert headings.split() == ["PLACE", "JOBS", "PRIORITY", "PROJECT", "NAME", "WHY"]
    assert line.split() == ["1", "2", "5", "another", "big", "needs", "8", "GPUs"]
    assert json.loads(cli.run("queues", "explain", "q2", "--json").stdout) == told


def test_a_queue_is_explained_up_to_one_job(cli: CommandLine) -> None:
    told = {"name": "night", "state": "open", "policy": "fifo", "position": 1, "heads": []}
    cli.api.on("GET", "/queues", reply({"items": QUEUES})).on("GET", "/queues/q2/explain", reply(told))
    said = cli.run("queues", "explain", "night", "--job", "0193-job").stdout.splitlines()
    assert said == ["Queue night is ranked by fifo. The job is number 1.", "Nothing waits before it."]
    assert cli.api.asked[-1].url.params["job"] == "0193-job"


def test_a_queue_that_is_not_there_is_one_line(cli: CommandLine) -> None:
    cli.api.on("GET", "/queues", reply({"items": QUEUES}))
    done = cli.run("queues", "pause", "day")
    assert (done.exit_code, done.stderr) == (
        1,
        "trellis: there is no queue called 'day'; `trellis queues` lists them\n",
    )


def test_a_queue_is_made(cli: CommandLine) -> None:
    cli.api.on("POST", "/queues", reply({"id": "q3", "name": "nightly"}, 201))
    assert cli.run("queues", "create", "nightly", "--weight", "2").stdout == "Queue nightly is made.\n"
    assert cli.api.bodies("POST", "/queues") == [{"name": "nightly", "weight": 2}]


def test_of_more_nodes_than_a_person_reads_only_the_kinds_are_listed(cli: CommandLine) -> None:
    held = {"cpu_milli": 96_000, "memory_bytes": 2**40, "gpu_milli": 8000}
    kind = {"gpu_model": "H100", "gpus": 8, "cpu_milli": 96_000, "memory_bytes": 2**41, "nodes": 101, "nodes_ready": 99}
    cli.api.on("GET", "/resources/nodes", reply({"items": [NODE] * 101}))
    cli.api.on("GET", "/resources/kinds", reply({"items": [kind | {"held": held}]}))
    said = cli.run("nodes").stdout
    assert len(said.splitlines()) == 2
    for part in ("101", "99", "8 H100, 96 CPU, 2.0 TiB", "96/9696", "8/808"):
        assert part in said
    assert len(cli.run("nodes", "--all").stdout.splitlines()) == 102
