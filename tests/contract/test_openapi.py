"""The description of the API is whole: every route is in it, and every operation says what it does.

That it has not changed unnoticed is the snapshot's task: `docs/reference/openapi.json`, in `test_docs`.
"""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from app.core.settings import Settings
from app.factory import PREFIX, create_app
from app.http.transaction import TransactionalFlask

_PARAMETER = re.compile(r"<(?:[^:<>]+:)?([^<>]+)>")
# Pages for people, and what tells a watcher that the process lives.
OUTSIDE = {"/healthz", "/docs", "/docs/start.js", "/docs/assets/{name}", f"{PREFIX}/openapi.json"}


@pytest.fixture(scope="module")
def app() -> TransactionalFlask:
    return create_app(Settings("postgresql://nobody@127.0.0.1:1/none", "redis://127.0.0.1:1/0", "x" * 32))


@pytest.fixture(scope="module")
def document(app: TransactionalFlask) -> dict[str, Any]:
    found: dict[str, Any] = app.test_client().get(f"{PREFIX}/openapi.json").get_json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, item in document["paths"].items():
        for method in item.keys() - {"parameters"}:
            yield f"{method.upper()} {path}", {**item[method], "shared": item.get("parameters", [])}


def test_every_route_is_described(app: TransactionalFlask, document: dict[str, Any]) -> None:
    routes = {
        f"{method} {described(rule.rule)}"
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if described(rule.rule) not in OUTSIDE
    }
    assert routes == {name for name, _ in operations(document)}


def described(rule: str) -> str:
    return _PARAMETER.sub(r"{\1}", rule)


def test_every_operation_says_in_a_sentence_what_it_does(document: dict[str, Any]) -> None:
    assert not [name for name, operation in operations(document) if not operation.get("summary", "").endswith(".")]


def test_every_operation_has_a_name_of_its_own(document: dict[str, Any]) -> None:
    names = [operation["operationId"] for _, operation in operations(document)]
    assert len(names) == len(set(names))


def test_every_operation_says_what_it_answers_when_all_is_well_and_when_not(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        statuses = set(operation["responses"])
        assert any(status.startswith(("2", "3")) for status in statuses), name
        assert {"401", "403", "404", "409", "413", "422", "429", "503"} <= statuses, name


def test_every_parameter_of_a_path_is_described(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        given = {p["name"] for p in (*operation.get("parameters", ()), *operation["shared"]) if p["in"] == "path"}
        assert given == set(re.findall(r"{(\w+)}", name)), name


def test_every_post_that_needs_a_caller_takes_an_idempotency_key(document: dict[str, Any]) -> None:
    for name, operation in operations(document):
        keyed = any(p["name"] == "Idempotency-Key" for p in operation.get("parameters", ()))
        assert keyed == (name.startswith("POST ") and operation.get("security") != []), name


def test_what_needs_no_caller_is_signing_in_and_nothing_else(document: dict[str, Any]) -> None:
    public = {name for name, operation in operations(document) if operation.get("security") == []}
    assert public == {f"POST {PREFIX}/auth/{verb}" for verb in ("token", "refresh", "revoke")}


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in set(_references(document)):
        part: Any = document
        for word in reference.removeprefix("#/").split("/"):
            assert word in part, reference
            part = part[word]


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def test_the_document_says_which_openapi_it_follows(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1.")


def test_only_what_a_job_may_ask_for_is_offered(document: dict[str, Any]) -> None:
    assert document["components"]["schemas"]["JobSubmit"]["properties"]["executor"]["enum"] == ["process", "container"]
