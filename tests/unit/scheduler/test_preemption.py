"""Who is made to go, for whom, and who is not."""

from dataclasses import replace

import pytest

from scheduler.config import Config, Preemption
from scheduler.engine import plan
from scheduler.plan import EvictionKind, Reason
from scheduler.snapshot import Constraints, PendingJob, Queue, Role, RunningJob
from tests.support.clusters import NOW, a_job, a_node, a_request, a_snapshot, applied, ended
from tests.support.evictions import a_role_class, in_domain, runs, victims, wants

CONFIG = Config(preemption=Preemption(min_run_s=300, max_preemptions=3, grace_s=60))


def test_the_least_important_job_goes_for_a_more_important_one() -> None:
    running = [runs("mid", ("n1", [0]), priority=5), runs("low", ("n1", [1]), priority=1)]
    made = plan(a_snapshot([a_node(gpus=2)], [wants("urgent", 1)], running=running), CONFIG)
    (eviction,) = made.evictions
    assert (eviction.job_id, eviction.kind, eviction.for_job_id) == ("low", EvictionKind.PREEMPT, "urgent")
    assert (eviction.grace_s, eviction.checkpoint) == (60, False)
    assert eviction.reason == (
        "makes room for job urgent: priority 1 below 10; 0.278 GPU-hours to do again, the least that was found"
    )


def test_the_room_is_coming_and_kept_for_the_job_it_was_made_for() -> None:
    snapshot = a_snapshot([a_node(gpus=1)], [wants("urgent", 1)], running=[runs("low", ("n1", [0]))])
    made = plan(snapshot, CONFIG)
    (verdict,) = made.verdicts
    assert verdict.reason is Reason.ROOM_COMING
    assert verdict.message == "room is being made: 1 job was told to end"
    assert verdict.starts_at == NOW + 60
    (promise,) = made.promises
    assert (promise.job_id, promise.starts_at, promise.node_ids) == ("urgent", NOW + 60, ("id-n1",))
    assert promise.holdings[0].gpus == ((0, 1000),)
    again = ended(applied(snapshot, made), "low")
    thief = replace(again, pending=(*again.pending, wants("thief", 1, priority=10, at=-1)))
    assert [placement.job_id for placement in plan(thief, CONFIG).placements] == ["urgent"]


def test_nobody_goes_twice_for_the_same_job() -> None:
    running = [runs("a", ("n1", [0])), runs("b", ("n1", [1]))]
    snapshot = a_snapshot([a_node(gpus=2)], [wants("urgent", 1)], running=running)
    made = plan(snapshot, CONFIG)
    assert len(made.evictions) == 1
    again = plan(applied(snapshot, made), CONFIG)
    assert (again.evictions, again.verdicts, again.promises) == ((), made.verdicts, made.promises)


def test_room_that_is_coming_anyhow_counts_before_anybody_goes() -> None:
    cancelled = replace(runs("cancelled", ("n1", [0]), priority=99), releasing_at=NOW + 20)
    running = [cancelled, runs("low", ("n1", [1]))]
    made = plan(a_snapshot([a_node(gpus=2)], [wants("urgent", 1)], running=running), CONFIG)
    assert made.evictions == ()
    assert made.verdicts[0].reason is Reason.ROOM_COMING
    assert made.verdicts[0].starts_at == NOW + 20


def test_whoever_should_have_ended_long_ago_is_no_longer_counted_on() -> None:
    stuck = replace(runs("stuck", ("n1", [0])), releasing_at=NOW - 61)
    running = [stuck, runs("low", ("n1", [1]))]
    made = plan(a_snapshot([a_node(gpus=2)], [wants("urgent", 1)], running=running), CONFIG)
    assert victims(made) == {"low"}


@pytest.mark.parametrize(
    "protected",
    [
        runs("r", ("n1", [0]), priority=10),
        runs("r", ("n1", [0]), since=NOW - 299),
        replace(runs("r", ("n1", [0])), preemptions=3),
        replace(runs("r", ("n1", [0])), job_class=replace(runs("r", ("n1", [0])).job_class, preemptible=False)),
    ],
    ids=["equal priority", "just started", "evicted too often", "not preemptible"],
)
def test_protected_jobs_stay(protected: RunningJob) -> None:
    made = plan(a_snapshot([a_node(gpus=1)], [wants("urgent", 1)], running=[protected]), CONFIG)
    assert made.evictions == ()
    assert made.verdicts[0].reason is Reason.NO_ROOM


def test_the_threshold_is_how_much_more_important_one_must_be() -> None:
    snapshot = a_snapshot([a_node(gpus=1)], [wants("urgent", 1)], running=[runs("low", ("n1", [0]), priority=6)])
    assert victims(plan(snapshot, Config(preemption=Preemption(priority_threshold=5)))) == set()
    assert victims(plan(snapshot, Config(preemption=Preemption(priority_threshold=4)))) == {"low"}


