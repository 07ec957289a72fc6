"""How often a thing may be tried."""

import pytest

from app.core import throttle
from app.core.throttle import OneAtATime, Throttle
from trellis.errors import RateLimited


def test_tries_beyond_the_limit_are_refused_a_key_at_a_time() -> None:
    tries = Throttle(limit=2, period_s=60)
    tries.spend("a")
    tries.spend("a")
    tries.spend("b")
    with pytest.raises(RateLimited) as refused:
        tries.spend("a")
    assert 0 < refused.value.retry_after_s <= 60


def test_a_try_that_is_given_back_does_not_count() -> None:
    tries = Throttle(limit=1, period_s=60)
    for _ in range(5):
        tries.spend("a")
        tries.give_back("a")


def test_a_new_period_begins_at_nought() -> None:
    tries = Throttle(limit=1, period_s=0.0)
    tries.spend("a")
    tries.spend("a")


def test_the_memory_of_keys_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throttle, "MOST_KEYS", 10)
    tries = Throttle(limit=1, period_s=60)
    for number in range(100):
        tries.spend(str(number))
    assert len(tries._tries) == 10


def test_a_turn_is_had_by_one_and_given_back_whatever_happens() -> None:
    alone = OneAtATime(retry_after_s=3.0)
    with alone.turn():
        with pytest.raises(RateLimited) as refused, alone.turn():
            pass
        assert refused.value.retry_after_s == 3.0
    with pytest.raises(ZeroDivisionError), alone.turn():
        raise ZeroDivisionError
    with alone.turn():
        pass
