import httpx
import pytest

from tests.support.fake_api import URL, FakeApi, Naps, a_transport, problem, reply
from trellis.credentials import Key
from trellis.errors import Forbidden, Invalid, NotFound, RateLimited, StaleVersion, TrellisError, Unavailable
from trellis.transport import Call, Transport, path

REFUSED = httpx.ConnectError("[Errno 111] Connection refused")
CUT = httpx.ReadError("connection reset")


def test_a_post_that_lost_its_answer_is_repeated_under_the_same_idempotency_key() -> None:
    api = FakeApi().on("POST", "/jobs", CUT, problem(503, "unavailable"), reply({"id": "1"}, 201))
    assert a_transport(api).json(Call("POST", "/jobs", body={})) == {"id": "1"}
    keys = [request.headers["Idempotency-Key"] for request in api.asked]
    assert len(keys) == 3
    assert len(set(keys)) == 1
    assert len(keys[0]) >= 32


def test_two_posts_have_two_keys() -> None:
    api = FakeApi().on("POST", "/jobs", reply({}, 201))
    transport = a_transport(api)
    transport.json(Call("POST", "/jobs", body={}))
    transport.json(Call("POST", "/jobs", body={}))
    assert len({request.headers["Idempotency-Key"] for request in api.asked}) == 2


def test_a_patch_that_lost_its_answer_is_not_repeated_and_says_that_the_outcome_is_unknown() -> None:
    api = FakeApi().on("PATCH", "/jobs/1/status", CUT)
    with pytest.raises(Unavailable, match="not known"):
        a_transport(api).json(Call("PATCH", "/jobs/1/status", body={}))
    assert len(api.asked) == 1


@pytest.mark.parametrize("first", [REFUSED, problem(503, "unavailable"), problem(429, "rate_limited")])
def test_a_patch_is_repeated_when_nothing_was_done(first: httpx.Response | Exception) -> None:
    api = FakeApi().on("PATCH", "/jobs/1/status", first, reply({}))
    a_transport(api).json(Call("PATCH", "/jobs/1/status", body={}))
    assert len(api.asked) == 2


def test_tries_are_bounded_in_number_and_grow_apart() -> None:
    api, naps = FakeApi().on("GET", "/jobs", REFUSED), Naps()
    with pytest.raises(Unavailable, match=r"nothing answers at http://trellis\.test .*is the server running"):
        a_transport(api, naps=naps, attempts=4, base_s=0.2).json(Call("GET", "/jobs"))
    assert len(api.asked) == 4
    for nap, most in zip(naps.taken, (0.2, 0.4, 0.8), strict=True):
        assert most / 2 <= nap <= most


def test_the_wait_that_the_server_asks_for_is_kept() -> None:
    api, naps = FakeApi().on("GET", "/jobs", problem(429, "rate_limited", retry_after=7), reply({})), Naps()
    a_transport(api, naps=naps).json(Call("GET", "/jobs"))
    assert naps.taken == [7.0]


def test_a_wait_beyond_the_bound_is_the_callers_matter() -> None:
    api, naps = FakeApi().on("GET", "/jobs", problem(429, "rate_limited", retry_after=600)), Naps()
    with pytest.raises(RateLimited) as caught:
        a_transport(api, naps=naps).json(Call("GET", "/jobs"))
    assert naps.taken == []
    assert caught.value.retry_after_s == 600


@pytest.mark.parametrize("status", [502, 504])
def test_a_proxy_that_gave_up_is_asked_again_only_where_that_is_harmless(status: int) -> None:
    bad = httpx.Response(status, content=b"<html>")
    api = FakeApi().on("GET", "/jobs", bad, reply({})).on("PATCH", "/jobs", bad)
    a_transport(api).json(Call("GET", "/jobs"))
    with pytest.raises(TrellisError, match=f"HTTP {status}"):
        a_transport(api).json(Call("PATCH", "/jobs"))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [(403, "forbidden", Forbidden), (404, "not_found", NotFound), (409, "stale_version", StaleVersion)],
)
def test_an_error_of_the_server_is_raised_as_its_own_class_and_not_repeated(
    status: int, code: str, kind: type[TrellisError]
) -> None:
    api = FakeApi().on("GET", "/x", problem(status, code, "because", trace_id="abc"))
    with pytest.raises(kind, match="because") as caught:
        a_transport(api).json(Call("GET", "/x"))
    assert len(api.asked) == 1
    assert caught.value.trace_id == "abc"


def test_a_fault_in_the_input_carries_its_fields() -> None:
    errors = [{"pointer": "/resources/gpus", "message": "must be a number"}]
    api = FakeApi().on("POST", "/jobs", problem(422, "invalid", "x", errors=errors))
    with pytest.raises(Invalid) as caught:
        a_transport(api).json(Call("POST", "/jobs", body={}))
    assert [(f.pointer, f.message) for f in caught.value.fields] == [("/resources/gpus", "must be a number")]


def test_the_credential_goes_to_the_server_and_to_no_other_host_that_it_redirects_to() -> None:
    seen = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append((request.url.host, request.headers.get("Authorization")))
        if request.url.host == "trellis.test":
            return httpx.Response(307, headers={"Location": "http://elsewhere.test/file"})
        return reply({"ok": True})

    transport = Transport(URL, Key("tk_secret"), http=httpx.MockTransport(handle))
    assert transport.json(Call("GET", "/jobs/1/artifacts/2")) == {"ok": True}
    assert seen == [("trellis.test", "Bearer tk_secret"), ("elsewhere.test", None)]


def test_a_body_is_never_sent_on_to_where_a_redirect_points() -> None:
    api = FakeApi().on("POST", "/jobs", httpx.Response(307, headers={"Location": "https://elsewhere.test/jobs"}))
    with pytest.raises(TrellisError, match=r"use that address"):
        a_transport(api).json(Call("POST", "/jobs", body={"secret": 1}))
    assert len(api.asked) == 1


def test_an_answer_that_is_not_json_is_one_sentence() -> None:
    api = FakeApi().on("GET", "/x", httpx.Response(200, content=b"<html>"))
    with pytest.raises(TrellisError, match="is a Trellis server there"):
        a_transport(api).json(Call("GET", "/x"))


@pytest.mark.parametrize("url", ["", "trellis.test", "ftp://trellis.test", "http://"])
def test_a_url_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(Invalid, match="http"):
        Transport(url)


@pytest.mark.parametrize("url", [URL, f"{URL}/", f"{URL}/api/v1", f"{URL}/v1/"])
def test_the_url_may_name_the_version_or_not(url: str) -> None:
    assert Transport(url).url == URL


def test_a_part_of_a_path_cannot_leave_its_place() -> None:
    assert path("jobs", "../users?x=1") == "/jobs/..%2Fusers%3Fx%3D1"
    for part in ("", ".", ".."):
        with pytest.raises(NotFound):
            path("jobs", part)
