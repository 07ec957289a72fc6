"""What every request and every answer goes through, whatever the endpoint."""

import io
from typing import Any

import pytest

from app.factory import BLUEPRINTS
from app.http.blueprint import Blueprint
from app.http.headers import STRICT
from tests.support.stack import Stack
from tests.support.world import World


@pytest.mark.parametrize("path", ["/healthz", "/docs", "/openapi.json", "/auth/whoami", "/nowhere", "/docs/assets/x"])
def test_every_answer_carries_the_strict_headers(stack: Stack, path: str) -> None:
    headers = stack.client().get(path).headers
    assert STRICT.keys() <= set(headers.keys())
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


def test_what_is_behind_the_door_is_kept_by_nobody(stack: Stack, world: World) -> None:
    assert stack.client(world.member).get("/auth/whoami").headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("path", ["/nowhere", "/auth/token", "/users/not-an-id"])
def test_every_error_is_a_problem_with_a_trace(stack: Stack, path: str) -> None:
    answer = stack.client().get(path)
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json["status"] == answer.status
    assert answer.json["trace_id"]
    assert answer.json["instance"] == f"/api/v1{path}"


def test_a_wrong_method_is_answered_with_the_right_ones(stack: Stack) -> None:
    answer = stack.client().get("/auth/token")
    assert (answer.status, set(answer.headers["Allow"].split(", "))) == (405, {"OPTIONS", "POST"})


def test_both_prefixes_are_one_address(stack: Stack, world: World) -> None:
    caller = stack.client(world.member)
    assert caller.get("/v1/auth/whoami").json == caller.get("/api/v1/auth/whoami").json


SIGN_IN = "/auth/token"


def send(stack: Stack, body: bytes, headers: dict[str, str] | None = None, **options: Any) -> Any:
    """POST raw bytes as JSON to an endpoint that needs no credential."""
    all_headers = {"Content-Type": "application/json"} | (headers or {})
    return stack.client().call("POST", SIGN_IN, headers=all_headers, data=body, **options)


@pytest.mark.parametrize(
    "body", [b"{", b'{"username": NaN}', b"[" * 100_000, b'{"username": "a", "username": "b"}', b"\xff"]
)
def test_a_body_that_is_not_json_is_refused_with_the_place(stack: Stack, body: bytes) -> None:
    answer = send(stack, body)
    assert (answer.status, answer.json["code"], answer.json["errors"][0]["pointer"]) == (422, "invalid", "")
    assert answer.json["errors"][0]["message"]


@pytest.mark.parametrize("body", [b"null", b"[]", b'"text"', b"1", b"true"])
def test_a_body_that_is_no_object_is_refused(stack: Stack, body: bytes) -> None:
    answer = send(stack, body)
    assert (answer.status, answer.json["errors"]) == (422, [{"pointer": "", "message": "must be an object"}])


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/xml"]
)
def test_another_kind_of_body_is_refused(stack: Stack, kind: str) -> None:
    answer = send(stack, b'{"username": "a", "password": "b"}', {"Content-Type": kind})
    assert (answer.status, answer.json["status"], answer.json["code"]) == (415, 415, "http")


@pytest.mark.parametrize("packing", ["gzip", "deflate", "br", "gzip, identity"])
def test_a_packed_body_is_refused(stack: Stack, packing: str) -> None:
    assert send(stack, b"{}", {"Content-Encoding": packing}).status == 415


def test_a_body_over_the_limit_is_refused(stack: Stack) -> None:
    answer = send(stack, b'{"username": "' + b"x" * stack.settings.max_body_bytes + b'"}')
    assert (answer.status, answer.json["code"]) == (413, "too_large")


def test_a_chunked_body_over_the_limit_is_refused(stack: Stack) -> None:
    stream = io.BytesIO(b'{"username": "' + b"x" * stack.settings.max_body_bytes + b'"}')
    response = stack.app.test_client().post(
        "/api/v1/auth/token", input_stream=stream, content_type="application/json",
        environ_overrides={"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
    )  # fmt: skip
    assert response.status_code == 413


def test_every_endpoint_reads_its_body_strictly() -> None:
    assert all(isinstance(blueprint, Blueprint) for blueprint in BLUEPRINTS)


def test_the_same_post_twice_with_one_key_has_one_effect_and_one_answer(stack: Stack, world: World) -> None:
    admin, key = stack.client(world.admin), {"Idempotency-Key": "once"}
    first, again = (admin.post("/organisations", {"name": "one"}, headers=key) for _ in range(2))
    assert (first.status, first.json) == (again.status, again.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    other = admin.post("/organisations", {"name": "two"}, headers=key)
    assert (other.status, other.json["code"]) == (409, "idempotency_key_reused")
    assert stack.client(world.member).post("/organisations", {"name": "one"}, headers=key).status == 403
