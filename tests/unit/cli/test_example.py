"""The first job of a new stack."""

from app.cli.example import why_not_started
from tests.support.fake_api import FakeApi, a_client, a_job_body, reply


def test_an_example_that_nobody_may_run_is_cancelled_with_the_reason() -> None:
    waits = a_job_body(state="queued", why="kept away: 3 nodes by being in pools")
    api = FakeApi().on("GET", "/jobs/0193-job", reply(waits)).on("PATCH", "/jobs/0193-job/status", reply(waits))
    client = a_client(api)
    assert why_not_started(client, client.jobs.get("0193-job"), 0.0) == "kept away: 3 nodes by being in pools"
    assert api.bodies("PATCH", "/jobs/0193-job/status")[0]["action"] == "cancel"


def test_an_example_that_begins_is_left_alone() -> None:
    waits, runs = a_job_body(state="queued"), a_job_body(state="starting")
    api = FakeApi().on("GET", "/jobs/0193-job", reply(waits), reply(waits), reply(runs))
    client = a_client(api)
    assert why_not_started(client, client.jobs.get("0193-job"), 60.0) is None
    assert not api.bodies("PATCH", "/jobs/0193-job/status")
