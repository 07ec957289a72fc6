"""What the next supervisor of a replica learns from what the last one told."""

import pytest

from agent.telling import rested_s
from trellis.vocabulary import ReplicaState
from trellis.wire import Report


def told(state: ReplicaState, second: int) -> Report:
    return Report("r", 1, 0, state, f"2026-01-01T00:00:{second:02}+00:00")


@pytest.mark.parametrize(
    ("reports", "rested"),
    [
        ([], 0),
        ([told(ReplicaState.STARTING, 0), told(ReplicaState.RUNNING, 1)], 0),
        ([told(ReplicaState.RUNNING, 1), told(ReplicaState.SUSPENDED, 5), told(ReplicaState.RUNNING, 9)], 4),
        ([told(ReplicaState.SUSPENDED, 5), told(ReplicaState.RUNNING, 9), told(ReplicaState.SUSPENDED, 20)], 14),
        ([told(ReplicaState.SUSPENDED, 50)], 0),
    ],
    ids=["nothing", "never", "once", "and now", "a clock that was set back"],
)
def test_how_long_one_stood_still_is_read_from_what_was_told(reports: list[Report], rested: float) -> None:
    assert rested_s(reports, "2026-01-01T00:00:30+00:00") == rested
