"""What people type about who may hold what."""

import json

from tests.support.command_line import CommandLine
from tests.support.fake_api import problem, reply

GIB = 2**30
POOL = {
    "id": "p1", "name": "research", "parent": "all", "weight": 2, "nominal": {"gpu_milli": 8000},
    "overcommit": {"cpu": 1.5, "memory": 1.0}, "version": 1,
    "figures": {"nodes": 3, "nodes_ready": 2, "running": 4, "pending": 7, "allocations": 4,
                "capacity": {"cpu_milli": 64_000, "memory_bytes": GIB, "gpu_milli": 16_000},
                "held": {"cpu_milli": 1500, "memory_bytes": 0, "gpu_milli": 2500}},
}  # fmt: skip
HELD = {
    "id": "a1", "node": "gpu-1", "owner": "ada", "name": "notebook", "cpu_milli": 2000, "memory_bytes": GIB,
    "gpus": [{"index": 0, "milli": 500}], "expires_at": "2026-01-31T12:00:00+00:00", "job_id": None,
}  # fmt: skip
CLAIM = {
    "id": "r1", "state": "planned", "owner": "ada", "name": "course", "maintenance": False,
    "starts_at": "2026-01-31T08:00:00+00:00", "ends_at": "2026-01-31T18:00:00+00:00",
    "parts": [{"node": "gpu-2"}, {"node": "gpu-1"}],
}  # fmt: skip
QUOTA = {
    "hard": {"gpu_milli": 8000}, "hard_jobs": 100, "soft": {}, "soft_jobs": None, "burst": {"gpu_milli": 4000},
    "burst_for_s": 3600, "burst_every_s": 86_400, "most": {"gpu_milli": 12_000, "cpu_milli": None},
    "usage": {"held": {"cpu_milli": 1500, "memory_bytes": GIB, "gpu_milli": 2000}, "jobs": 17}, "version": 2,
}  # fmt: skip
PROJECTS = [{"id": "j1", "name": "vision"}, {"id": "j2", "name": "speech"}]


def test_pools_show_what_is_held_of_what_there_is(cli: CommandLine) -> None:
    cli.api.on("GET", "/resources/pools", reply({"items": [POOL]}))
    line = cli.run("pools").stdout.splitlines()[1]
    assert line.split() == ["research", "all", "2/3", "1.5/64", "2.5/16", "8", "1.5x", "4", "7"]
    assert json.loads(cli.run("pools", "--json").stdout) == [POOL]


def test_what_can_be_listed_is_listed_alone_and_by_the_word(cli: CommandLine) -> None:
    cli.api.on("GET", "/resources/pools", reply({"items": [POOL]}))
    cli.api.on("GET", "/resources/reservations", reply({"items": [CLAIM]}))
    for noun in ("pools", "reservations"):
        assert cli.run(noun, "list").stdout == cli.run(noun).stdout
        assert len(json.loads(cli.run(noun, "list", "--json").stdout)) == 1
    cli.run("reservations", "list", "--ended")
    assert cli.api.asked[-1].url.params["ended"] == "true"


def test_a_pool_is_made_and_removed_by_its_name(cli: CommandLine) -> None:
    cli.api.on("GET", "/resources/pools", reply({"items": [POOL]}))
    cli.api.on("POST", "/resources/pools", reply(POOL, 201)).on("DELETE", "/resources/pools/p1", reply(None, 204))
    assert cli.run("pools", "create", "research", "--parent", "all").stdout == "Pool research is made.\n"
    assert cli.api.bodies("POST", "/resources/pools") == [{"name": "research", "parent": "all"}]
    assert cli.run("pools", "remove", "research").stdout == "Pool research is removed.\n"
    assert "no pool called" in cli.run("pools", "remove", "nothing").stderr


