from agent.standstill import Standstill


def limit() -> None:
    """What stands for a time limit."""


def lease() -> None:
    """What stands for something that goes on."""


def test_what_is_of_its_own_time_is_put_off_by_as_long_as_it_rests() -> None:
    timers = {limit: 100.0, lease: 50.0}
    rest = Standstill(timers, (limit,))
    rest.begin(90.0)
    assert (bool(rest), timers) == (True, {lease: 50.0})
    rest.end(1000.0)
    assert (bool(rest), timers) == (False, {limit: 1010.0, lease: 50.0})


def test_it_knows_how_long_it_rested_in_all() -> None:
    rest = Standstill({}, (limit,))
    rest.begin(10.0)
    rest.end(15.0)
    assert rest.total_s(100.0) == 5.0
    rest.begin(20.0)
    assert rest.total_s(27.0) == 12.0


def test_a_timer_that_was_due_already_is_due_as_soon_as_it_goes_on() -> None:
    timers = {limit: 8.0}
    rest = Standstill(timers, (limit,))
    rest.begin(10.0)
    rest.end(20.0)
    assert timers == {limit: 18.0}
