"""What is done when several things are due at the same moment."""

import time
from collections.abc import Callable

from agent.loop import Loop


def with_timers(*dues: tuple[Callable[[], None], float]) -> Loop:
    loop = Loop()
    loop.timers.update(dict(dues))
    return loop


def test_what_another_action_did_already_is_not_done_again() -> None:
    done: list[str] = []

    def first() -> None:
        done.append("first")
        del loop.timers[second]

    def second() -> None:
        done.append("second")

    loop = with_timers((first, 0.0), (second, 0.0))
    loop.wait()
    assert (done, loop.timers) == (["first"], {})


def test_what_another_action_put_off_is_done_later() -> None:
    done: list[str] = []
    later = time.monotonic() + 60

    def first() -> None:
        loop.timers[second] = later

    def second() -> None:
        done.append("second")

    loop = with_timers((first, 0.0), (second, 0.0))
    loop.wait()
    assert (done, loop.timers) == ([], {second: later})
