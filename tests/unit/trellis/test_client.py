import io
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import httpx
import pytest

from tests.support.fake_api import FakeApi, Stream, a_client, a_job_body, problem, reply
from trellis.answers import Job
from trellis.client import Client
from trellis.errors import Conflict, IllegalTransition, Invalid, Unavailable


def test_a_submission_is_sent_as_plain_json() -> None:
    api = FakeApi().on("POST", "/jobs", reply(a_job_body(id="j9"), 201))
    job = a_client(api).jobs.submit(
        command=("python", "train.py"),
        resources={"gpus": 0.5, "memory": "2GiB"},
        time_limit=timedelta(hours=2),
        deadline=datetime(2030, 1, 31, tzinfo=UTC),
        depends_on=[Job(id="j1"), "j2", {"job": "j3", "kind": "after_any"}],
    )
    assert job.id == "j9"
    assert api.bodies("POST", "/jobs") == [
        {
            "command": ["python", "train.py"],
            "resources": {"gpus": 0.5, "memory": "2GiB"},
            "time_limit": 7200,
            "deadline": "2030-01-31T00:00:00+00:00",
            "depends_on": [
                {"job": "j1", "kind": "after_success"},
                {"job": "j2", "kind": "after_success"},
                {"job": "j3", "kind": "after_any"},
            ],
        }
    ]


def test_an_answer_is_typed_and_keeps_what_it_does_not_know() -> None:
    body = a_job_body(
        state="running", colour="green", started_at=None, attempts=[{"number": 1, "replicas": [{"index": 0}]}]
    )
    job = a_client(FakeApi().on("GET", "/jobs/j1", reply(body))).jobs.get("j1", verbose=True)
    assert job.submitted_at == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert (job.started_at, job.resources.gpu_milli, job.attempts[0].replicas[0].index) == (None, 2000, 0)
    assert (job.ended, job.raw["colour"]) == (False, "green")


def test_a_list_is_fetched_page_by_page_as_it_is_used() -> None:
    def page(request: httpx.Request) -> httpx.Response:
        start = int(request.url.params.get("cursor", 0))
        items = [a_job_body(id=str(number)) for number in range(start, start + 2)]
        return reply({"items": items, "next_cursor": str(start + 2) if start < 4 else None})

    api = FakeApi().on("GET", "/jobs", page)
    jobs = a_client(api).jobs.list(state=["running", "queued"], label={"team": "a"}, limit=2)
    assert api.asked == []
    assert [job.id for job in islice(jobs, 3)] == ["0", "1", "2"]
    assert len(api.asked) == 2
    assert [job.id for job in jobs] == ["3", "4", "5"]
    first = api.asked[0].url.params
    assert (first.get_list("state"), first["label"], first["limit"]) == (["running", "queued"], "team:a", "2")


def test_a_naive_time_in_a_filter_is_of_this_machines_zone() -> None:
    api = FakeApi().on("GET", "/jobs", reply({"items": []}))
    list(a_client(api).jobs.list(submitted_after=datetime(2026, 1, 31, 12)))  # noqa: DTZ001  # what is being tested
    sent = datetime.fromisoformat(api.asked[0].url.params["submitted_after"])
    assert sent.tzinfo is not None


def test_a_batch_is_one_call() -> None:
    api = FakeApi().on("POST", "/jobs/batch", reply({"items": [a_job_body(id="1"), a_job_body(id="2")]}, 201))
    jobs = a_client(api).jobs.submit_batch([{"command": ["a"]}, {"command": ["b"]}])
    assert [job.id for job in jobs] == ["1", "2"]
    assert api.bodies("POST", "/jobs/batch") == [{"jobs": [{"command": ["a"]}, {"command": ["b"]}]}]


def test_an_array_has_a_verb_of_its_own() -> None:
    api = FakeApi().on("POST", "/jobs", reply({"array_id": "a1", "items": [a_job_body()], "count": 10}, 201))
    made = a_client(api).jobs.submit_array(command=["true"], array={"indexes": "0-9"})
    assert (made.array_id, made.count, made.items[0].name) == ("a1", 10, "train")
    with pytest.raises(Invalid, match="use submit_array"):
        a_client(api).jobs.submit(command=["true"], array={"indexes": "0-9"})
    with pytest.raises(Invalid, match="/array is missing"):
        a_client(api).jobs.submit_array(command=["true"])


def test_cancel_and_retry_are_changes_of_status() -> None:
    api = FakeApi().on("PATCH", "/jobs/j1/status", reply(a_job_body()))
    client = a_client(api)
    client.jobs.cancel("j1", reason="wrong data")
    client.jobs.retry(Job(id="j1"))
    assert api.bodies("PATCH", "/jobs/j1/status") == [{"action": "cancel", "reason": "wrong data"}, {"action": "retry"}]


