"""Files that jobs keep."""

from sqlalchemy import select

from app.jobs.models import Replica
from tests.support.code import digest_of
from tests.support.fake_node import FakeNode
from tests.support.stack import Stack
from tests.support.world import World
from trellis.stores.local import LocalStore


def test_an_artifact_may_be_larger_than_other_bodies(stack: Stack, world: World, store: LocalStore) -> None:
    node = FakeNode.join(stack, world)
    stack.client(world.member).post("/jobs", {"command": ["true"]})
    stack.run(stack.cycle)
    replica = stack.run(lambda uow: uow.session.execute(select(Replica)).scalar_one())
    content = b"x" * (stack.settings.max_body_bytes + 1)
    path = f"/agent/replicas/{replica.id}/artifacts?fence={replica.fence}&name=weights.bin"
    answer = node.caller.call("PUT", path, data=content, headers={"Digest": f"sha-256={digest_of(content)}"})
    assert answer.status == 200, answer.text
