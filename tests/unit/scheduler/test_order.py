from scheduler.config import Config
from scheduler.ledger import Ledger
from scheduler.order import JobClass, Line, Turns, form_lines, group_pending
from scheduler.policies import POLICIES
from scheduler.snapshot import Queue
from tests.support.clusters import DEFAULT, a_job, a_node, a_request, a_snapshot


def test_jobs_that_differ_only_in_age_form_one_class() -> None:
    classes = group_pending([a_job("b", at=2), a_job("a", at=1), a_job("c", at=1, priority=1), a_job("d", limit=5)])
    assert [[job.id for job in group.waiting()] for group in classes] == [["a", "b"], ["c"], ["d"]]


def test_a_class_moves_from_its_oldest_job_on() -> None:
    group = JobClass([a_job("b", at=2), a_job("a", at=1)])
    assert group.head.id == "a"
    group.start_head()
    assert (group.head.id, group.exhausted) == ("b", False)
    group.start_head()
    assert group.exhausted


def line_of(*classes: JobClass, policy: str = "priority", ledger: Ledger | None = None) -> Line:
    return Line(DEFAULT, POLICIES[policy], list(classes), ledger or Ledger([a_node()]))


def test_a_skipped_class_is_not_tried_again_but_still_waits_in_order() -> None:
    line = line_of(JobClass([a_job("low", at=1)]), JobClass([a_job("high", at=2, priority=1)]))
    line.skip()
    group = line.peek()
    assert group is not None
    assert group.head.id == "low"
    assert [job.id for job, _ in line.in_order()] == ["high", "low"]


def test_a_start_lowers_the_rank_of_its_project_at_once() -> None:
    ledger = Ledger([a_node()])
    mine, yours = JobClass([a_job("m1", at=1), a_job("m2", at=2)]), JobClass([a_job("y1", at=3, project="other")])
    line = line_of(mine, yours, policy="fair_share", ledger=ledger)
    assert line.peek() is mine
    ledger.usage.count_started(mine.head)
    line.started()
    assert line.peek() is yours


def test_use_that_grew_elsewhere_is_seen_when_the_line_is_asked() -> None:
    ledger = Ledger([a_node()])
    mine, yours = JobClass([a_job("m1", at=1)]), JobClass([a_job("y1", at=3, project="other")])
    line = line_of(mine, yours, policy="fair_share", ledger=ledger)
    ledger.usage.count_started(a_job("elsewhere", a_request(cpus=4)))
    assert line.peek() is yours


def test_queues_take_turns_by_what_they_hold_for_their_weight() -> None:
    queues = [Queue("q1", "one", weight=1), Queue("q2", "two", weight=2)]
    jobs = [a_job(f"{queue}-{i}", at=i, queue=queue) for queue in ("q1", "q2") for i in range(6)]
    snapshot = a_snapshot([a_node()], jobs, queues=queues)
    ledger = Ledger(snapshot.nodes)
    turns = Turns(form_lines(snapshot, Config(), group_pending(snapshot.pending), ledger), ledger)
    served = []
    for _ in range(6):
        line = turns.next()
        assert line is not None
        group = line.peek()
        assert group is not None
        ledger.usage.count_started(group.head)
        served.append(line.queue.name)
        line.started()
        turns.add(line)
    assert served == ["one", "two", "two", "one", "two", "two"]


def test_a_queue_follows_its_own_policy_and_else_the_configured_one() -> None:
    jobs = [a_job("old", at=1), a_job("urgent", at=2, priority=9)]
    for policy, first in (("fifo", "old"), ("", "urgent")):
        snapshot = a_snapshot([a_node()], jobs, queues=[Queue("q", "default", policy=policy)])
        (line,) = form_lines(snapshot, Config(), group_pending(jobs), Ledger(snapshot.nodes))
        group = line.peek()
        assert group is not None
        assert group.head.id == first
