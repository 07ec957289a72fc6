"""The same POST sent twice has one effect."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from sqlalchemy import text

from app.core.idempotency import forget_old
from tests.support.stack import Answer, Caller, Stack
from tests.support.world import World


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def jobs(stack: Stack) -> int:
    return int(stack.run(lambda uow: uow.session.execute(text("SELECT count(*) FROM jobs")).scalar_one()))


def post(caller: Caller, key: str, name: str = "x") -> Answer:
    return caller.post("/jobs", {"command": ["true"], "name": name}, headers={"Idempotency-Key": key})


def test_a_repeated_submission_gets_the_first_answer(stack: Stack, member: Caller) -> None:
    first, again = post(member, "k"), post(member, "k")
    assert (again.status, again.json) == (first.status, first.json)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert jobs(stack) == 1


def test_a_key_for_another_request_is_refused(stack: Stack, member: Caller) -> None:
    post(member, "k")
    answer = post(member, "k", name="other")
    assert (answer.status, answer.json["code"]) == (409, "idempotency_key_reused")
    assert jobs(stack) == 1


def test_of_twenty_at_once_one_is_carried_out(stack: Stack, world: World) -> None:
    callers = [stack.client(world.member) for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(lambda caller: post(caller, "k"), callers))
    assert {answer.status for answer in answers} == {201}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert jobs(stack) == 1


def test_another_persons_key_is_another_key(stack: Stack, world: World, member: Caller) -> None:
    other = stack.client(world.project_admin)
    assert post(member, "k").json["id"] != post(other, "k").json["id"]


def test_what_failed_may_be_tried_again_with_the_same_key(stack: Stack, member: Caller) -> None:
    bad = member.post("/jobs", {"command": ["true"], "queue": "none"}, headers={"Idempotency-Key": "k"})
    assert bad.status == 422
    assert post(member, "k").status == 201
    assert jobs(stack) == 1


def test_a_repetition_that_would_now_fail_still_gets_the_first_answer(stack: Stack, world: World) -> None:
    admin = stack.client(world.admin)
    made = [admin.post("/organisations", {"name": "new"}, headers={"Idempotency-Key": "k"}) for _ in range(2)]
    assert [answer.status for answer in made] == [201, 201]
    assert made[0].json == made[1].json


def test_a_secret_is_never_kept_for_a_repetition(stack: Stack, member: Caller) -> None:
    first = member.post("/api-keys", {"name": "a"}, headers={"Idempotency-Key": "k"})
    assert first.status == 201
    again = member.post("/api-keys", {"name": "a"}, headers={"Idempotency-Key": "k"})
    assert (again.status, again.json["code"]) == (409, "secret_already_shown")
    kept = stack.run(lambda uow: uow.session.execute(text("SELECT body::text FROM idempotency_keys")).scalars().all())
    assert all(first.json["key"] not in (body or "") for body in kept)


def test_keys_are_forgotten_after_a_day(stack: Stack, member: Caller) -> None:
    post(member, "k")
    age = text("UPDATE idempotency_keys SET created_at = now() - interval '25 hours'")
    stack.run(lambda uow: uow.session.execute(age))
    stack.run(forget_old)
    post(member, "k")
    assert jobs(stack) == 2