def test_what_is_wished_for_is_sent_and_what_is_held_is_said(cli: CommandLine) -> None:
    cli.api.on("POST", "/resources/allocate", reply(HELD, 201))
    words = ["--gpus", "0.5", "--gpu-type", "H100", "--label", "zone=north", "--tolerate", "spot", "--ttl", "2h"]
    done = cli.run("allocate", *words)
    assert done.stdout.startswith("Holding 2 CPU, 1.0 GiB, 0.5 GPU on gpu-1 until 2026-01-31")
    assert cli.api.bodies("POST", "/resources/allocate") == [
        {"cpus": "1", "memory": "1GiB", "gpus": "0.5", "gpu_type": "H100", "exclusive": False, "name": "",
         "labels": {"zone": "north"}, "tolerates": ["spot"], "ttl": "2h"}
    ]  # fmt: skip


def test_no_room_is_one_line_that_says_what_is_free(cli: CommandLine) -> None:
    cli.api.on("POST", "/resources/allocate", problem(409, "capacity_taken", "there is no room; free: 0 GPUs"))
    done = cli.run("allocate", "--gpus", "1")
    assert (done.exit_code, done.stderr) == (1, "trellis: there is no room; free: 0 GPUs\n")


def test_what_is_held_is_listed_and_released(cli: CommandLine) -> None:
    of_job = HELD | {"id": "a2", "job_id": "0193-job", "expires_at": None}
    cli.api.on("GET", "/resources/allocations", reply({"items": [HELD, of_job]}))
    cli.api.on("DELETE", "/resources/allocations/a1", reply(None, 204))
    first, second = cli.run("allocations").stdout.splitlines()[1:]
    assert ("ada" in first, "notebook" in first, "0193-job" in second) == (True, True, True)
    assert cli.run("release", "a1", "--force").stdout == "Allocation a1 is released.\n"
    assert cli.api.asked[-1].url.params["force"] == "true"


def test_a_window_is_reserved_listed_and_given_up(cli: CommandLine) -> None:
    cli.api.on("POST", "/resources/reserve", reply(CLAIM, 201))
    cli.api.on("GET", "/resources/reservations", reply({"items": [CLAIM]}))
    cli.api.on("DELETE", "/resources/reservations/r1", reply(None, 204))
    times = ["--starts", "2026-01-31T08:00+00:00", "--ends", "2026-01-31T18:00+00:00"]
    assert cli.run("reserve", "--count", "2", "--gpus", "8", *times).stdout.endswith("on gpu-1, gpu-2.\n")
    (body,) = cli.api.bodies("POST", "/resources/reserve")
    assert (body["count"], body["gpus"], body["ends_at"][:13] != "") == (2, "8", True)
    assert all(part in cli.run("reservations").stdout for part in ("planned", "course", "gpu-1, gpu-2"))
    assert cli.run("reservations", "cancel", "r1").stdout == "Reservation r1 is cancelled.\n"


def test_a_quota_is_shown_and_set_by_the_projects_name(cli: CommandLine) -> None:
    cli.api.on("GET", "/projects", reply({"items": PROJECTS}))
    cli.api.on("GET", "/projects/j1/quota", reply(QUOTA)).on("PUT", "/projects/j1/quota", reply(QUOTA))
    shown = cli.run("quota", "show", "--project", "vision").stdout
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines()[1:] if line.split()}
    assert rows["GPUs"] == ["2", "12", "8", "-", "4"]
    assert rows["Jobs"] == ["17", "100", "100", "-", "-"]
    cli.run("quota", "set", "--project", "vision", "--gpus", "8", "--jobs", "100", "--burst-gpus", "4")
    assert cli.api.bodies("PUT", "/projects/j1/quota") == [
        {"hard": {"gpus": "8", "jobs": 100}, "burst": {"gpus": "4", "for": "1h", "every": "1d"}}
    ]
    assert "which project?" in cli.run("quota", "show").stderr


def test_a_members_and_an_organisations_quota_are_their_own(cli: CommandLine) -> None:
    cli.api.on("GET", "/projects", reply({"items": PROJECTS[:1]}))
    cli.api.on("GET", "/projects/j1/members/u1/quota", reply(QUOTA))
    cli.api.on("PUT", "/organisations/o1/quota", reply(QUOTA))
    assert cli.run("quota", "show", "--member", "u1").exit_code == 0
    assert cli.run("quota", "set", "--organisation", "o1", "--jobs", "5").exit_code == 0
    assert cli.api.bodies("PUT", "/organisations/o1/quota") == [{"hard": {"jobs": 5}}]
