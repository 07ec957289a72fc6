"""Who gets replicas beyond its least, and when not."""

from dataclasses import replace

from scheduler.config import Config, Preemption
from scheduler.engine import Planner, plan
from scheduler.plan import Plan
from scheduler.snapshot import (
    UNLIMITED,
    Account,
    Amounts,
    Constraints,
    Holding,
    PendingJob,
    Request,
    Reservation,
    Role,
    RunningJob,
    Slice,
    Snapshot,
    Taint,
)
from tests.support.clusters import GIB, NOW, a_holding, a_node, a_request, a_snapshot, applied
from tests.support.evictions import in_domain, runs, victims, wants, whole

CONFIG = Config(restart_s=120, preemption=Preemption(min_run_s=300))


def elastic(job: PendingJob, most: int) -> PendingJob:
    (role,) = job.job_class.roles
    return replace(job, job_class=replace(job.job_class, roles=(replace(role, most=most),)))


def grown(job: RunningJob, most: int) -> RunningJob:
    (role,) = job.job_class.roles
    return replace(job, job_class=replace(job.job_class, roles=(replace(role, most=most),)))


def sizes(made: Plan) -> dict[str, int]:
    return {one.job_id: len(one.replicas) for one in made.placements}


def added(made: Plan) -> dict[str, int]:
    return {one.job_id: len(one.added) for one in made.resizes if one.added}


def test_a_job_starts_with_as_many_replicas_as_there_is_room_for() -> None:
    made = plan(a_snapshot([a_node(gpus=4)], [elastic(wants("j", 1), 3)]), CONFIG)
    assert sizes(made) == {"j": 3}
    assert [one.index for one in made.placements[0].replicas] == [0, 1, 2]
    made = plan(a_snapshot([a_node(gpus=2)], [elastic(wants("j", 1), 3)]), CONFIG)
    assert sizes(made) == {"j": 2}


def test_everybodys_least_comes_before_anybodys_more() -> None:
    jobs = [elastic(wants("first", 1), 9), wants("second", 1, at=1), wants("third", 1, at=2)]
    assert sizes(plan(a_snapshot([a_node(gpus=4)], jobs), CONFIG)) == {"first": 2, "second": 1, "third": 1}


def test_those_with_fewest_for_what_they_need_grow_first() -> None:
    jobs = [elastic(wants("one", 1), 9), elastic(wants("two", 1, replicas=2, at=1), 9)]
    assert sizes(plan(a_snapshot([a_node(gpus=6)], jobs), CONFIG)) == {"one": 2, "two": 4}


def test_the_project_that_holds_least_grows_first() -> None:
    mine, yours = elastic(wants("mine", 1), 9), elastic(wants("yours", 1, at=1), 9)
    yours = replace(yours, job_class=replace(yours.job_class, project_id="other"))
    other = runs("r", ("n1", [0, 1]), priority=50)
    made = plan(a_snapshot([a_node(gpus=6)], [mine, yours], running=[other]), CONFIG)
    assert sizes(made) == {"mine": 1, "yours": 3}


def test_a_running_job_grows_into_room_that_nobody_waits_for() -> None:
    running = grown(runs("r", ("n1", [0]), ("n1", [1])), 3)
    made = plan(a_snapshot([a_node(gpus=4)], [], running=[running]), CONFIG)
    (resize,) = made.resizes
    assert [(one.index, one.gpus) for one in resize.added] == [(2, whole(2))]
    assert resize.reason == "grows into room that nobody waits for"
    again = plan(applied(a_snapshot([a_node(gpus=4)], [], running=[running]), made), CONFIG)
    assert again.resizes == ()


def test_a_job_that_ends_soon_does_not_restart_to_grow() -> None:
    running = grown(runs("r", ("n1", [0])), 2)
    snapshot = a_snapshot([a_node(gpus=4)], [], running=[replace(running, expected_by=NOW + 120)])
    assert added(plan(snapshot, CONFIG)) == {}
    snapshot = a_snapshot([a_node(gpus=4)], [], running=[replace(running, expected_by=NOW + 121)])
    assert added(plan(snapshot, CONFIG)) == {"r": 1}


def test_what_is_no_use_to_one_goes_to_another() -> None:
    short = replace(grown(runs("short", ("n1", [0])), 3), expected_by=NOW + 60)
    long = grown(runs("long", ("n1", [1]), since=1), 3)
    made = plan(a_snapshot([a_node(gpus=4)], [], running=[short, long]), CONFIG)
    assert added(made) == {"long": 2}


def test_nobody_grows_into_what_a_blocked_job_will_need() -> None:
    running = [grown(runs("r", ("n1", [0]), priority=20), 4), runs("s", ("n1", [1]), priority=20)]
    head = wants("head", 3)
    made = plan(a_snapshot([a_node(gpus=4)], [head], running=running), CONFIG)
    assert added(made) == {}


def test_nobody_grows_into_a_reservation_of_others() -> None:
    running = grown(runs("r", ("n1", [0]), priority=20), 4)
    booking = Reservation("b", "other", NOW + 10, NOW + 99, (a_holding("n1", gpus=whole(2, 3)),))
    snapshot = replace(a_snapshot([a_node(gpus=4)], [], running=[running]), reservations=(booking,))
    assert added(plan(snapshot, CONFIG)) == {"r": 1}


def test_a_quota_bounds_growth() -> None:
    snapshot = a_snapshot([a_node(gpus=4)], [elastic(wants("j", 1), 4)])
    quota = Account("p", most=replace_gpus(2000))
    assert sizes(plan(replace(snapshot, accounts=(quota,)), CONFIG)) == {"j": 2}


