"""The description of the API: complete, and readable without any other host."""

import re
from typing import Any

import pytest

from app.core.settings import Settings
from app.factory import create_app
from tests.support.stack import SECRET_KEY

METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture(scope="module")
def client() -> Any:
    return create_app(Settings("postgresql://nowhere", "redis://nowhere", SECRET_KEY)).test_client()


@pytest.fixture(scope="module")
def document(client: Any) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/v1/openapi.json").json
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every operation by its method and path."""
    return [
        (f"{method} {path}", operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]


def test_it_is_openapi_3_1(document: dict[str, Any]) -> None:
    assert document["openapi"] == "3.1.0"
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    assert document["security"] == [{"bearer": []}]


def test_every_operation_has_a_summary_a_tag_a_name_and_its_errors(document: dict[str, Any]) -> None:
    problem = {"$ref": "#/components/responses/Problem"}
    found = operations(document)
    assert found
    for name, operation in found:
        assert operation.get("summary"), name
        assert operation["tags"], name
        assert operation["responses"]["401"] == operation["responses"]["422"] == problem, name
    names = [operation["operationId"] for _, operation in found]
    assert len(names) == len(set(names))


def test_signing_in_alone_takes_no_credential(document: dict[str, Any]) -> None:
    assert {name for name, operation in operations(document) if operation.get("security") == []} == {
        "post /api/v1/auth/token", "post /api/v1/auth/refresh", "post /api/v1/auth/revoke",
    }  # fmt: skip


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def references(value: Any) -> list[str]:
        if isinstance(value, dict):
            own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
            return own + [reference for inner in value.values() for reference in references(inner)]
        return [reference for inner in value for reference in references(inner)] if isinstance(value, list) else []

    for reference in references(document):
        target: Any = document
        for part in reference.removeprefix("#/").split("/"):
            target = target[part]


def test_the_page_loads_from_this_host_alone(client: Any) -> None:
    page = client.get("/docs")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert not re.search(r"https?:|\*|unsafe-eval|script-src[^;]*unsafe-inline", policy)
    assets = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert assets
    for asset in assets:
        assert asset.startswith("/docs/")
        assert client.get(asset).status_code == 200, asset


def test_no_other_file_of_the_package_is_served(client: Any) -> None:
    for name in ("oauth2-redirect.html", "..%2f..%2fREADME.md", "index.css", "VERSION"):
        assert client.get(f"/docs/assets/{name}").status_code == 404
