from itertools import pairwise

import pytest

from app.jobs.workflows import find_cycle


@pytest.mark.parametrize(
    "after",
    [
        {},
        {"a": []},
        {"a": [], "b": ["a"], "c": ["a", "b"]},
        {"b": ["a"], "a": []},
    ],
)
def test_where_there_is_no_circle_none_is_found(after: dict[str, list[str]]) -> None:
    assert find_cycle(after) == []


@pytest.mark.parametrize(
    "after",
    [
        {"a": ["a"]},
        {"a": ["b"], "b": ["a"]},
        {"x": [], "a": ["x", "c"], "b": ["a"], "c": ["b"], "y": ["c"]},
        {name: [str((int(name) + 1) % 500)] for name in map(str, range(500))},
    ],
)
def test_a_circle_is_told_step_by_step_back_to_where_it_began(after: dict[str, list[str]]) -> None:
    circle = find_cycle(after)
    assert circle[0] == circle[-1]
    assert all(later in after[earlier] for earlier, later in pairwise(circle))
