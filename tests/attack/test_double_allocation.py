"""DEF-2: a device is never given twice, however many claim it at once and whichever way they come."""

from collections.abc import Callable

import pytest
from sqlalchemy import insert, select, text, update
from sqlalchemy.exc import IntegrityError

from app.core.ids import new_id
from app.core.uow import UnitOfWork
from app.resources.allocations import Grant, grant, lock_node, lock_nodes, release
from app.resources.models import Allocation, AllocationGpu, Gpu, Node
from app.scheduling.cycle import Outcome
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Stack
from tests.support.world import World


def a_claim(stack: Stack, world: World, milli: int = 1000, cpu_milli: int = 0) -> tuple[Node, Grant]:
    node = stack.run(lambda uow: uow.session.execute(select(Node)).scalar_one())
    gpu = stack.run(lambda uow: uow.session.execute(select(Gpu).order_by(Gpu.index.desc()).limit(1)).scalar_one())
    claim = Grant(new_id(), node.id, world.project.id, new_id(), "claim", cpu_milli, 0, {gpu.id: milli})
    return node, claim


def claiming(node: Node, claim: Grant) -> Callable[[UnitOfWork], str]:
    def act(uow: UnitOfWork) -> str:
        mine = Grant(new_id(), *(getattr(claim, name) for name in Grant.__slots__[1:]))
        grant(uow, [mine], lock_nodes(uow, [node.id]))
        return "granted"

    return act


def test_of_64_claims_on_the_last_gpu_exactly_one_wins(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world, a_description(gpus=1))
    outcomes = stack.race(claiming(*a_claim(stack, world)), times=64)
    names = [outcome if isinstance(outcome, str) else type(outcome).__name__ for outcome in outcomes]
    assert names.count("granted") == 1
    assert set(names) <= {"granted", "CapacityTaken", "Unavailable"}  # who waits too long is asked to come again


def test_shares_of_one_device_never_exceed_it(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world, a_description(gpus=1))
    outcomes = stack.race(claiming(*a_claim(stack, world, milli=300)), times=16)
    assert outcomes.count("granted") == 3
    assert stack.run(lambda uow: uow.session.execute(select(Gpu.milli_used)).scalar_one()) == 900


def test_cpus_are_not_given_twice_either(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world, a_description(cpus=2, gpus=1))
    node, claim = a_claim(stack, world, milli=1, cpu_milli=1500)
    outcomes = stack.race(claiming(node, claim), times=8)
    assert outcomes.count("granted") == 1


def test_the_schema_itself_refuses_a_second_whole_claim(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world, a_description(gpus=1))
    node, claim = a_claim(stack, world)
    (gpu_id,) = claim.gpus

    def twice(uow: UnitOfWork) -> None:
        for _ in range(2):
            row = {"id": new_id(), "node_id": node.id, "project_id": world.project.id, "job_id": new_id(),
                   "holder_name": "x", "cpu_milli": 0, "memory_bytes": 0}  # fmt: skip
            uow.session.execute(insert(Allocation), row)
            held = {"allocation_id": row["id"], "gpu_id": gpu_id, "milli": 1000, "live": True}
            uow.session.execute(insert(AllocationGpu), held)

    with pytest.raises(IntegrityError):
        stack.run(twice)
    with pytest.raises(IntegrityError):
        stack.run(lambda uow: uow.session.execute(update(Gpu).values(milli_used=1001)))
    with pytest.raises(IntegrityError):
        stack.run(lambda uow: uow.session.execute(update(Node).values(cpu_milli_used=-1)))


def test_releasing_twice_gives_back_once(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world, a_description(gpus=1))
    node, claim = a_claim(stack, world, cpu_milli=1000)
    stack.run(lambda uow: grant(uow, [claim], lock_nodes(uow, [node.id])))

    def give_back(uow: UnitOfWork) -> None:
        lock_node(uow, node.id)
        release(uow, [claim.replica_id], node.id)

    stack.race(give_back, times=8)
    used = stack.run(lambda uow: uow.session.execute(select(Node.cpu_milli_used, Gpu.milli_used)).one())
    assert tuple(used) == (0, 0)


def test_two_schedulers_at_once_start_each_job_once(stack: Stack, world: World) -> None:
    FakeNode.join(stack, world, a_description(cpus=64, gpus=8))
    member = stack.client(world.member)
    jobs = [{"command": ["true"], "resources": {"gpus": 1}}] * 12
    assert member.post("/jobs/batch", {"jobs": jobs}).status == 201
    outcomes = stack.race(stack.cycle, times=6)
    assert sum(outcome.started for outcome in outcomes if isinstance(outcome, Outcome)) == 8
    held = stack.run(
        lambda uow: uow.session.execute(
            text("SELECT count(*), count(DISTINCT gpu_id) FROM allocation_gpus WHERE live")
        ).one()
    )
    assert tuple(held) == (8, 8)
