"""Can somebody get in who should not, or stay in who should be out?"""

import base64
import hmac
import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OctKey

from app.core.crypto import Keyring
from app.tenancy.sessions import Session
from app.tenancy.tokens import AUDIENCE, HEADER, ISSUER, LIFETIME
from tests.support.builders import PASSWORD, a_service_account
from tests.support.stack import Stack
from tests.support.world import World

Claims = dict[str, Any]


@pytest.fixture
def claims(stack: Stack, world: World) -> Claims:
    """Of a token that would be good."""
    now = stack.run(lambda uow: uow.clock.now())
    return {
        "iss": ISSUER, "aud": AUDIENCE, "sub": str(world.admin.id), "jti": "1", "tv": world.admin.token_version,
        "iat": int(now.timestamp()), "exp": int((now + LIFETIME).timestamp()),
    }  # fmt: skip


def signed(stack: Stack, claims: Claims, header: Claims = HEADER, key: bytes | None = None) -> str:
    """A JWT signed with the real key, or another."""
    algorithm = [header["alg"]]
    return jwt.encode(header, claims, OctKey.import_key(key or stack.keyring.key("jwt")), algorithm)


def by_hand(header: Claims, claims: Claims, signature: str = "") -> str:
    """A JWT that no library would make."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in (header, claims)]
    return ".".join([*parts, signature])


def status_with(stack: Stack, credential: str) -> int:
    """How the API answers that credential."""
    return stack.client(credential=credential).get("/auth/whoami").status


def test_the_token_that_the_others_are_changed_from_is_good(stack: Stack, claims: Claims) -> None:
    assert status_with(stack, signed(stack, claims)) == 200


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", ""])
def test_an_unsigned_token_is_refused(stack: Stack, claims: Claims, algorithm: str) -> None:
    assert status_with(stack, by_hand({"alg": algorithm, "typ": "JWT"}, claims)) == 401


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
def test_another_algorithm_with_the_right_key_is_refused(stack: Stack, claims: Claims, algorithm: str) -> None:
    assert status_with(stack, signed(stack, claims, {"alg": algorithm, "typ": "JWT"})) == 401


@pytest.mark.parametrize("key", [b"", b"secret" * 6, Keyring("x" * 32).key("jwt")])
def test_another_key_is_refused(stack: Stack, claims: Claims, key: bytes) -> None:
    assert status_with(stack, signed(stack, claims, key=key or b"\0" * 32)) == 401


def test_the_key_of_another_purpose_signs_no_token(stack: Stack, claims: Claims) -> None:
    assert status_with(stack, signed(stack, claims, key=stack.keyring.key("cursor"))) == 401


@pytest.mark.parametrize(
    "extra",
    [
        {"jwk": {"kty": "oct", "k": "AAAA"}}, {"jku": "http://127.0.0.1/keys"}, {"x5u": "http://127.0.0.1/c"},
        {"crit": ["exp"]}, {"crit": ["b64"], "b64": False}, {"kid": "../../dev/null"}, {"typ": "at+jwt"},
        {"cty": "JWT"},
    ],
    ids=lambda extra: next(iter(extra)),
)  # fmt: skip
def test_a_header_that_says_how_to_read_it_is_refused(stack: Stack, claims: Claims, extra: Claims) -> None:
    token = signed(stack, claims)
    header = base64.urlsafe_b64encode(json.dumps(HEADER | extra).encode()).decode().rstrip("=")
    body = token.split(".")[1]
    material = f"{header}.{body}"
    seal = hmac.digest(stack.keyring.key("jwt"), material.encode(), "sha256")
    forged = f"{material}.{base64.urlsafe_b64encode(seal).decode().rstrip('=')}"
    assert status_with(stack, forged) == 401


CHANGES: dict[str, Callable[[Claims], Any]] = {
    "expired": lambda c: c.update(exp=c["iat"] - 1),
    "expires as NaN": lambda c: c.update(exp=float("nan")),
    "expires as text": lambda c: c.update(exp="9999999999"),
    "never expires": lambda c: c.pop("exp"),
    "issued in the future": lambda c: c.update(iat=c["iat"] + 600),
    "no issue time": lambda c: c.pop("iat"),
    "another audience": lambda c: c.update(aud="another"),
    "no audience": lambda c: c.pop("aud"),
    "another issuer": lambda c: c.update(iss="another"),
    "no issuer": lambda c: c.pop("iss"),
    "no jti": lambda c: c.pop("jti"),
    "another token version": lambda c: c.update(tv=c["tv"] + 1),
    "no token version": lambda c: c.pop("tv"),
    "a token version of true": lambda c: c.update(tv=True),
    "nobody": lambda c: c.pop("sub"),
    "no id": lambda c: c.update(sub="admin"),
    "a number": lambda c: c.update(sub=1),
    "somebody who is not there": lambda c: c.update(sub="01990000-0000-7000-8000-000000000000"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_token_whose_claims_do_not_hold_is_refused(stack: Stack, claims: Claims, change: str) -> None:
    CHANGES[change](claims)
    assert status_with(stack, signed(stack, claims)) == 401


@pytest.mark.parametrize(
    "credential", ["x", "a.b.c", "..", "trk_", "trk_x", "trr_x", "trk_" + "A" * 43, "\x7f", "A" * 5000]
)
def test_nonsense_is_refused(stack: Stack, credential: str) -> None:
    assert status_with(stack, credential) == 401


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer ", "Basic YTpi", "bearer", "Token abc", "Bearer\tabc"])
def test_another_scheme_is_refused(stack: Stack, header: str) -> None:
    assert stack.client().get("/auth/whoami", headers={"Authorization": header}).status == 401


def test_two_credentials_are_refused(stack: Stack, claims: Claims) -> None:
    value = f"Bearer {signed(stack, claims)}"
    client = stack.app.test_client()
    response = client.get("/api/v1/auth/whoami", headers=[("Authorization", value), ("Authorization", value)])
    assert response.status_code == 422


def test_a_tampered_body_is_refused(stack: Stack, world: World, claims: Claims) -> None:
    header, _, signature = signed(stack, claims).split(".")
    claims["sub"] = str(world.member.id)
    body = by_hand(HEADER, claims).split(".")[1]
    assert status_with(stack, f"{header}.{body}.{signature}") == 401


def test_a_new_password_ends_every_session(stack: Stack, world: World) -> None:
    session = sign_in(stack, world.member.username)
    me = stack.client(credential=session["access_token"])
    assert me.put("/auth/password", {"current": PASSWORD, "new": "another good password"}).status == 204
    assert me.get("/auth/whoami").status == 401
    assert stack.client().post("/auth/refresh", {"refresh_token": session["refresh_token"]}).status == 401
    assert stack.client().post("/auth/token", {"username": world.member.username, "password": PASSWORD}).status == 401
    assert sign_in(stack, world.member.username, "another good password")


def test_a_wrong_current_password_changes_nothing(stack: Stack, world: World) -> None:
    me = stack.client(world.member)
    answer = me.put("/auth/password", {"current": "wrong", "new": "another good password"})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/current")
    assert me.get("/auth/whoami").status == 200


def test_a_disabled_person_is_out_at_once(stack: Stack, world: World) -> None:
    session, me = sign_in(stack, world.member.username), stack.client(world.member)
    key = me.post("/api-keys", {"name": "mine"}).json["key"]
    assert stack.client(world.admin).patch(f"/users/{world.member.id}", {"disabled": True}).status == 200
    assert me.get("/auth/whoami").status == 401
    assert status_with(stack, key) == 401
    assert stack.client().post("/auth/refresh", {"refresh_token": session["refresh_token"]}).status == 401
    assert stack.client().post("/auth/token", {"username": world.member.username, "password": PASSWORD}).status == 401


def test_a_revoked_key_is_refused_at_once(stack: Stack, world: World) -> None:
    me = stack.client(world.member)
    made = me.post("/api-keys", {"name": "mine"}).json
    assert status_with(stack, made["key"]) == 200
    assert me.delete(f"/api-keys/{made['id']}").status == 204
    assert status_with(stack, made["key"]) == 401


def test_an_expired_key_is_refused(stack: Stack, world: World) -> None:
    now = stack.run(lambda uow: uow.clock.now())
    me = stack.client(world.member)
    soon = {"name": "mine", "expires_at": (now + timedelta(milliseconds=300)).isoformat()}
    key = me.post("/api-keys", soon).json["key"]
    stack.wait_until(lambda: status_with(stack, key) == 401)


def test_the_key_of_a_removed_service_account_is_refused(stack: Stack, world: World) -> None:
    account, chief = stack.add(a_service_account(world.project)), stack.client(world.project_admin)
    key = chief.post(f"/service-accounts/{account.id}/keys", {"name": "one"}).json["key"]
    assert status_with(stack, key) == 200
    assert chief.delete(f"/service-accounts/{account.id}").status == 204
    assert status_with(stack, key) == 401


def test_a_key_is_kept_as_a_keyed_digest_alone(stack: Stack, world: World) -> None:
    me = stack.client(world.member)
    key = me.post("/api-keys", {"name": "mine"}, headers={"Idempotency-Key": "1"}).json["key"]
    assert key not in stack.dump()
    assert key not in me.get("/api-keys").text


def test_a_secret_is_not_answered_twice(stack: Stack, world: World) -> None:
    me, header = stack.client(world.member), {"Idempotency-Key": "1"}
    assert me.post("/api-keys", {"name": "mine"}, headers=header).status == 201
    again = me.post("/api-keys", {"name": "mine"}, headers=header)
    assert (again.status, again.json["code"]) == (409, "secret_already_shown")


def test_a_refresh_token_is_for_one_use_and_its_second_use_ends_the_chain(stack: Stack, world: World) -> None:
    first = sign_in(stack, world.member.username)["refresh_token"]
    second = refresh(stack, first).json["refresh_token"]
    assert refresh(stack, first).status == 401
    assert refresh(stack, second).status == 401
    assert stack.events_of(world.member.id) == ["user.signed_in", "user.refresh_token_reused"]


def test_of_two_uses_at_the_same_moment_one_is_the_reuse(stack: Stack, world: World) -> None:
    token = sign_in(stack, world.member.username)["refresh_token"]
    sign_ins = stack.app.extensions["sign_ins"]
    outcomes = stack.race(lambda uow: sign_ins.continue_session(uow, token), times=2)
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Session", "Unauthenticated"]
    (winner,) = [outcome for outcome in outcomes if isinstance(outcome, Session)]
    assert refresh(stack, winner.refresh_token).status == 401


def test_signing_out_ends_the_chain(stack: Stack, world: World) -> None:
    token = sign_in(stack, world.member.username)["refresh_token"]
    second = refresh(stack, token).json["refresh_token"]
    assert stack.client().post("/auth/revoke", {"refresh_token": second}).status == 204
    assert refresh(stack, second).status == 401
    assert stack.client().post("/auth/revoke", {"refresh_token": "trr_unknown"}).status == 204


def test_an_access_token_refreshes_nothing(stack: Stack, world: World) -> None:
    assert refresh(stack, sign_in(stack, world.member.username)["access_token"][:200]).status == 401


def test_guessing_is_slowed_down_for_a_name_and_an_address(stack: Stack, world: World) -> None:
    guess = {"username": world.member.username, "password": "wrong"}
    answers = [stack.client().post("/auth/token", guess) for _ in range(11)]
    assert [answer.status for answer in answers] == [401] * 10 + [429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 300
    assert sign_in(stack, world.viewer.username)


def test_signing_in_rightly_is_not_slowed_down(stack: Stack, world: World) -> None:
    assert all(sign_in(stack, world.member.username) for _ in range(12))


def test_a_wrong_password_and_a_wrong_name_get_the_same_answer(stack: Stack, world: World) -> None:
    answers = [
        stack.client().post("/auth/token", {"username": name, "password": "wrong"})
        for name in (world.member.username, "nobody-of-that-name")
    ]
    assert answers[0].json | {"trace_id": ""} == answers[1].json | {"trace_id": ""}


def sign_in(stack: Stack, username: str, password: str = PASSWORD) -> dict[str, Any]:
    """A session of that user."""
    answer = stack.client().post("/auth/token", {"username": username, "password": password})
    assert answer.status == 200, answer.text
    session: dict[str, Any] = answer.json
    return session


def refresh(stack: Stack, token: str) -> Any:
    """The answer to a refresh."""
    return stack.client().post("/auth/refresh", {"refresh_token": token})