def test_where_it_is_switched_off_everybody_stays() -> None:
    snapshot = a_snapshot([a_node(gpus=1)], [wants("urgent", 1)], running=[runs("low", ("n1", [0]))])
    assert plan(snapshot, Config(preemption=Preemption(enabled=False))).evictions == ()


def test_of_equals_the_one_with_least_to_do_again_goes() -> None:
    old_work = runs("old", ("n1", [0]))
    kept = replace(runs("kept", ("n2", [0])), checkpointed_at=NOW - 10)
    made = plan(
        a_snapshot([a_node("n1", gpus=1), a_node("n2", gpus=1)], [wants("u", 1)], running=[old_work, kept]), CONFIG
    )
    assert victims(made) == {"kept"}


def test_a_checkpoint_in_the_future_saves_no_more_than_one_made_now() -> None:
    liar = replace(runs("liar", ("n1", [0])), checkpointed_at=NOW + 1e9)
    honest = replace(runs("honest", ("n1", [1])), checkpointed_at=NOW)
    made = plan(a_snapshot([a_node(gpus=2)], [wants("urgent", 1)], running=[liar, honest]), CONFIG)
    assert len(made.evictions) == 1
    assert "0 GPU-hours to do again" in made.evictions[0].reason


def test_a_checkpoint_before_the_start_makes_nothing_more_to_lose() -> None:
    liar = replace(runs("liar", ("n1", [0]), since=NOW - 400), checkpointed_at=0.0)
    longer = runs("longer", ("n1", [1]), since=NOW - 500)
    made = plan(a_snapshot([a_node(gpus=2)], [wants("urgent", 1)], running=[liar, longer]), CONFIG)
    assert victims(made) == {"liar"}


def test_a_fresh_start_protects_no_longer_than_the_minimum_run() -> None:
    # Whoever resubmits again and again keeps the room that long each time, and loses its place in the queue.
    resubmitted = runs("r", ("n1", [0]), since=NOW - 100)
    snapshot = a_snapshot([a_node(gpus=1)], [wants("urgent", 1)], running=[resubmitted])
    assert plan(snapshot, CONFIG).evictions == ()
    assert victims(plan(replace(snapshot, now=NOW + 200), CONFIG)) == {"r"}


def test_devices_are_freed_on_one_node_where_they_can_be_used_together() -> None:
    nodes = [a_node(f"n{i}", gpus=4) for i in range(4)]
    cheap = [runs(f"cheap{i}", (f"n{i}", [0]), since=600) for i in range(4)]
    rest = [runs(f"high{i}", (f"n{i}", [1, 2, 3]), priority=50) for i in range(3)]
    dear = [runs(f"dear{device}", ("n3", [device]), since=100) for device in (1, 2, 3)]
    made = plan(a_snapshot(nodes, [wants("urgent", 4)], running=cheap + rest + dear), CONFIG)
    assert victims(made) == {"cheap3", "dear1", "dear2", "dear3"}


def test_only_as_many_go_as_are_missing() -> None:
    running = [runs(f"r{device}", ("n1", [device])) for device in range(6)]
    made = plan(a_snapshot([a_node(gpus=8)], [wants("urgent", 4)], running=running), CONFIG)
    assert len(made.evictions) == 2


def test_whoever_turns_out_not_to_be_needed_stays() -> None:
    # In order the newest goes first, but the last one alone is enough.
    running = [runs("small", ("n1", [0]), since=650), runs("large", ("n1", [1, 2, 3, 4]), since=600)]
    made = plan(a_snapshot([a_node(gpus=5)], [wants("urgent", 4)], running=running), CONFIG)
    assert victims(made) == {"large"}


def test_a_gang_goes_whole() -> None:
    gang = runs("gang", ("n1", [0]), ("n2", [0]))
    nodes = [a_node("n1", gpus=1), a_node("n2", gpus=1)]
    made = plan(a_snapshot(nodes, [wants("urgent", 1)], running=[gang]), CONFIG)
    assert victims(made) == {"gang"}
    assert made.resizes == ()


def test_for_a_gang_the_cheapest_nodes_are_cleared() -> None:
    nodes = [a_node(f"n{i}", gpus=2) for i in range(5)]
    running = [runs(f"r{i}", (f"n{i}", [0, 1]), since=600 - 100 * i) for i in range(5)]
    made = plan(a_snapshot(nodes, [wants("gang", 2, replicas=3)], running=running), CONFIG)
    assert victims(made) == {"r0", "r1", "r2"}


def test_a_gang_uses_free_nodes_before_others_must_go() -> None:
    nodes = [a_node(f"n{i}", gpus=2) for i in range(3)]
    running = [runs("r1", ("n1", [0, 1])), runs("r2", ("n2", [0, 1]))]
    made = plan(a_snapshot(nodes, [wants("gang", 2, replicas=2)], running=running), CONFIG)
    assert len(made.evictions) == 1


