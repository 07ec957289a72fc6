"""DEF-2: amounts that are negative, fractional where they may not be, not finite, huge, booleans or text."""

import json
from itertools import pairwise
from typing import Any

import pytest
from sqlalchemy import func, select

from app.core.events import Event
from app.jobs.models import Job
from tests.support.stack import Caller, Stack
from tests.support.world import World

NOT_AMOUNTS: list[Any] = [-1, -0.5, "-1", "1e9", "0x10", "NaN", "inf", "1 000", "", "ten", True, False, [], {}, None,
                          2**63, 10**30, 1e308, "9" * 40, "1\u0662"]  # fmt: skip
NOT_WHOLE: list[Any] = [*NOT_AMOUNTS, 1.5, 1.0, "1"]
FIELDS = [
    ("/resources/cpus", [*NOT_AMOUNTS, 0, 0.00001]),
    ("/resources/memory", [*NOT_AMOUNTS, 0, 1.5]),
    ("/resources/gpus", [*NOT_AMOUNTS, 1.5, 1025]),
    ("/replicas", [*NOT_WHOLE, 0, 4097]),
    ("/priority", [v for v in NOT_WHOLE if v != -1 or isinstance(v, bool)] + [1001, -1001]),
    ("/time_limit", [v for v in NOT_AMOUNTS if v is not None] + [0, 1.5]),
    ("/grace", NOT_AMOUNTS),
    ("/retries/limit", [*NOT_WHOLE, 21]),
    ("/retries/backoff_s", NOT_AMOUNTS),
    ("/min_replicas", [*NOT_WHOLE, 0, 4097]),
    ("/max_replicas", [*NOT_WHOLE, 0, 4097]),
    ("/roles/0/replicas", [*NOT_WHOLE, 0, 4097]),
    ("/roles/0/max_replicas", [*NOT_WHOLE, 0, 4097]),
    ("/roles/0/resources/cpus", [*NOT_AMOUNTS, 0, 0.00001]),
    ("/roles/0/resources/memory", [*NOT_AMOUNTS, 0, 1.5]),
    ("/roles/0/resources/gpus", [*NOT_AMOUNTS, 1.5, 1025]),
    ("/constraints/prefers/0/weight", [*NOT_WHOLE, 0, 101]),
    ("/resources/mig_profile", [True, [], {}, None, -1, 2**63, "9g.10gb", "1g.10GB", "x" * 21]),
]


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def body_with(pointer: str, value: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"command": ["true"]}
    *parents, last = pointer.strip("/").split("/")
    inner: Any = body
    for name, below in pairwise([*parents, last]):
        if name == "0":
            inner = inner[0]
        else:
            inner = inner.setdefault(name, [{}] if below == "0" else {})
    inner[last] = value
    return body


def rows(stack: Stack) -> tuple[int, int]:
    def count(uow: Any) -> tuple[int, int]:
        jobs, events = (select(func.count()).select_from(table) for table in (Job, Event))
        return uow.session.execute(jobs).scalar_one(), uow.session.execute(events).scalar_one()

    return stack.run(count)


@pytest.mark.parametrize("pointer", [pointer for pointer, _ in FIELDS])
def test_an_amount_that_is_none_is_refused_by_name_and_nothing_is_written(
    stack: Stack, member: Caller, pointer: str
) -> None:
    before = rows(stack)
    for value in dict(FIELDS)[pointer]:
        answer = member.post("/jobs", body_with(pointer, value))
        assert answer.status == 422, (value, answer.text)
        assert pointer in [error["pointer"] for error in answer.json["errors"]], (value, answer.text)
    assert rows(stack) == before


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_json_does_not_have_are_refused(stack: Stack, member: Caller, word: str) -> None:
    before = rows(stack)
    text = json.dumps(body_with("/resources/cpus", 0)).replace(": 0}", f": {word}}}")
    answer = member.call("POST", "/jobs", data=text, content_type="application/json")
    assert answer.status == 422, answer.text
    assert rows(stack) == before


def test_a_batch_with_one_bad_amount_is_refused_whole(stack: Stack, member: Caller) -> None:
    before = rows(stack)
    jobs = [{"command": ["true"]}, body_with("/resources/gpus", -1), {"command": ["true"]}]
    answer = member.post("/jobs/batch", {"jobs": jobs})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/jobs/1/resources/gpus")
    assert rows(stack) == before


@pytest.mark.parametrize(
    "indexes", ["0-9999999", "5-1", "1-", "-1", "a", "1,,2", "0-10:0", "٣", "0-3\n", ",", "0-20000:1"]
)
def test_an_array_that_is_none_or_too_large_is_refused(stack: Stack, member: Caller, indexes: str) -> None:
    before = rows(stack)
    answer = member.post("/jobs", {"command": ["true"], "array": {"indexes": indexes}})
    assert (answer.status, answer.json["errors"][0]["pointer"]) == (422, "/array/indexes"), answer.text
    assert rows(stack) == before


