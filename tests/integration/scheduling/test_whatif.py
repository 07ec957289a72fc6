"""What is said before a submission is what happens after it, and saying it changes nothing."""

import pytest
from sqlalchemy import text

from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Answer, Caller, Stack
from tests.support.world import World

WHAT_IF = "/resources/what-if"


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def ask(caller: Caller, copies: int = 1, more: object = None, without: object = None, **job: object) -> Answer:
    said = {"more": more, "without": without}
    return caller.post(
        WHAT_IF, {"job": job, "copies": copies} | {key: value for key, value in said.items() if value is not None}
    )


def submit(caller: Caller, count: int = 1, **body: object) -> list[str]:
    answer = caller.post("/jobs/batch", {"jobs": [{"command": ["true"], **body}] * count})
    assert answer.status == 201, answer.text
    return [job["id"] for job in answer.json["items"]]


def test_a_job_that_fits_is_told_where_and_then_starts_there(stack: Stack, world: World, member: Caller) -> None:
    for name in ("a", "b"):
        FakeNode.join(stack, world, a_description(name, gpus=4))
    submit(member, resources={"gpus": 3})
    answer = ask(member, resources={"gpus": 2}, replicas=2)
    assert answer.status == 200, answer.text
    (copy,) = answer.json["copies"]
    assert (copy["certainty"], copy["position"], answer.json["why"]) == ("now", None, None)
    (job_id,) = submit(member, resources={"gpus": 2}, replicas=2)
    stack.run(stack.cycle)
    (attempt,) = member.get(f"/jobs/{job_id}?verbose=true").json["attempts"]
    assert [seat["node"] for seat in copy["replicas"]] == [replica["node"] for replica in attempt["replicas"]]
    assert [[gpu["index"] for gpu in seat["gpus"]] for seat in copy["replicas"]] == [
        [gpu["index"] for gpu in replica["gpus"]] for replica in attempt["replicas"]
    ]


def test_asking_changes_no_row_and_no_sequence(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world, a_description(gpus=2))
    submit(member, 3, resources={"gpus": 1})
    stack.run(stack.cycle)
    sequences = text("SELECT string_agg(sequencename || last_value, ',' ORDER BY sequencename) FROM pg_sequences")
    before = stack.dump(), stack.run(lambda uow: uow.session.execute(sequences).scalar_one())
    answer = ask(member, copies=3, more=[{"like": "node-1"}], without=["node-1"], resources={"gpus": 2}, priority=1000)
    assert answer.status == 200, answer.text
    after = stack.dump(), stack.run(lambda uow: uow.session.execute(sequences).scalar_one())
    assert before == after