def test_a_victim_on_two_nodes_counts_once() -> None:
    nodes = [a_node(f"n{i}", gpus=2) for i in range(4)]
    spread = runs("spread", ("n0", [0, 1]), ("n1", [0, 1]), since=690)
    alone = [runs("a2", ("n2", [0, 1]), since=680), runs("a3", ("n3", [0, 1]), since=680)]
    made = plan(a_snapshot(nodes, [wants("gang", 2, replicas=2)], running=[spread, *alone]), CONFIG)
    assert victims(made) == {"spread"}


def test_roles_of_one_gang_get_their_rooms_beside_each_other() -> None:
    nodes = [a_node("n1", gpus=2, cpus=4), a_node("n2", cpus=4)]
    job_class = a_role_class((a_request(gpu_milli=2000), 1), (a_request(cpus=4), 1))
    running = [runs("r1", ("n1", [0])), runs("r2", ("n2", []))]
    made = plan(a_snapshot(nodes, [PendingJob("pair", 0, job_class)], running=running), CONFIG)
    assert victims(made) == {"r1", "r2"}
    assert [one.role for one in made.promises[0].holdings] == [0, 1]


def test_a_level_that_must_hold_all_is_cleared_in_one_domain() -> None:
    nodes = [in_domain(a_node(f"n{i}", gpus=1), "zone", f"rack{i % 2}") for i in range(4)]
    running = [runs(f"r{i}", (f"n{i}", [0]), since=since) for i, since in enumerate((600, 500, 648, 690))]
    gang = wants("gang", 1, replicas=2)
    constraints = Constraints(within="rack", within_required=True)
    gang = replace(gang, job_class=replace(gang.job_class, constraints=constraints))
    snapshot = replace(a_snapshot(nodes, [gang], running=running), levels=("zone", "rack"))
    made = plan(snapshot, CONFIG)
    assert victims(made) == {"r0", "r2"}


@pytest.mark.parametrize("levels", [(), ("rack",)])
def test_to_have_to_lie_together_in_no_level_at_all_is_no_wish(levels: tuple[str, ...]) -> None:
    nodes = [in_domain(a_node(f"n{number}", gpus=1), f"rack{number}") for number in range(2)]
    gang = wants("gang", 1, replicas=2)
    gang = replace(gang, job_class=replace(gang.job_class, constraints=Constraints(within_required=True)))
    free = replace(a_snapshot(nodes, [gang]), levels=levels)
    assert [placement.job_id for placement in plan(free, CONFIG).placements] == ["gang"]
    running = [runs(f"r{number}", (f"n{number}", [0])) for number in range(2)]
    full = replace(a_snapshot(nodes, [gang], running=running), levels=levels)
    made = plan(full, CONFIG)
    assert victims(made) == {"r0", "r1"}
    then = plan(ended(applied(full, made), "r0", "r1"), CONFIG)
    assert [placement.job_id for placement in then.placements] == ["gang"]


def test_surplus_replicas_go_before_whole_jobs_even_at_the_same_priority() -> None:
    elastic = runs("elastic", ("n1", [0]), ("n1", [1]), ("n1", [2]), least=1, priority=10)
    low = runs("low", ("n1", [3]))
    made = plan(a_snapshot([a_node(gpus=4)], [wants("urgent", 2)], running=[elastic, low]), CONFIG)
    assert made.evictions == ()
    (resize,) = made.resizes
    assert (resize.job_id, resize.removed, resize.for_job_id, resize.grace_s) == ("elastic", (1, 2), "urgent", 60)
    assert resize.reason == "gives up what it can do without, for job urgent"


def test_an_elastic_job_never_falls_below_its_least() -> None:
    elastic = runs("elastic", ("n1", [0]), ("n1", [1]), ("n1", [2]), least=2, priority=10)
    made = plan(a_snapshot([a_node(gpus=3)], [wants("urgent", 2)], running=[elastic]), CONFIG)
    assert (made.evictions, made.resizes) == ((), ())
    lower = replace(elastic, job_class=replace(elastic.job_class, priority=0))
    made = plan(a_snapshot([a_node(gpus=3)], [wants("urgent", 2)], running=[lower]), CONFIG)
    assert victims(made) == {"elastic"}
    assert made.resizes == ()


def test_several_jobs_of_one_class_each_get_room_in_one_plan() -> None:
    running = [runs(f"r{device}", ("n1", [device])) for device in range(4)]
    jobs = [wants(f"u{i}", 1, at=i) for i in range(3)]
    snapshot = a_snapshot([a_node(gpus=4)], jobs, running=running)
    made = plan(snapshot, CONFIG)
    assert sorted(eviction.for_job_id for eviction in made.evictions) == ["u0", "u1", "u2"]
    assert made.verdicts[0].reason is Reason.ROOM_COMING
    assert made.verdicts[0].message == "room is being made for the first 3: 3 jobs were told to end"
    again = plan(applied(snapshot, made), CONFIG)
    assert again.evictions == ()


