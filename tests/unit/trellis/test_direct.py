from typing import Any

import pytest

from tests.support.fake_api import a_job_body
from trellis.errors import Invalid, NotFound, QuotaExceeded, TrellisError, Unavailable

pytest.importorskip("celery", reason="the extra `direct` is not installed")

from celery import Celery  # after the check that it is there
from celery.exceptions import TimeoutError as CeleryTimeout
from kombu.exceptions import OperationalError

from trellis.direct import Direct


class Broker:
    """Answers every task with what it was given, and remembers what was sent."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        self.answers: list[Any] = []
        self.forgotten = 0
        monkeypatch.setattr(Celery, "send_task", self._send)

    def _send(self, task: str, kwargs: dict[str, Any], **options: Any) -> "Broker":
        self.sent.append((task, kwargs, options))
        return self

    def get(self, **_: Any) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception) and not isinstance(answer, KeyError):
            raise answer
        return answer

    def forget(self) -> None:
        self.forgotten += 1


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Broker:
    return Broker(monkeypatch)


@pytest.fixture
def direct() -> Direct:
    return Direct("amqp://127.0.0.1//", "tk_secret", timeout_s=7)


def test_a_submission_is_the_same_body_as_through_http(broker: Broker, direct: Direct) -> None:
    broker.answers = [{"status": 201, "body": a_job_body(id="j1")}]
    job = direct.jobs.submit(command=("true",), depends_on=["j0"])
    assert (job.id, job.state) == ("j1", "queued")
    task, arguments, options = broker.sent[0]
    body = {"command": ["true"], "depends_on": [{"job": "j0", "kind": "after_success"}]}
    assert (task, arguments) == ("trellis.jobs.submit", {"token": "tk_secret", "body": body})
    assert (options["queue"], options["expires"]) == ("direct", 7)
    assert broker.forgotten == 1


def test_every_verb_goes_out_under_its_name(broker: Broker, direct: Direct) -> None:
    broker.answers = [{"status": 200, "body": a_job_body()}] * 5 + [{"status": 200, "body": {"items": []}}] * 3
    direct.jobs.get("j1", verbose=True)
    direct.jobs.cancel("j1", reason="wrong data", force=True)
    direct.jobs.suspend("j1", reason="lunch")
    direct.jobs.resume("j1")
    direct.jobs.retry("j1")
    assert list(direct.jobs.list(state="running", label={"team": "a"})) == []
    assert [*direct.queues.list(), *direct.nodes.list()] == []
    bare = [(task, {k: v for k, v in arguments.items() if k != "token"}) for task, arguments, _ in broker.sent]
    assert bare == [
        ("trellis.jobs.get", {"id": "j1", "query": {"verbose": True}}),
        ("trellis.jobs.cancel", {"id": "j1", "body": {"action": "cancel", "reason": "wrong data", "force": True}}),
        ("trellis.jobs.suspend", {"id": "j1", "body": {"action": "suspend", "reason": "lunch"}}),
        ("trellis.jobs.resume", {"id": "j1", "body": {"action": "resume"}}),
        ("trellis.jobs.retry", {"id": "j1", "body": {"action": "retry"}}),
        ("trellis.jobs.list", {"query": {"state": "running", "label": ["team:a"]}}),
        ("trellis.queues.list", {"query": {}}),
        ("trellis.nodes.list", {"query": {}}),
    ]


def test_pages_follow_each_other(broker: Broker, direct: Direct) -> None:
    page = {"items": [a_job_body(id="1")], "next_cursor": "c"}
    broker.answers = [{"status": 200, "body": page}, {"status": 200, "body": {"items": [a_job_body(id="2")]}}]
    assert [job.id for job in direct.jobs.list()] == ["1", "2"]
    assert broker.sent[1][1]["query"] == {"cursor": "c"}


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(404, "not_found", NotFound), (422, "invalid", Invalid), (403, "quota_exceeded", QuotaExceeded)],
)
def test_errors_are_those_of_http(
    broker: Broker, direct: Direct, status: int, code: str, kind: type[TrellisError]
) -> None:
    broker.answers = [{"status": status, "body": {"code": code, "detail": "because"}}]
    with pytest.raises(kind, match="because"):
        direct.jobs.get("j1")


@pytest.mark.parametrize(
    ("failure", "says"),
    [
        (CeleryTimeout("late"), "no control worker answered trellis.jobs.get within 7 s"),
        (OperationalError("refused"), "the broker can't be reached: refused"),
        (KeyError("inside the worker"), "trellis.jobs.get failed on its control worker: KeyError"),
        (None, "failed on its control worker"),
    ],
)
def test_no_answer_is_told_as_unavailable(broker: Broker, direct: Direct, failure: Any, says: str) -> None:
    broker.answers = [failure]
    with pytest.raises(Unavailable, match=says):
        direct.jobs.get("j1")


def test_after_a_broken_broker_the_next_call_works(broker: Broker, direct: Direct) -> None:
    broker.answers = [RuntimeError("retry limit"), {"status": 200, "body": a_job_body()}]
    with pytest.raises(Unavailable):
        direct.jobs.get("j1")
    assert direct.jobs.get("j1").name == "train"


def test_arrays_have_a_verb_of_their_own(broker: Broker, direct: Direct) -> None:
    broker.answers = [{"status": 201, "body": {"array_id": "a1", "count": 2, "items": [a_job_body()]}}]
    with pytest.raises(Invalid, match="use submit_array"):
        direct.jobs.submit(command=["true"], array={"indexes": "0-1"})
    assert direct.jobs.submit_array(command=["true"], array={"indexes": "0-1"}).count == 2
