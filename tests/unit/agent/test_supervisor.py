"""What a supervisor does when several things are due at the same moment."""

import time
from collections.abc import Callable

from agent.supervisor import Supervisor


def with_timers(*dues: tuple[Callable[[], None], float]) -> Supervisor:
    supervisor = Supervisor.__new__(Supervisor)
    supervisor._timers = dict(dues)
    return supervisor


def test_what_another_action_did_already_is_not_done_again() -> None:
    done: list[str] = []

    def first() -> None:
        done.append("first")
        del supervisor._timers[second]

    def second() -> None:
        done.append("second")

    supervisor = with_timers((first, 0.0), (second, 0.0))
    supervisor._run_timers()
    assert (done, supervisor._timers) == (["first"], {})


def test_what_another_action_put_off_is_done_later() -> None:
    done: list[str] = []
    later = time.monotonic() + 60

    def first() -> None:
        supervisor._timers[second] = later

    def second() -> None:
        done.append("second")

    supervisor = with_timers((first, 0.0), (second, 0.0))
    supervisor._run_timers()
    assert (done, supervisor._timers) == ([], {second: later})
