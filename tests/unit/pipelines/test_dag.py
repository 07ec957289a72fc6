"""The graph of a pipeline: every fault named at once, whatever its size; and what stages become as others end."""

import time

import pytest

from app.pipelines.dag import DEEPEST, MOST_EDGES, MOST_STAGES, Condition, Graph, Node, count_faults, decide, faults_of
from trellis.vocabulary import StageState, TriggerRule

W, R, S, F, K = StageState.WAITING, StageState.RUNNING, StageState.SUCCEEDED, StageState.FAILED, StageState.SKIPPED


def graph(*nodes: Node) -> Graph:
    return Graph({node.name: node for node in nodes})


def pointers(*nodes: Node) -> dict[str, str]:
    return {field.pointer: field.message for field in faults_of(nodes)}


def test_all_faults_of_a_graph_are_named_at_once_each_with_its_stage() -> None:
    found = pointers(
        Node("a"), Node("e", (), ("missing",)), Node("f", rule=TriggerRule.ONE_FAILED), Node("g", ("g",)),
        Node("h", ("e", "e")), Node("i", over="nobody"), Node("j"), Node("j"),
    )  # fmt: skip
    assert found.keys() == {
        "/stages/1/inputs", "/stages/2/when", "/stages/3/after", "/stages/4/after", "/stages/5/map/over/stage",
        "/stages/7/name",
    }  # fmt: skip
    circle = pointers(Node("a", ("c",)), Node("b", ("a",)), Node("c", ("b",)), Node("d", ("c",)))
    assert circle["/stages/1/after"] == "stages wait in a circle: b -> c -> a -> b"
    assert "'d' can never be reached" in circle["/stages/3/after"]


def test_two_circles_are_named_apart() -> None:
    found = pointers(Node("a", ("b",)), Node("b", ("a",)), Node("x", ("y",)), Node("y", ("x",)))
    assert sum("circle" in message for message in found.values()) == 2


def test_a_line_is_as_long_as_it_may_be_and_no_longer() -> None:
    line = [Node(f"s{n}", (f"s{n - 1}",) if n else ()) for n in range(DEEPEST + 1)]
    assert not faults_of(line[:DEEPEST])
    assert list(pointers(*line)) == [f"/stages/{DEEPEST}/after"]


def test_what_is_too_much_is_counted_before_it_is_looked_at() -> None:
    assert count_faults([{}] * (MOST_STAGES + 1))
    assert count_faults([{"after": ["a"] * (MOST_EDGES + 1)}])
    assert not count_faults([{"after": ["a"] * 5}] * MOST_STAGES)


@pytest.mark.parametrize("shape", ["line", "circle", "layers"])
def test_the_largest_graph_is_looked_through_in_a_moment(shape: str) -> None:
    def before(n: int) -> tuple[str, ...]:
        if shape == "layers":
            first = (n // 20 - 1) * 20
            return tuple(f"s{first + k}" for k in range(5)) if n >= 20 else ()
        return (f"s{(n - 1) % MOST_STAGES}",) if n or shape == "circle" else ()

    nodes = [Node(f"s{n}", before(n)) for n in range(MOST_STAGES)]
    began = time.monotonic()
    faults = faults_of(nodes)
    assert time.monotonic() - began < 1
    assert bool(faults) == (shape != "layers")
    assert sum(len(field.message) for field in faults) < 200 * MOST_STAGES


def test_partial_runs_reach_along_the_edges() -> None:
    made = graph(Node("a"), Node("b", ("a",)), Node("c", (), ("b",)), Node("d", ("a",)))
    assert made.downstream(["b"]) == {"b", "c"}
    assert made.upstream(["c"]) == {"a", "b", "c"}


@pytest.mark.parametrize(
    ("rule", "before", "becomes"),
    [
        (TriggerRule.ALL_SUCCESS, [S, R], W), (TriggerRule.ALL_SUCCESS, [S, S], R),
        (TriggerRule.ALL_SUCCESS, [F, R], StageState.BLOCKED), (TriggerRule.ALL_SUCCESS, [S, K], K),
        (TriggerRule.ALL_DONE, [F, R], W), (TriggerRule.ALL_DONE, [F, K], R),
        (TriggerRule.ONE_FAILED, [F, R], R), (TriggerRule.ONE_FAILED, [S, S], K),
        (TriggerRule.ANY_SUCCESS, [S, R], R), (TriggerRule.ANY_SUCCESS, [F, R], W),
        (TriggerRule.ANY_SUCCESS, [F, K], StageState.BLOCKED), (TriggerRule.ANY_SUCCESS, [K, K], K),
        (TriggerRule.NONE_FAILED, [S, K], R), (TriggerRule.NONE_FAILED, [K, K], R),
        (TriggerRule.NONE_FAILED, [F, R], StageState.BLOCKED), (TriggerRule.NONE_FAILED, [K, R], W),
    ],
)  # fmt: skip
def test_a_stage_becomes_what_its_rule_says(rule: TriggerRule, before: list[StageState], becomes: StageState) -> None:
    names = [f"b{n}" for n in range(len(before))]
    made = graph(*map(Node, names), Node("x", tuple(names), rule=rule))
    step = decide(made, {**dict(zip(names, before, strict=True)), "x": W}, {})
    now = R if "x" in step.ready else step.ends.get("x", W)
    assert now is becomes


def test_what_is_blocked_blocks_what_comes_after_in_one_step() -> None:
    line = [Node("s0"), *(Node(f"s{n}", (f"s{n - 1}",)) for n in range(1, 50))]
    step = decide(graph(*line), {node.name: F if node.name == "s0" else W for node in line}, {})
    assert set(step.ends.values()) == {StageState.BLOCKED}
    assert len(step.ends) == 49


@pytest.mark.parametrize(("told", "taken"), [(1, True), (True, False), (1.0, False), ("1", False), (None, False)])
def test_a_way_is_taken_for_what_was_told_and_nothing_like_it(told: object, taken: bool) -> None:
    made = graph(Node("judge"), Node("x", only_if=Condition("judge", 1)))
    step = decide(made, {"judge": S, "x": W}, {"judge": told})
    assert (step.ready, dict(step.ends)) == ((("x",), {}) if taken else ((), {"x": K}))