def test_a_cancel_is_repeated_when_its_answer_was_lost_and_a_retry_is_not() -> None:
    broken = httpx.ReadError("reset")
    api = FakeApi().on("PATCH", "/jobs/j1/status", broken, reply(a_job_body()), broken)
    client = a_client(api)
    client.jobs.cancel("j1")
    with pytest.raises(Unavailable):
        client.jobs.retry("j1")
    assert len(api.asked) == 3


def test_an_error_keeps_its_class() -> None:
    api = FakeApi().on("PATCH", "/jobs/j1/status", problem(409, "illegal_transition", "it has ended"))
    with pytest.raises(IllegalTransition, match="it has ended"):
        a_client(api).jobs.cancel("j1")


def _answer(
    *pieces: bytes, then: Exception | None = None, status: int = 200, etag: str = ""
) -> Callable[[httpx.Request], httpx.Response]:
    headers = {"ETag": etag} if etag else {}
    return lambda _: httpx.Response(status, headers=headers, stream=Stream(pieces, then))


def test_a_file_is_downloaded_whole_or_not_at_all(tmp_path: Path) -> None:
    broken = _answer(then=httpx.ReadError("reset"))
    api = FakeApi().on("GET", "/jobs/j1/artifacts/a1", *[broken] * 5, _answer(b"wh", b"ole"))
    target = tmp_path / "model.bin"
    with pytest.raises(Unavailable):
        a_client(api).jobs.download("j1", "a1", target)
    assert not target.exists()
    assert a_client(api).jobs.download("j1", "a1", target).read_bytes() == b"whole"


def test_a_download_that_broke_off_goes_on_where_it_was(tmp_path: Path) -> None:
    broken, rest = _answer(b"who", then=httpx.ReadError("reset")), _answer(b"ole", status=206)
    api = FakeApi().on("GET", "/jobs/j1/artifacts/a1", broken, rest)
    assert a_client(api).jobs.download("j1", "a1", tmp_path / "m").read_bytes() == b"whole"
    assert [asked.headers.get("Range") for asked in api.asked] == [None, "bytes=2-"]


