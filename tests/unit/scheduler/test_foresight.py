from dataclasses import replace

from scheduler.config import Config, Preemption
from scheduler.foresight import Certainty, Fate, foresee
from scheduler.plan import EvictionKind, Reason
from scheduler.snapshot import Amounts, PendingJob, Queue, Reservation, Role, Snapshot
from tests.support.clusters import (
    DEFAULT,
    NOW,
    a_holding,
    a_job,
    a_node,
    a_request,
    a_running,
    a_snapshot,
)

READY = Config(preemption=Preemption(min_run_s=0.0, grace_s=30.0))
WHOLE = a_request(cpus=8)


def fate_of(snapshot: Snapshot, job: PendingJob, config: Config = READY, most_plans: int = 100) -> Fate:
    (fate,) = foresee(snapshot, config, [job], most_plans).fates
    return fate


def test_one_that_fits_starts_now_where_the_plan_puts_it() -> None:
    fate = fate_of(a_snapshot([a_node()], []), a_job("w"))
    assert (fate.certainty, fate.starts_at, fate.position) == (Certainty.NOW, NOW, 0)
    assert [one.node_id for one in fate.replicas] == ["id-n1"]


def test_the_first_in_line_is_promised_and_the_next_is_expected_after_it() -> None:
    running = [a_running("r", a_holding("n1", cpus=8), ends_by=NOW + 60)]
    seen = foresee(
        a_snapshot([a_node()], [], running=running), READY, [a_job(f"w{n}", WHOLE, limit=10) for n in (1, 2)]
    )
    assert [(one.certainty, one.starts_at, one.position) for one in seen.fates] == [
        (Certainty.PROMISED, NOW + 60, 1), (Certainty.EXPECTED, NOW + 70, 2)
    ]  # fmt: skip
    assert seen.fates[0].node_ids == ("id-n1",)
    assert seen.verdict is not None
    assert seen.verdict.reason is Reason.NO_ROOM


def test_what_was_not_come_upon_is_later_than_the_last_look() -> None:
    running = [a_running(f"r{n}", a_holding("n1"), ends_by=NOW + 10 * n) for n in range(1, 9)]
    ahead = [a_job("ahead", WHOLE, limit=100)]
    snapshot = a_snapshot([a_node()], ahead, running=running)
    later = fate_of(snapshot, a_job("w", WHOLE, at=1), most_plans=3)
    assert (later.certainty, later.starts_at) == (Certainty.LATER, NOW + 30)
    assert fate_of(snapshot, a_job("w", WHOLE, at=1)).starts_at == NOW + 180


def test_behind_one_without_a_limit_nothing_is_known() -> None:
    running = [a_running("r", a_holding("n1", cpus=8))]
    fate = fate_of(a_snapshot([a_node()], [], running=running), a_job("w", WHOLE))
    assert (fate.certainty, fate.starts_at) == (Certainty.UNKNOWN, None)


def test_in_a_paused_queue_nobody_knows_when() -> None:
    running = [a_running("r", a_holding("n1", cpus=8), ends_by=NOW + 9)]
    snapshot = a_snapshot([a_node()], [], running=running, queues=[replace(DEFAULT, paused=True)])
    assert fate_of(snapshot, a_job("w")).certainty is Certainty.UNKNOWN


def test_what_exceeds_a_limit_that_nobody_holds_anything_of_is_never() -> None:
    small = Queue("q", "default", most=Amounts(cpu_milli=2000))
    snapshot = a_snapshot([a_node()], [], queues=[small])
    assert fate_of(snapshot, a_job("w", a_request(cpus=3))).certainty is Certainty.NEVER
    assert fate_of(snapshot, a_job("w", a_request(cpus=2))).certainty is Certainty.NOW


def test_who_goes_for_it_is_named_with_when_it_starts_then() -> None:
    running = [a_running("r", a_holding("n1", cpus=8))]
    seen = foresee(a_snapshot([a_node()], [], running=running), READY, [a_job("w", WHOLE, priority=5)])
    assert [(one.job_id, one.kind, one.for_job_id) for one in seen.evictions] == [("r", EvictionKind.PREEMPT, "w")]
    assert (seen.fates[0].certainty, seen.fates[0].starts_at) == (Certainty.PROMISED, NOW + 30)


def test_those_who_go_for_others_are_not_named() -> None:
    running = [a_running("r", a_holding("n1", cpus=8))]
    urgent = a_job("urgent", WHOLE, priority=5)
    seen = foresee(a_snapshot([a_node()], [urgent], running=running), READY, [a_job("w", at=1)])
    assert seen.evictions == ()


def test_whoever_was_evicted_waits_again_before_those_that_came_after_it() -> None:
    running = [replace(a_running("r", a_holding("n1", cpus=8), ends_by=NOW + 500), started_at=1.0)]
    running = [replace(running[0], job_class=replace(running[0].job_class, time_limit_s=499))]
    urgent = a_job("urgent", WHOLE, priority=5, limit=20)
    snapshot = a_snapshot([a_node()], [urgent], running=running)
    # The grace, the urgent one, then the evicted one again with all its limit allows.
    fate = fate_of(snapshot, a_job("w", WHOLE, at=NOW))
    assert (fate.certainty, fate.starts_at) == (Certainty.EXPECTED, NOW + 30 + 20 + 499)


def test_whoever_is_on_the_way_to_another_node_has_its_room_there() -> None:
    mover = replace(
        a_running("r", a_holding("n1", cpus=8), ends_by=NOW + 900),
        job_class=replace(a_running("r").job_class, roles=(Role(WHOLE),), time_limit_s=900),
        releasing_at=NOW + 10,
        owed=(a_holding("n2", cpus=8),),
    )
    snapshot = a_snapshot([a_node("n1"), a_node("n2")], [a_job("first", WHOLE, limit=100)], running=[mover])
    fate = fate_of(snapshot, a_job("w", WHOLE, at=NOW))
    assert (fate.certainty, fate.starts_at) == (Certainty.EXPECTED, NOW + 110)
    assert [one.node_id for one in fate.replicas] == ["id-n1"]


def test_the_end_of_a_reservation_is_a_moment_at_which_one_may_start() -> None:
    booked = Reservation("b", "other", NOW - 1, NOW + 50, (a_holding("n1", cpus=8),))
    snapshot = replace(a_snapshot([a_node()], [a_job("ahead", WHOLE, limit=7)]), reservations=(booked,))
    fate = fate_of(snapshot, a_job("w", WHOLE, at=1))
    assert (fate.certainty, fate.starts_at) == (Certainty.EXPECTED, NOW + 57)


def test_its_place_counts_those_of_its_own_kind_that_wait_already() -> None:
    running = [a_running("r", a_holding("n1", cpus=8))]
    waiting = [a_job(f"j{number}", WHOLE, at=number) for number in range(3)]
    assert fate_of(a_snapshot([a_node()], waiting, running=running), a_job("w", WHOLE, at=5)).position == 4
