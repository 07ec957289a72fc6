from typing import Any

import httpx
import pytest

from tests.support.fake_api import FakeApi, Naps, a_transport, problem, reply
from trellis.credentials import Key, Session
from trellis.errors import Unauthenticated
from trellis.transport import Call

WHO = Call("GET", "/auth/whoami")


def granted(number: int, expires_in: float = 600) -> dict[str, Any]:
    return {"access_token": f"jwt{number}", "refresh_token": f"refresh{number}", "expires_in": expires_in}


def sent_tokens(api: FakeApi) -> list[str | None]:
    return [r.headers.get("Authorization") for r in api.asked if r.url.path.endswith("/whoami")]


def an_api(*whoami: httpx.Response) -> FakeApi:
    api = FakeApi().on("POST", "/auth/token", reply(granted(1))).on("POST", "/auth/refresh", reply(granted(2)))
    return api.on("GET", "/auth/whoami", *whoami)


def test_a_session_signs_in_once_for_many_calls() -> None:
    api = an_api(reply({}))
    transport = a_transport(api, Session("ada", "pw"))
    transport.json(WHO)
    transport.json(WHO)
    assert api.bodies("POST", "/auth/token") == [{"username": "ada", "password": "pw"}]
    assert sent_tokens(api) == ["Bearer jwt1", "Bearer jwt1"]


def test_a_token_is_renewed_before_it_ends() -> None:
    api, naps = an_api(reply({})), Naps()
    transport = a_transport(api, Session("ada", "pw", clock=naps.clock))
    transport.json(WHO)
    naps.sleep(590)
    transport.json(WHO)
    assert api.bodies("POST", "/auth/refresh") == [{"refresh_token": "refresh1"}]
    assert sent_tokens(api) == ["Bearer jwt1", "Bearer jwt2"]


def test_a_token_that_the_server_refuses_is_renewed_once_and_the_call_repeated() -> None:
    api = an_api(problem(401, "unauthenticated"), reply({"name": "ada"}))
    assert a_transport(api, Session("ada", "pw")).json(WHO) == {"name": "ada"}
    assert sent_tokens(api) == ["Bearer jwt1", "Bearer jwt2"]


def test_a_server_that_refuses_every_token_is_not_asked_for_ever() -> None:
    api = an_api(problem(401, "unauthenticated"))
    with pytest.raises(Unauthenticated):
        a_transport(api, Session("ada", "pw")).json(WHO)
    assert len(sent_tokens(api)) == 2


def test_a_refresh_token_that_no_longer_holds_means_signing_in_again() -> None:
    api = an_api(problem(401, "unauthenticated"), reply({})).on(
        "POST", "/auth/refresh", problem(401, "unauthenticated")
    )
    a_transport(api, Session("ada", "pw")).json(WHO)
    assert len(api.bodies("POST", "/auth/token")) == 2


def test_a_wrong_password_is_told_as_the_server_says_it() -> None:
    api = FakeApi().on("POST", "/auth/token", problem(401, "unauthenticated", "wrong name or password"))
    with pytest.raises(Unauthenticated, match="wrong name or password"):
        a_transport(api, Session("ada", "pw")).json(WHO)


def test_a_key_that_is_refused_is_not_tried_again() -> None:
    api = an_api(problem(401, "unauthenticated"))
    with pytest.raises(Unauthenticated):
        a_transport(api, Key("tk_old")).json(WHO)
    assert sent_tokens(api) == ["Bearer tk_old"]


def test_a_very_short_token_is_not_fetched_anew_for_every_call() -> None:
    api, naps = an_api(reply({})).on("POST", "/auth/token", reply(granted(1, expires_in=5))), Naps()
    transport = a_transport(api, Session("ada", "pw", clock=naps.clock))
    transport.json(WHO)
    transport.json(WHO)
    assert api.bodies("POST", "/auth/refresh") == []
