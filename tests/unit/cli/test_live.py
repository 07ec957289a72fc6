"""A log, given to a platform that runs."""

from typing import Any

from app.cli.live import Live
from scheduler.simulator.workload import Work
from scheduler.snapshot import JobClass, Request, Role
from tests.support.fake_api import FakeApi, Naps, a_client, reply
from trellis.answers import Kind

NODE = Kind(gpus=8, cpu_milli=96_000, memory_bytes=2**41, nodes=10, nodes_ready=10)


def a_work(number: int, submitted_at: float, request: Request, replicas: int = 1, limit_s: int | None = 3600) -> Work:
    job_class = JobClass("p", "q", (Role(request, replicas, replicas),), time_limit_s=limit_s)
    return Work(f"{number:03}", submitted_at, job_class, run_s=1800.5)


def bodies(speed: float, *works: Work) -> list[tuple[float, list[dict[str, Any]]]]:
    return [(due_s, [dict(body) for body in made]) for due_s, made in Live(works, speed).batches(NODE)]


def test_work_comes_when_it_came_as_fast_as_it_is_played() -> None:
    one_cpu = Request(1000, 0)
    made = bodies(60, *(a_work(number, at, one_cpu) for number, at in enumerate((100, 120, 160, 700))))
    assert [(due_s, [body["name"] for body in one]) for due_s, one in made] == [
        (0.0, ["replay-000", "replay-001"]), (1.0, ["replay-002"]), (10.0, ["replay-003"]),
    ]  # fmt: skip


def test_run_times_are_played_and_limits_count_real_seconds() -> None:
    ((_, (body,)),) = bodies(60, a_work(1, 0, Request(96_000, 2**30, 8000), replicas=4))
    assert body["environment"] == {"SIMULATE_RUN_TIME": "1801"}
    assert (body["time_limit"], body["replicas"]) == (60, 4)
    assert body["resources"] == {"cpus": 96, "gpus": 8, "memory": str(2**30)}
    ((_, (endless,)),) = bodies(60, a_work(1, 0, Request(1000, 0), limit_s=None))
    assert "time_limit" not in endless


def test_what_is_more_than_a_node_has_is_spread_over_several() -> None:
    ((_, (body,)),) = bodies(1, a_work(1, 0, Request(100_000, 0)))
    assert (body["replicas"], body["resources"]["cpus"]) == (2, 50)


def test_everything_is_submitted_in_batches_and_it_is_told_how_far_that_kept_pace() -> None:
    api = FakeApi().on("GET", "/resources/kinds", reply({"items": [{"cpu_milli": 8000, "nodes_ready": 1}]}))
    api.on("POST", "/jobs/batch", reply({"items": []}, 201))
    seen: list[int] = []
    works = [a_work(number, 0 if number < 501 else 30, Request(1000, 0)) for number in range(502)]
    told = Live(works, 60).run(a_client(api), progress=seen.append, sleep=Naps().sleep)
    assert [len(body["jobs"]) for body in api.bodies("POST", "/jobs/batch")] == [500, 1, 1]
    assert (told["jobs"], seen) == (502, [501, 502])