def test_a_storm_of_important_jobs_evicts_a_bounded_number_a_plan() -> None:
    nodes = [a_node(f"n{i:02}", gpus=8) for i in range(8)]
    running = [runs(f"r{i:02}-{device}", (f"n{i:02}", [device])) for i in range(8) for device in range(8)]
    jobs = [wants(f"u{i:02}", 1, at=i) for i in range(60)]
    config = Config(preemption=Preemption(most_evictions=10))
    snapshot = a_snapshot(nodes, jobs, running=running)
    assert len(plan(snapshot, config).evictions) == 10
    bounded = Config(preemption=Preemption(most_heads=7))
    assert len(plan(snapshot, bounded).evictions) % 7 == 0


def test_the_first_job_of_a_plan_may_have_as_many_go_as_it_needs() -> None:
    running = [runs(f"r{device}", ("n1", [device])) for device in range(8)]
    config = Config(preemption=Preemption(most_evictions=3))
    made = plan(a_snapshot([a_node(gpus=8)], [wants("urgent", 8)], running=running), config)
    assert len(made.evictions) == 8


def test_a_job_of_still_higher_priority_takes_over_the_room_that_is_coming() -> None:
    snapshot = a_snapshot([a_node(gpus=1)], [wants("urgent", 1)], running=[runs("low", ("n1", [0]))])
    after = applied(snapshot, plan(snapshot, CONFIG))
    more_urgent = replace(after, pending=(*after.pending, wants("most", 1, priority=20)))
    made = plan(more_urgent, CONFIG)
    assert made.evictions == ()
    assert [promise.job_id for promise in made.promises if promise.holdings] == ["most"]


def test_a_claim_of_lower_priority_elsewhere_does_not_keep_out_who_could_evict() -> None:
    queues = [Queue("q", "default"), Queue("q2", "other")]
    nodes = [a_node(gpus=2)]
    running = [runs("r", ("n1", [0]), priority=90)]
    jobs = [wants("big", 2, priority=0, queue="q2", at=-5), wants("urgent", 1, priority=50)]
    made = plan(a_snapshot(nodes, jobs, running=running, queues=queues), CONFIG)
    assert [placement.job_id for placement in made.placements] == ["urgent"]


def test_nobody_uses_what_is_kept_not_even_for_a_moment() -> None:
    running = [runs("low", ("n1", [0]))]
    jobs = [wants("urgent", 2), a_job("short", a_request(gpu_milli=1000), limit=1, at=5)]
    made = plan(a_snapshot([a_node(gpus=2)], jobs, running=running), CONFIG)
    assert made.placements == ()
    assert victims(made) == {"low"}


def test_what_was_made_for_a_job_that_is_gone_is_anybodys() -> None:
    snapshot = a_snapshot([a_node(gpus=1)], [wants("urgent", 1)], running=[runs("low", ("n1", [0]))])
    after = ended(applied(snapshot, plan(snapshot, CONFIG)), "low")
    other = replace(after, pending=(a_job("other", a_request(gpu_milli=1000)),))
    assert [placement.job_id for placement in plan(other, CONFIG).placements] == ["other"]


def test_room_on_a_node_that_failed_is_made_elsewhere() -> None:
    nodes = [a_node("n1", gpus=1), a_node("n2", gpus=1)]
    running = [runs("a", ("n1", [0]), since=600), runs("b", ("n2", [0]))]
    snapshot = a_snapshot(nodes, [wants("urgent", 1)], running=running)
    made = plan(snapshot, CONFIG)
    assert victims(made) == {"a"}
    after = applied(snapshot, made)
    failed = replace(after, nodes=tuple(replace(node, ready=node.name != "n1") for node in after.nodes))
    assert victims(plan(failed, CONFIG)) == {"b"}


def test_an_elastic_job_has_several_roles_to_give_from() -> None:
    job_class = replace(
        runs("x", ("n1", [0])).job_class,
        roles=(Role(a_request(gpu_milli=1000), 1, 1), Role(a_request(gpu_milli=1000), 1, 2)),
    )
    base = runs("e", ("n1", [0]), ("n1", [1]), ("n1", [2]))
    holdings = tuple(replace(one, role=min(place, 1)) for place, one in enumerate(base.holdings))
    elastic = replace(base, job_class=job_class, holdings=holdings)
    made = plan(a_snapshot([a_node(gpus=3)], [wants("urgent", 1, priority=0)], running=[elastic]), CONFIG)
    assert [resize.removed for resize in made.resizes] == [(2,)]
