from dataclasses import replace

import pytest

from scheduler.admission import Admission
from scheduler.amounts import asked
from scheduler.config import Config
from scheduler.inheritance import Lift
from scheduler.order import Line, Turns, Waiting, form_lines
from scheduler.snapshot import PendingJob, Queue
from scheduler.standing import Standing
from scheduler.usage import Usage
from tests.support.clusters import DEFAULT, a_job, a_node, a_request


def test_the_jobs_of_a_class_start_oldest_first() -> None:
    group = Waiting(a_job().job_class, [a_job("b", at=2), a_job("a", at=1)])
    group.add(a_job("d", at=4))
    group.add(a_job("c", at=3))
    assert [job.id for job in group.jobs()] == ["a", "b", "c", "d"]


def test_a_class_shrinks_at_both_ends_and_in_the_middle() -> None:
    jobs = [a_job(f"j{i}", at=i) for i in range(6)]
    group = Waiting(jobs[0].job_class, jobs)
    for gone in (0, 3, 5, 1):
        group.remove(jobs[gone])
    assert (len(group), group.head.id) == (2, "j2")
    assert [job.id for job in group.jobs()] == ["j2", "j4"]


def test_a_job_that_does_not_wait_can_not_be_removed() -> None:
    group = Waiting(a_job().job_class, [a_job("a", at=1)])
    with pytest.raises(KeyError, match="b"):
        group.remove(a_job("b", at=1))


def line_of(*jobs: PendingJob, policy: str = "priority", usage: Usage | None = None) -> Line:
    line = Line(replace(DEFAULT, policy=policy, second_policy="fifo"), Standing(usage or Usage([a_node()])))
    for job in jobs:
        line.add(job)
    line.begin_round()
    return line


def head_of(line: Line) -> str | None:
    group = line.peek()
    return group.head.id if group else None


def test_a_skipped_class_is_not_tried_again_but_still_waits_in_order() -> None:
    line = line_of(a_job("low", at=1), a_job("high", at=2, priority=1))
    line.skip()
    assert head_of(line) == "low"
    assert [(place, group.head.id) for place, group in line.in_order()] == [(1, "high"), (2, "low")]


def test_places_count_the_jobs_of_all_classes_that_go_before() -> None:
    twos = [a_job(f"two{i}", at=i, limit=2) for i in (0, 1, 5)]
    line = line_of(*twos, a_job("one", at=2), a_job("last", at=9, limit=9), a_job("first", at=8, priority=1))
    assert [(place, group.head.id) for place, group in line.in_order()] == [
        (1, "first"), (2, "two0"), (4, "one"), (6, "last"),
    ]  # fmt: skip


def test_a_start_lowers_the_rank_of_its_project_at_once() -> None:
    usage = Usage([a_node()])
    mine = [a_job("m1", at=1), a_job("m2", at=2)]
    line = line_of(*mine, a_job("y1", at=3, project="other"), policy="fair_share", usage=usage)
    assert head_of(line) == "m1"
    usage.charge(mine[0].job_class, asked(mine[0].job_class))
    line.start()
    assert head_of(line) == "y1"


def test_use_that_grew_elsewhere_is_seen_when_the_line_is_asked() -> None:
    usage = Usage([a_node()])
    line = line_of(a_job("m1", at=1), a_job("y1", at=3, project="other"), policy="fair_share", usage=usage)
    elsewhere = a_job("elsewhere", a_request(cpus=4)).job_class
    usage.charge(elsewhere, asked(elsewhere))
    assert head_of(line) == "y1"


def test_queues_take_turns_by_what_they_hold_for_their_weight() -> None:
    queues = [Queue("q1", "one", weight=1), Queue("q2", "two", weight=2)]
    admission = Admission([a_node()], queues)
    lines = form_lines(queues, Standing(admission.usage))
    for queue in ("q1", "q2"):
        for i in range(6):
            lines[queue].add(a_job(f"{queue}-{i}", at=i, queue=queue))
        lines[queue].begin_round()
    turns = Turns(lines.values(), admission)
    served = []
    for _ in range(6):
        line = turns.next()
        assert line is not None
        group = line.peek()
        assert group is not None
        admission.take(group.job_class, asked(group.job_class))
        served.append(line.queue.name)
        line.start()
        turns.add(line)
    assert served == ["one", "two", "two", "one", "two", "two"]


def test_a_queue_follows_its_own_policy_and_else_the_configured_one() -> None:
    for policy, first in (("fifo", "old"), ("", "urgent")):
        line = form_lines(
            [Queue("q", "default", policy=policy)], Standing(Usage([a_node()]), Config(policy="priority"))
        )["q"]
        line.add(a_job("old", at=1))
        line.add(a_job("urgent", at=2, priority=9))
        line.begin_round()
        assert head_of(line) == first


def test_of_a_class_the_job_with_the_nearest_deadline_starts_first_where_deadlines_rank() -> None:
    soon, later = replace(a_job("soon", at=2), deadline=10.0), replace(a_job("later", at=1), deadline=20.0)
    assert head_of(line_of(later, soon, policy="deadline")) == "soon"
    assert head_of(line_of(later, soon, policy="fifo")) == "later"


def test_a_job_that_is_lent_rank_passes_the_others_of_its_class() -> None:
    standing = Standing(Usage([a_node()]))
    line = Line(DEFAULT, standing)
    jobs = [a_job("a", at=1), a_job("b", at=2), a_job("c", at=3)]
    line.add_all(jobs[0].job_class, jobs)
    standing.lifts = {"c": Lift(5, None, "urgent")}
    line.sort()
    line.begin_round()
    assert head_of(line) == "c"
    line.remove(jobs[2])
    standing.lifts = {}
    line.sort()
    line.begin_round()
    assert head_of(line) == "a"


def test_a_queue_of_no_weight_is_refused() -> None:
    with pytest.raises(ValueError, match="queue 'default' has weight 0; it must be at least 1"):
        Line(replace(DEFAULT, weight=0), Standing(Usage([])))
