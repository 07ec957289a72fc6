from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.platform import Platform
from trellis.direct import Direct
from trellis.errors import TrellisError

NOWHERE = "01890000-0000-7000-8000-000000000000"


@pytest.fixture(scope="module")
def direct(platform: Platform) -> Iterator[Direct]:
    made = Direct(platform.broker_url, platform.login["api_key"])
    yield made
    made.close()


def test_a_job_submitted_beside_the_broker_runs_and_is_told_as_over_http(platform: Platform, direct: Direct) -> None:
    job = direct.jobs.submit(name="beside", command=["/bin/sh", "-c", "echo hello; exit 4"], labels={"way": "direct"})
    ended = platform.ended(job)
    assert (ended.state, ended.exit_code) == ("failed", 4)
    assert direct.jobs.get(job) == platform.client.jobs.get(job)
    assert direct.jobs.get(job, verbose=True) == ended
    found = {"way": "direct"}
    assert list(direct.jobs.list(label=found, limit=1)) == list(platform.client.jobs.list(label=found, limit=1))
    retried = direct.jobs.retry(job)
    assert retried.retry_of == job.id
    platform.ended(retried)
    assert list(direct.jobs.list(label=found, limit=1)) == list(platform.client.jobs.list(label=found, limit=1))
    assert [node.name for node in direct.nodes.list()] == [node.name for node in platform.client.nodes.list()]
    assert list(direct.queues.list()) == list(platform.client.queues.list())


def test_a_job_is_cancelled_beside_the_broker(platform: Platform, direct: Direct) -> None:
    job = direct.jobs.submit(command=["/bin/sh", "-c", "echo begun; sleep 600"])
    platform.wait_line(job, "begun")
    direct.jobs.cancel(job, reason="enough")
    assert platform.ended(job).state == "cancelled"


ASKED: dict[str, Callable[[Any], object]] = {
    "not a job": lambda door: door.jobs.submit(command=[]),
    "a negative amount": lambda door: door.jobs.submit(command=["x"], resources={"cpus": -1}),
    "a queue that is not there": lambda door: door.jobs.submit(command=["x"], queue="nowhere"),
    "a job that is not there": lambda door: door.jobs.get(NOWHERE),
    "no id at all": lambda door: door.jobs.get("../../auth/whoami"),
    "an ended job": lambda door: door.jobs.cancel(next(iter(door.jobs.list(state="failed")))),
    "a filter that is none": lambda door: list(door.jobs.list(state="asleep")),
}


@pytest.mark.parametrize("what", list(ASKED))
def test_what_http_refuses_is_refused_beside_the_broker_in_the_same_words(
    platform: Platform, direct: Direct, what: str
) -> None:
    platform.run_job("/bin/false")
    with pytest.raises(TrellisError) as by_http:
        ASKED[what](platform.client)
    with pytest.raises(TrellisError) as by_task:
        ASKED[what](direct)
    assert type(by_task.value) is type(by_http.value)
    assert (by_task.value.code, by_task.value.fields) == (by_http.value.code, by_http.value.fields)
    assert by_task.value.detail == by_http.value.detail


def test_a_stranger_beside_the_broker_is_as_strange_as_one_at_the_door(platform: Platform) -> None:
    stranger = Direct(platform.broker_url, "trk_wrong")
    with pytest.raises(TrellisError) as refused:
        list(stranger.jobs.list())
    assert refused.value.code == "unauthenticated"
    stranger.close()