def replace_gpus(gpu_milli: int) -> Amounts:
    return Account("p").most._replace(gpu_milli=gpu_milli)


def test_replicas_that_must_lie_together_grow_together() -> None:
    nodes = [in_domain(a_node(f"n{i}", gpus=1), f"rack{i % 2}") for i in range(4)]
    job = elastic(wants("j", 1), 4)
    job = replace(job, job_class=replace(job.job_class, constraints=Constraints(within="rack", within_required=True)))
    made = plan(replace(a_snapshot(nodes, [job]), levels=("rack",)), CONFIG)
    assert {one.node_id for one in made.placements[0].replicas} == {"id-n0", "id-n2"}


def test_each_role_grows_to_its_own_most() -> None:
    roles = (Role(a_request(gpu_milli=1000), 1, 2), Role(a_request(cpus=2), 1, 3))
    base = wants("j", 1)
    job = replace(base, job_class=replace(base.job_class, roles=roles))
    made = plan(a_snapshot([a_node(gpus=4, cpus=32)], [job]), CONFIG)
    assert sorted(one.role for one in made.placements[0].replicas) == [0, 0, 1, 1, 1]


def test_what_is_on_loan_goes_back_to_the_next_that_lacks_room() -> None:
    planner = Planner(a_snapshot([a_node(gpus=4)], [elastic(wants("first", 1, priority=0), 4)]), CONFIG)
    assert sizes(planner.plan(NOW)) == {"first": 4}
    planner.submit(wants("second", 2, priority=0))
    made = planner.plan(NOW + 5)
    assert [(one.job_id, one.removed, one.for_job_id) for one in made.resizes] == [("first", (2, 3), "second")]


def test_a_planner_told_that_replicas_have_gone_gives_their_room_away() -> None:
    planner = Planner(a_snapshot([a_node(gpus=4)], [elastic(wants("first", 1, priority=0), 4)]), CONFIG)
    planner.plan(NOW)
    planner.submit(wants("second", 2, priority=0))
    planner.plan(NOW + 5)
    planner.give_up("first", (2, 3))
    made = planner.plan(NOW + 10)
    assert sizes(made) == {"second": 1}
    assert made.resizes == ()


def test_switched_off_nobody_grows() -> None:
    snapshot = a_snapshot([a_node(gpus=4)], [elastic(wants("j", 1), 4)])
    assert sizes(plan(snapshot, Config(elastic=False))) == {"j": 1}


def test_a_job_does_not_shrink_for_itself_and_grow_again() -> None:
    running = [grown(runs("r", ("n1", [0]), ("n1", [1]), least=1, priority=10), 3)]
    snapshot: Snapshot = a_snapshot([a_node(gpus=3)], [wants("j", 2)], running=running)
    made = plan(snapshot, CONFIG)
    assert victims(made) == set()
    assert [one.removed for one in made.resizes] == [(1,)]
    again = plan(applied(snapshot, made), CONFIG)
    assert again.resizes == ()


def test_slices_count_against_a_quota_as_a_job_grows_and_shrinks() -> None:
    nodes = [replace(a_node(gpus=1, model="H100"), gpu_milli_free=(0,), partitioned=(0,), gpu_memory_bytes=80 * GIB)]
    role = Role(Request(1000, GIB, mig_profile="2g.20gb"), 1, 3)
    job_class = replace(wants("x", 1).job_class, roles=(role,))
    holding = Holding("id-n1", 1000, GIB, slices=(Slice(0, "2g.20gb", 0),))
    running = RunningJob("r", job_class, (holding,))
    snapshot = a_snapshot(nodes, [], running=[running])
    for most, more in ((UNLIMITED, {"r": 2}), (2 * 2000 // 7, {"r": 1})):
        limited = replace(snapshot, accounts=(Account("p", most=Amounts(gpu_milli=most)),))
        assert added(plan(limited, CONFIG)) == more
    planner = Planner(snapshot, CONFIG)
    planner.plan(NOW)
    planner.give_up("r", [1, 2])
    planner.end("r")
    assert planner.admission.usage.of_project("p") == 0


def test_a_job_that_has_its_node_for_itself_grows_on_it_only_while_it_is_ready() -> None:
    alone = grown(runs("r", ("n1", [0])), 2)
    alone = replace(alone, job_class=replace(alone.job_class, constraints=Constraints(exclusive=True)))
    snapshot = a_snapshot([a_node(gpus=2)], [], running=[alone])
    assert added(plan(snapshot, CONFIG)) == {"r": 1}
    drained = replace(snapshot, nodes=tuple(replace(node, ready=False) for node in snapshot.nodes))
    assert added(plan(drained, CONFIG)) == {}
    tainted = replace(snapshot, nodes=tuple(replace(node, taints=(Taint("kept"),)) for node in snapshot.nodes))
    assert added(plan(tainted, CONFIG)) == {}


def test_a_job_whose_domain_is_not_known_any_more_does_not_grow_out_of_it() -> None:
    tied = grown(runs("r", ("n1", [0])), 2)
    constraints = Constraints(within="rack", within_required=True)
    tied = replace(tied, job_class=replace(tied.job_class, constraints=constraints))
    nodes = [a_node("n1", gpus=1), in_domain(a_node("n2", gpus=1), "rack2")]
    assert added(plan(replace(a_snapshot(nodes, [], running=[tied]), levels=("rack",)), CONFIG)) == {}