def test_a_body_over_the_limit_is_refused_with_413(stack: Stack, member: Caller) -> None:
    before = rows(stack)
    answer = member.post("/jobs", {"script": "x" * (5 << 20)})
    assert (answer.status, answer.json["code"]) == (413, "too_large")
    assert rows(stack) == before


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"command": []}, "/command"),
        ({"command": [" "]}, "/command/0"),
        ({"command": ["a\0b"]}, ""),
        ({}, "/command"),
        ({"command": ["x"], "script": "y"}, "/command"),
        ({"script": "y", "script_name": "../../etc/passwd"}, "/script_name"),
        ({"command": ["x"], "environment": {"LD_PRELOAD": "x"}}, "/environment/LD_PRELOAD"),
        ({"command": ["x"], "environment": {"TRELLIS_SECRET_KEY": "x"}}, "/environment/TRELLIS_SECRET_KEY"),
        ({"command": ["x"], "environment": {"A B": "x"}}, "/environment/A B"),
        ({"command": ["x"], "labels": {"": "x"}}, "/labels/"),
        ({"command": ["x"], "deadline": "2001-01-01T00:00:00Z"}, "/deadline"),
        ({"command": ["x"], "deadline": "tomorrow"}, "/deadline"),
        ({"command": ["x"], "queue": "no-such"}, "/queue"),
        ({"command": ["x"], "project": "no-such"}, "/project"),
        ({"command": ["x"], "depends_on": [{"job": "0198f000-0000-7000-8000-000000000000"}]}, "/depends_on/0/job"),
        ({"command": ["x"], "executor": "magic"}, "/executor"),
        ({"command": ["x"], "state": "succeeded"}, "/state"),
        ({"command": ["x"], "fence": 3}, "/fence"),
        ({"command": ["x"], "resources": {"gpu_type": "H100"}}, "/resources/gpu_type"),
        ({"command": ["x"], "constraints": {"pool": "no-such"}}, "/constraints/pool"),
        ({"command": ["x"], "constraints": {"topology": {"level": "aisle"}}}, "/constraints/topology/level"),
        (
            {"command": ["x"], "constraints": {"affinity": [{"labels": {"placement/a": "b"}, "level": "aisle"}]}},
            "/constraints/affinity/0/level",
        ),
        ({"command": ["x"], "asks": {}}, "/asks"),
        ({"command": ["x"], "constraints": {"pool_id": "x"}}, "/constraints/pool_id"),
    ],
)
def test_every_fault_of_a_submission_names_its_field(
    stack: Stack, member: Caller, body: dict[str, Any], pointer: str
) -> None:
    before = rows(stack)
    answer = member.post("/jobs", body)
    assert answer.status == 422, answer.text
    assert pointer in [error["pointer"] for error in answer.json["errors"]], answer.text
    assert rows(stack) == before


CLAIMS = {
    "/resources/allocate": {"/ttl": [*NOT_AMOUNTS, 0, 7 * 86_400 + 1]},
    "/resources/reserve": {"/count": [*NOT_WHOLE, 0, 1001]},
}
EVERY_CLAIM = {
    "/cpus": [*NOT_AMOUNTS, 0, 0.00001],
    "/memory": [*NOT_AMOUNTS, 0, 1.5],
    "/gpus": [*NOT_AMOUNTS, 1.5, 65],
}


@pytest.mark.parametrize("path", CLAIMS)
def test_a_claim_of_what_is_no_amount_is_refused_by_name_and_nothing_is_written(
    stack: Stack, world: World, path: str
) -> None:
    chief, before = stack.client(world.project_admin), stack.dump()
    for pointer, values in (EVERY_CLAIM | CLAIMS[path]).items():
        for value in values:
            window = {"ends_at": "2099-01-01T00:00:00Z"} if path.endswith("/reserve") else {}
            answer = chief.post(path, window | {pointer[1:]: value})
            named = [error["pointer"] for error in answer.json["errors"]]
            assert (answer.status, pointer in named) == (422, True), (pointer, value, answer.text)
    assert stack.dump() == before


WISHES = {
    "/copies": [*NOT_WHOLE, 0, 101],
    "/more/0/count": [*NOT_WHOLE, 0, 1001],
    "/job/resources/gpus": [*NOT_AMOUNTS, 1.5, 1025],
    "/job/replicas": [*NOT_WHOLE, 0, 4097],
}


def test_a_question_about_what_is_no_amount_is_refused_by_name(stack: Stack, member: Caller) -> None:
    for pointer, values in WISHES.items():
        for value in values:
            body: dict[str, Any] = {"job": {}, "more": [{"like": "node-1"}]}
            *parents, last = pointer.strip("/").split("/")
            inner: Any = body
            for name in parents:
                inner = inner[int(name)] if name.isdigit() else inner.setdefault(name, {})
            inner[last] = value
            answer = member.post("/resources/what-if", body)
            named = [error["pointer"] for error in answer.json["errors"]]
            assert (answer.status, pointer in named) == (422, True), (pointer, value, answer.text)


LIMITS = [value for value in NOT_AMOUNTS if value is not None]


@pytest.mark.parametrize(
    ("path", "pointers"),
    [
        ("/resources/pools", ["/nominal/cpus", "/lends/memory", "/borrows/gpus", "/overcommit/cpu", "/weight"]),
        ("/queues", ["/most/gpus", "/weight", "/most_running"]),
    ],
)
def test_a_limit_that_is_no_amount_is_refused_by_name_and_nothing_is_written(
    stack: Stack, world: World, path: str, pointers: list[str]
) -> None:
    admin, before = stack.client(world.admin), stack.dump()
    for pointer in pointers:
        for value in LIMITS:
            body: dict[str, Any] = {"name": "x"}
            *parents, last = pointer.strip("/").split("/")
            inner = body
            for name in parents:
                inner = inner.setdefault(name, {})
            inner[last] = value
            answer = admin.post(path, body)
            named = [error["pointer"] for error in answer.json["errors"]]
            assert (answer.status, pointer in named) == (422, True), (pointer, value, answer.text)
    assert stack.dump() == before
