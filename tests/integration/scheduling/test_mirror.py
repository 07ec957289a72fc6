"""The paper cluster that is kept from cycle to cycle agrees with one that is read anew, whatever happened meanwhile."""

import threading
from uuid import UUID

import pytest
from sqlalchemy import select, text

from app.core.uow import UnitOfWork
from app.jobs.losses import end_attempts_on_lost_nodes
from app.jobs.models import Job, Replica
from app.resources.nodes import mark_silent
from app.scheduling.cycle import run_cycle
from app.scheduling.mirror import Mirror
from scheduler.engine import Planner
from tests.support.fake_node import FakeNode, a_description
from tests.support.stack import Caller, Stack
from tests.support.world import World
from trellis import wire

GANG = {"replicas": 2, "resources": {"cpus": 3, "memory": "1GiB", "gpus": 1}, "time_limit": "1h"}


@pytest.fixture
def member(stack: Stack, world: World) -> Caller:
    return stack.client(world.member)


def submit(caller: Caller, count: int = 1, **body: object) -> list[str]:
    answer = caller.post("/jobs/batch", {"jobs": [{"command": ["true"], **body}] * count})
    assert answer.status == 201, answer.text
    return [job["id"] for job in answer.json["items"]]


def state_of(uow: UnitOfWork, planner: Planner) -> object:
    ids = [str(job_id) for job_id in uow.session.execute(select(Job.id)).scalars()]
    rooms = [(room.ready, room.cpu_milli, room.memory_bytes, tuple(room.gpus)) for room in planner.ledger.rooms]
    held = {name: grants for _, name, grants in planner.releases()}
    return rooms, held, [job_id for job_id in ids if planner.find_pending(job_id)]


def kept_and_fresh(stack: Stack) -> tuple[object, object]:
    def act(uow: UnitOfWork) -> tuple[object, object]:
        with stack.mirror.lent(uow) as kept, Mirror().lent(uow) as fresh:
            return state_of(uow, kept), state_of(uow, fresh)

    return stack.run(act)


def agrees(stack: Stack) -> bool:
    kept, fresh = kept_and_fresh(stack)
    return kept == fresh


def specs_on(stack: Stack, node: FakeNode) -> list[wire.ReplicaSpec]:
    rows = select(Replica.id, Replica.fence).where(
        Replica.ended_at.is_(None), Replica.node_id == UUID(node.welcome.node_id)
    )
    pairs = stack.run(lambda uow: [(str(row.id), row.fence) for row in uow.session.execute(rows)])
    return node.specs(*pairs)


def builds(mirror: Mirror) -> object:
    return mirror._built_at


def test_it_follows_jobs_from_submit_to_their_end_without_reading_all_anew(
    stack: Stack, world: World, member: Caller
) -> None:
    nodes = [FakeNode.join(stack, world, a_description(name, cpus=8, gpus=2)) for name in ("n1", "n2")]
    submit(member, 3, **GANG)
    stack.run(stack.cycle)
    built = builds(stack.mirror)
    assert agrees(stack)
    gone, *_ = submit(member, 4)
    assert agrees(stack)
    stack.run(stack.cycle)
    member.patch(f"/jobs/{gone}/status", {"action": "cancel"})
    specs = [(node, spec) for node in nodes for spec in specs_on(stack, node)]
    specs[0][0].succeed(specs[0][1])  # of a gang of two the first: the other holds on
    assert agrees(stack)
    for node, spec in specs[1:]:
        node.fail(spec)
    assert agrees(stack)
    stack.run(stack.cycle)
    assert agrees(stack)
    assert builds(stack.mirror) == built


def test_what_another_scheduler_placed_is_seen(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world)
    stack.run(stack.cycle)
    submit(member, 5)
    stack.run(lambda uow: run_cycle(uow, Mirror()))
    assert agrees(stack)


def test_a_cycle_that_was_rolled_back_leaves_no_trace(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world)
    stack.run(stack.cycle)
    submit(member, 2)

    def failing(uow: UnitOfWork) -> None:
        assert stack.cycle(uow).started == 2
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError):
        stack.run(failing)
    assert agrees(stack)
    assert stack.run(stack.cycle).started == 2


def test_a_fault_while_planning_empties_it(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world)
    (job,) = submit(member)

    def failing(uow: UnitOfWork) -> None:
        with stack.mirror.lent(uow) as planner:
            planner.withdraw(job)
            raise RuntimeError("a bug")

    with pytest.raises(RuntimeError):
        stack.run(failing)
    assert stack.run(stack.cycle).started == 1


def test_a_commit_that_comes_late_with_a_low_event_id_is_seen(stack: Stack, world: World, member: Caller) -> None:
    FakeNode.join(stack, world)
    stack.run(stack.cycle)
    (late,) = submit(member)
    written, commit = threading.Event(), threading.Event()

    def cancel_slowly(uow: UnitOfWork) -> None:
        uow.session.execute(text("UPDATE jobs SET state = 'cancelled', ended_at = now() WHERE id = :id"), {"id": late})
        uow.emit("job.cancelled", uow.session.get_one(Job, UUID(late)))
        uow.flush()
        written.set()
        commit.wait(20)

    thread = threading.Thread(target=stack.run, args=(cancel_slowly,))
    thread.start()
    assert written.wait(10)
    for _ in range(3):  # looks pass over the open transaction while ids far above its own are used up
        submit(member, 200)
        assert agrees(stack)
    commit.set()
    thread.join(20)
    kept, fresh = kept_and_fresh(stack)
    assert kept == fresh


def test_a_node_that_joins_or_leaves_and_a_queue_that_pauses_are_seen(
    stack: Stack, world: World, member: Caller
) -> None:
    submit(member, 3)
    assert stack.run(stack.cycle).started == 0
    FakeNode.join(stack, world, a_description(cpus=2))
    assert stack.run(stack.cycle).started == 2
    admin = stack.client(world.admin)
    queue = next(q["id"] for q in admin.get("/queues").json["items"] if q["name"] == "default")
    admin.put(f"/queues/{queue}/pause")
    FakeNode.join(stack, world, a_description("second", cpus=8))
    assert stack.run(stack.cycle).started == 0
    admin.put(f"/queues/{queue}/resume")
    assert stack.run(stack.cycle).started == 1


def test_a_silent_node_that_is_given_up_changes_nothing_but_its_jobs(
    stack: Stack, world: World, member: Caller
) -> None:
    silent, *_ = [FakeNode.join(stack, world, a_description(name, cpus=8, gpus=2)) for name in ("n1", "n2", "n3")]
    submit(member, 3, **GANG)
    stack.run(stack.cycle)
    long_ago = text("UPDATE nodes SET last_seen_at = last_seen_at - interval '1 hour' WHERE id = :id")
    stack.run(lambda uow: uow.session.execute(long_ago, {"id": UUID(silent.welcome.node_id)}))
    stack.run(lambda uow: mark_silent(uow, 10, 100_000))
    assert agrees(stack)
    built = builds(stack.mirror)
    assert len(stack.run(lambda uow: mark_silent(uow, 10, 60))) == 1
    stack.run(end_attempts_on_lost_nodes)
    assert agrees(stack)
    assert builds(stack.mirror) == built
    silent.beat()
    assert agrees(stack)
    assert builds(stack.mirror) != built
