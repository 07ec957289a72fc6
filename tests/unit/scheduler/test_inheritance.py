import pytest

from scheduler.inheritance import Lift, inherit
from scheduler.snapshot import BlockedJob, JobClass, PendingJob, RunningJob


def pending(job_id: str, *, priority: int = 0, project: str = "p", deadline: float | None = None) -> PendingJob:
    return PendingJob(job_id, 0.0, JobClass(project, "q", (), priority), deadline)


def blocked(
    job_id: str,
    *needs: str,
    priority: int = 0,
    project: str = "p",
    deadline: float | None = None,
    expected_s: float = 0.0,
) -> BlockedJob:
    return BlockedJob(job_id, project, priority, needs, deadline, expected_s)


def lifts(jobs: list[PendingJob], *waiting: BlockedJob) -> dict[str, Lift]:
    return inherit(waiting, {job.id: job for job in jobs})


def test_a_job_is_as_urgent_as_the_most_urgent_that_waits_for_it() -> None:
    assert lifts([pending("a", priority=1)], blocked("b", "a", priority=5), blocked("c", "a", priority=9)) == {
        "a": Lift(9, None, "c")
    }


def test_rank_passes_through_a_chain_and_names_who_lends_it() -> None:
    assert lifts([pending("a")], blocked("b", "a", priority=-3), blocked("c", "b", priority=7)) == {
        "a": Lift(7, None, "c")
    }


def test_a_deadline_comes_earlier_by_the_run_of_everything_in_between() -> None:
    # c must end at 1000 and runs 100, so b must end at 900 and, running 200, start at 700: that is when a must end.
    chain = (blocked("b", "a", expected_s=200), blocked("c", "b", deadline=1000, expected_s=100))
    assert lifts([pending("a")], *chain) == {"a": Lift(0, 700.0, "c")}


def test_a_job_keeps_its_own_rank_where_that_is_better() -> None:
    dependent = blocked("b", "a", priority=5, deadline=500, expected_s=100)
    assert lifts([pending("a", priority=5, deadline=400)], dependent) == {}
    assert lifts([pending("a", priority=6, deadline=450)], dependent) == {"a": Lift(6, 400.0, "b")}


def test_only_the_own_project_lends() -> None:
    assert lifts([pending("a")], blocked("b", "a", priority=9, project="other")) == {}
    # Nor does rank pass through a job of another project.
    chain = (blocked("b", "a", project="other"), blocked("c", "b", priority=9))
    assert lifts([pending("a")], *chain) == {}


def test_every_need_of_a_job_is_lifted() -> None:
    found = lifts([pending("a"), pending("b"), pending("idle")], blocked("c", "a", "b", "a", priority=2))
    assert found == {"a": Lift(2, None, "c"), "b": Lift(2, None, "c")}


def test_what_runs_is_lifted_too() -> None:
    running = RunningJob("a", JobClass("p", "q", (), 1), ())
    assert inherit([blocked("b", "a", priority=3)], {"a": running}) == {"a": Lift(3, None, "b")}


def test_jobs_in_a_circle_and_those_behind_it_lend_nothing() -> None:
    circle = (blocked("b", "a", "c", priority=9), blocked("c", "b"), blocked("d", "c", "a", priority=9))
    assert lifts([pending("a")], *circle) == {}
    # One that the circle waits for may still start, and lends.
    live = blocked("e", "a", priority=4)
    assert lifts([pending("a")], live, blocked("f", "e", "f", priority=9)) == {"a": Lift(4, None, "e")}


def test_needs_that_are_not_there_are_met() -> None:
    assert lifts([pending("a")], blocked("b", "gone", "a", priority=1)) == {"a": Lift(1, None, "b")}


def test_of_equal_lenders_the_lowest_id_is_named_whatever_the_order() -> None:
    one, two = blocked("b", "a", priority=1), blocked("c", "a", priority=1)
    assert lifts([pending("a")], one, two) == lifts([pending("a")], two, one) == {"a": Lift(1, None, "b")}


def test_a_chain_of_many_thousands_needs_no_stack() -> None:
    length = 50_000
    chain = [blocked(f"j{number}", f"j{number - 1}") for number in range(1, length)]
    chain.append(blocked("last", f"j{length - 1}", priority=3))
    assert inherit(chain, {"j0": pending("j0")}) == {"j0": Lift(3, None, "last")}


@pytest.mark.parametrize(
    ("waiting", "complaint"),
    [
        ([blocked("b", "a"), blocked("b")], "same id"),
        ([blocked("a")], "job a is blocked, and is pending or runs as well"),
        ([blocked("b", "a", expected_s=-1)], "job b is expected to run for -1"),
        ([blocked("b", "a", expected_s=float("nan"))], "job b is expected to run for nan"),
        ([blocked("b", "a", expected_s=float("inf"))], "job b is expected to run for inf"),
    ],
)
def test_broken_input_is_named(waiting: list[BlockedJob], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        lifts([pending("a")], *waiting)
