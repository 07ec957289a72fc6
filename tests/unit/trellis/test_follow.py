import httpx
import pytest

from tests.support.fake_api import (
    FakeApi,
    Naps,
    a_client,
    a_job_body,
    a_transport,
    end_event,
    events,
    log_event,
    problem,
    reply,
)  # fmt: skip
from trellis.errors import NotFound, Unavailable
from trellis.nouns.logs import Follower

LOGS = "/jobs/j1/logs"
BROKEN = httpx.ReadError("reset")


def asked(api: FakeApi) -> list[tuple[str | None, str | None]]:
    return [
        (r.headers.get("Last-Event-ID"), r.url.params.get("tail")) for r in api.asked if r.url.path.endswith("logs")
    ]


def test_following_gives_every_line_once_over_broken_connections() -> None:
    api = FakeApi().on(
        "GET",
        LOGS,
        events(log_event(1), log_event(2), then=BROKEN),
        events(b": keep-alive\n\n", then=httpx.ReadTimeout("silent")),
        events(log_event(3), log_event(4)[:10]),
        events(log_event(4), end_event()),
    )
    lines = list(a_client(api).jobs.logs("j1", follow=True, tail=50))
    assert [line.text for line in lines] == ["line 1", "line 2", "line 3", "line 4"]
    assert [line.cursor for line in lines] == ["1", "2", "3", "4"]
    assert asked(api) == [(None, "50"), ("2", None), ("2", None), ("3", None)]


def test_a_connection_that_broke_before_the_first_line_asks_for_the_same_again() -> None:
    api = FakeApi().on("GET", LOGS, events(then=BROKEN), events(end_event()))
    assert list(a_client(api).jobs.logs("j1", follow=True, tail=5)) == []
    assert asked(api) == [(None, "5"), (None, "5")]


def test_following_a_server_that_stays_away_ends_in_an_error() -> None:
    api, naps = FakeApi().on("GET", LOGS, httpx.ConnectError("refused")), Naps()
    with pytest.raises(Unavailable):
        list(a_client(api, naps).jobs.logs("j1", follow=True))
    assert max(naps.taken) <= 5.0


def test_following_what_is_not_there_is_told_at_once() -> None:
    with pytest.raises(NotFound):
        list(a_client(FakeApi().on("GET", LOGS, problem(404, "not_found"))).jobs.logs("j1", follow=True))


def test_a_server_that_keeps_letting_go_is_not_asked_in_a_tight_loop() -> None:
    api, naps = FakeApi().on("GET", LOGS, *[events()] * 6, events(end_event())), Naps()
    list(a_client(api, naps).jobs.logs("j1", follow=True))
    assert len(naps.taken) == 6
    assert sum(naps.taken) > 3


def test_a_line_with_odd_characters_comes_through_as_it_was() -> None:
    text = "\u2028 \x1b[31m [bold]red[/bold] \x85"
    api = FakeApi().on("GET", LOGS, events(log_event(1, text), end_event()))
    assert [line.text for line in a_client(api).jobs.logs("j1", follow=True)] == [text]


def test_waiting_ends_with_the_job_and_answers_it() -> None:
    api = FakeApi().on("GET", LOGS, events(b": keep-alive\n\n", then=BROKEN), events(end_event("failed", 3)))
    api.on("GET", "/jobs/j1", reply(a_job_body(id="j1", state="failed", exit_code=3)))
    ended = a_client(api).jobs.wait("j1")
    assert (ended.state, ended.exit_code, ended.ended) == ("failed", 3, True)


def test_waiting_gives_up_in_time_though_the_server_keeps_the_line_alive() -> None:
    naps = Naps()

    def alive(request: httpx.Request) -> httpx.Response:
        patience_s = request.extensions["timeout"]["read"]
        naps.now += min(15.0, patience_s)
        if patience_s <= 15.0:
            raise httpx.ReadTimeout("silent")
        return events(b": keep-alive\n\n")(request)

    follower = Follower(a_transport(FakeApi().on("GET", LOGS, alive), naps=naps, attempts=1), "j1", {}, naps.clock)
    assert follower.until_end(40.0) is False
    assert 40.0 <= naps.now < 42.0


def test_waiting_gives_up_in_time_though_the_server_says_nothing_at_all() -> None:
    api = FakeApi().on("GET", LOGS, httpx.ReadTimeout("silent"))
    naps = Naps()
    follower = Follower(a_transport(api, naps=naps), "j1", {}, naps.clock)
    assert follower.until_end(1.0) is False
    assert naps.now == 1.0
    assert api.asked[0].extensions["timeout"]["read"] == 1.0


def test_waiting_too_long_says_so_and_leaves_the_job_alone() -> None:
    api = FakeApi().on("GET", LOGS, events(b": keep-alive\n\n", then=BROKEN))
    with pytest.raises(TimeoutError, match="has not ended within 0 s"):
        a_client(api).jobs.wait("j1", timeout=0)
    assert {request.method for request in api.asked} <= {"GET"}


def test_a_long_log_is_read_to_its_end() -> None:
    def part(*texts: str, **more: object) -> httpx.Response:
        return reply({"lines": [{"text": text} for text in texts], **more})

    api = FakeApi().on("GET", LOGS, part("a", "b", cursor="c1", more=True), part("c", cursor="c2"))
    assert [line.text for line in a_client(api).jobs.logs("j1")] == ["a", "b", "c"]
    assert [request.url.params.get("cursor") for request in api.asked] == [None, "c1"]