def test_a_file_that_is_not_what_was_saved_is_not_kept(tmp_path: Path) -> None:
    api = FakeApi().on("GET", "/jobs/j1/artifacts/a1", _answer(b"other", etag=f'"{"0" * 64}"'))
    with pytest.raises(Conflict, match="not what was saved"):
        a_client(api).jobs.download("j1", "a1", tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["../up", "/etc/passwd", "a/../../b", "a\\..\\b", "a/./b", ".bashrc", "a//b", "a\0b", "\u202egnp.exe"]
)
def test_a_name_that_leads_out_of_the_folder_is_not_written(tmp_path: Path, name: str) -> None:
    item = {"id": "a1", "name": name, "size_bytes": 1}
    api = FakeApi().on("GET", "/jobs/j1/artifacts", reply({"items": [item], "next_cursor": None}))
    with pytest.raises(Conflict):
        list(a_client(api).artifacts.download_tree("j1", tmp_path / "to"))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_whose_download_broke_off_is_fetched_again(tmp_path: Path) -> None:
    def answer(*pieces: bytes) -> Callable[[httpx.Request], httpx.Response]:
        return lambda _: httpx.Response(200, stream=Stream(pieces, None))

    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        info = tarfile.TarInfo("a")
        info.size = 3000
        tar.addfile(info, io.BytesIO(bytes(3000)))
    whole = archive.getvalue()
    api = FakeApi().on("GET", "/checkpoints/c1/archive", answer(whole[:2000]), answer(whole))
    with pytest.raises(Conflict, match="broke off"):
        a_client(api).checkpoints.download("c1", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    assert (a_client(api).checkpoints.download("c1", tmp_path / "model") / "a").read_bytes() == bytes(3000)


def test_metrics_and_events_and_artifacts_are_read() -> None:
    api = FakeApi().on(
        "GET", "/jobs/j1/metrics", reply({"latest": {"loss": {"value": 0.5, "step": 3}}, "points": [{"value": 1}]})
    )
    api.on("GET", "/jobs/j1/events", reply({"items": [{"id": 7, "kind": "job.queued", "actor": {"name": "ada"}}]}))
    api.on("GET", "/jobs/j1/artifacts", reply({"items": [{"id": "a1", "name": "model.bin", "size_bytes": 3}]}))
    jobs = a_client(api).jobs
    assert (jobs.metrics("j1")["loss"].value, jobs.metrics("j1")["loss"].step) == (0.5, 3)
    assert [point.value for point in jobs.metric("j1", "loss")] == [1]
    assert [(event.id, event.actor.name) for event in jobs.events("j1")] == [("7", "ada")]
    assert [artifact.name for artifact in jobs.artifacts("j1")] == ["model.bin"]


def test_what_was_read_is_changed_only_if_nobody_changed_it_since() -> None:
    api = (
        FakeApi()
        .on("GET", "/projects/p1", reply({"id": "p1", "version": 4}))
        .on("PATCH", "/projects/p1", reply({"id": "p1"}))
    )
    client = a_client(api)
    client.projects.update(client.projects.get("p1"), name="new")
    assert api.asked[-1].headers["If-Match"] == '"4"'


NOUNS = [
    (lambda c: c.whoami(), "GET", "/auth/whoami"),
    (lambda c: list(c.nodes.list(state="ready")), "GET", "/resources/nodes"),
    (lambda c: c.nodes.kinds(), "GET", "/resources/kinds"),
    (lambda c: c.nodes.get("n1"), "GET", "/resources/nodes/n1"),
    (lambda c: c.nodes.create_join_token("lab"), "POST", "/resources/join-tokens"),
    (lambda c: list(c.queues.list()), "GET", "/queues"),
    (lambda c: c.queues.get("q1"), "GET", "/queues/q1"),
    (lambda c: c.queues.create("q", weight=2), "POST", "/queues"),
    (lambda c: c.queues.pause("q1"), "PUT", "/queues/q1/pause"),
    (lambda c: c.queues.resume("q1"), "PUT", "/queues/q1/resume"),
    (lambda c: list(c.organisations.list()), "GET", "/organisations"),
    (lambda c: c.organisations.get("o1"), "GET", "/organisations/o1"),
    (lambda c: c.organisations.create("acme"), "POST", "/organisations"),
    (lambda c: list(c.projects.list()), "GET", "/projects"),
    (lambda c: c.projects.create("vision", organisation_id="o1"), "POST", "/projects"),
    (lambda c: list(c.projects.members("p1")), "GET", "/projects/p1/members"),
    (lambda c: c.projects.set_member("p1", "u1", "member"), "PUT", "/projects/p1/members/u1"),
    (lambda c: c.projects.remove_member("p1", "u1"), "DELETE", "/projects/p1/members/u1"),
    (lambda c: list(c.users.list()), "GET", "/users"),
    (lambda c: c.users.get("u1"), "GET", "/users/u1"),
    (lambda c: c.users.create("ada", "pw"), "POST", "/users"),
    (lambda c: list(c.api_keys.list()), "GET", "/api-keys"),
    (lambda c: c.api_keys.create("k"), "POST", "/api-keys"),
    (lambda c: c.api_keys.delete("k1"), "DELETE", "/api-keys/k1"),
    (lambda c: list(c.service_accounts.list("p1")), "GET", "/projects/p1/service-accounts"),
    (lambda c: c.service_accounts.create("p1", "bot", "member"), "POST", "/projects/p1/service-accounts"),
    (lambda c: c.service_accounts.create_key("s1", "k"), "POST", "/service-accounts/s1/keys"),
    (lambda c: c.service_accounts.delete("s1"), "DELETE", "/service-accounts/s1"),
]


@pytest.mark.parametrize(("verb", "method", "path"), NOUNS, ids=[f"{method} {path}" for _, method, path in NOUNS])
def test_every_verb_goes_to_its_route(verb: object, method: str, path: str) -> None:
    api = FakeApi().on(method, path, reply({"items": []}))
    verb(a_client(api))  # type: ignore[operator]
    assert [(request.method, request.url.path) for request in api.asked] == [(method, f"/api/v1{path}")]


def test_a_key_is_not_shown_where_an_answer_is_printed() -> None:
    api = FakeApi().on("POST", "/api-keys", reply({"id": "k1", "key": "tk_hush"}, 201))
    made = a_client(api).api_keys.create("k")
    assert made.key == "tk_hush"
    assert "tk_hush" not in repr(made)


def test_who_asks_and_where_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRELLIS_URL", "http://env.test/")
    monkeypatch.setenv("TRELLIS_API_KEY", "tk_env")
    api = FakeApi().on("GET", "/auth/whoami", reply({}))
    with Client(http=api) as client:
        client.whoami()
    assert (api.asked[0].url.host, api.asked[0].headers["Authorization"]) == ("env.test", "Bearer tk_env")
