"""EASY and conservative backfill side by side, after Mu'alem and Feitelson, TPDS 2001, section 2."""

from tests.support.oracle import Asked
from tests.support.simulations import CONSERVATIVE, EASY, FIFO, run, starts

MACHINE = 4
RUNNING, HEAD, WIDE, LONG = Asked(0, 2, 10, 10), Asked(1, 3, 10, 10), Asked(2, 4, 5, 5), Asked(3, 1, 30, 30)
"""Two of four processors are busy until 10; the head needs three of them then, which leaves one over."""


def test_easy_lets_a_job_use_what_the_head_leaves_over_and_delays_the_second() -> None:
    # The long one takes the spare processor from 3 to 33, so the wide one, which needs all four, waits for it.
    assert starts(run([RUNNING, HEAD, WIDE, LONG], MACHINE, EASY)) == [0, 10, 33, 3]


def test_conservative_backfill_delays_nobody_who_came_before() -> None:
    # The wide one was promised 20 when it came; the long one fits in only behind it.
    assert starts(run([RUNNING, HEAD, WIDE, LONG], MACHINE, CONSERVATIVE)) == [0, 10, 20, 25]


def test_without_backfill_processors_stand_idle_before_the_head() -> None:
    assert starts(run([RUNNING, HEAD, WIDE, LONG], MACHINE, FIFO)) == [0, 10, 20, 25]


def test_a_job_that_ends_before_the_shadow_time_is_backfilled_under_both() -> None:
    short = Asked(3, 2, 7, 7)
    for config in (EASY, CONSERVATIVE):
        assert starts(run([RUNNING, HEAD, WIDE, short], MACHINE, config)) == [0, 10, 20, 3]


def test_what_ends_early_moves_every_promise_forward_in_order() -> None:
    early = RUNNING._replace(run_s=5)
    assert starts(run([early, HEAD, WIDE, LONG], MACHINE, CONSERVATIVE)) == [0, 5, 15, 20]
