"""Pipelines as graphs: what is wrong with one, and what its stages become as others end. Pure.

A graph is checked in one walk along its edges, whatever its shape; nothing recurses, so no chain is too deep to look at.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from trellis.errors import Field
from trellis.vocabulary import StageState, TriggerRule

MOST_STAGES = 2_000
MOST_EDGES = 10_000
DEEPEST = 100
MOST_ELEMENTS = 1_000
GOOD = frozenset({StageState.SUCCEEDED, StageState.REUSED, StageState.LEFT_OUT})
BAD = frozenset({StageState.FAILED, StageState.BLOCKED, StageState.CANCELLED})
ENDED = GOOD | BAD | {StageState.SKIPPED}
_SHOWN = 12


@dataclass(frozen=True, slots=True)
class Condition:
    """That a stage is only done where the result of `stage` equals `equals`."""

    stage: str
    equals: object


@dataclass(frozen=True, slots=True)
class Node:
    """A stage as the graph sees it: what it waits for, and how. `over` is the stage whose result it is mapped over."""

    name: str
    after: tuple[str, ...] = ()
    inputs: tuple[str, ...] = ()
    rule: TriggerRule = TriggerRule.ALL_SUCCESS
    over: str | None = None
    only_if: Condition | None = None

    @property
    def before(self) -> tuple[str, ...]:
        """All stages that it waits for, each once."""
        named = [*self.after, *self.inputs, *([self.over] if self.over else [])]
        return tuple(dict.fromkeys(named + ([self.only_if.stage] if self.only_if else [])))


@dataclass(frozen=True)
class Graph:
    """Stages by name, in the order in which they were given."""

    nodes: Mapping[str, Node]

    @cached_property
    def order(self) -> tuple[str, ...]:
        """Every stage after those that it waits for; those of circles, and after them, are left out."""
        return tuple(self.depths)

    @cached_property
    def depths(self) -> dict[str, int]:
        """How many stages stand in line before each, at the most; in an order that follows the edges."""
        waits = {name: len(node.before) for name, node in self.nodes.items()}
        depths: dict[str, int] = {}
        ready = [name for name, count in waits.items() if count == 0]
        reached = dict.fromkeys(ready, 0)
        for name in ready:  # grows as we go
            depths[name] = reached[name]
            for later in self.after.get(name, ()):
                reached[later] = max(reached.get(later, 0), depths[name] + 1)
                waits[later] -= 1
                if waits[later] == 0:
                    ready.append(later)
        return depths

    @cached_property
    def after(self) -> dict[str, list[str]]:
        """Who waits for each."""
        found: dict[str, list[str]] = {}
        for node in self.nodes.values():
            for name in node.before:
                found.setdefault(name, []).append(node.name)
        return found

    @cached_property
    def tellers(self) -> frozenset[str]:
        """Stages whose result others are mapped over, or chosen by."""
        over = {node.over for node in self.nodes.values() if node.over}
        return frozenset(over | {node.only_if.stage for node in self.nodes.values() if node.only_if})

    def downstream(self, names: Collection[str]) -> set[str]:
        """These, and all that wait for them in the end."""
        return _reach(names, self.after)

    def upstream(self, names: Collection[str]) -> set[str]:
        """These, and all that they wait for in the end."""
        return _reach(names, {name: list(node.before) for name, node in self.nodes.items()})


def count_faults(stages: Sequence[Mapping[str, object]]) -> list[Field]:
    """Whether there are too many stages or edges: counted before anything is made of them."""
    if len(stages) > MOST_STAGES:
        return [Field("/stages", f"are {len(stages)}: a pipeline has at most {MOST_STAGES}; call one from another")]
    edges = 0
    for stage in stages:
        for name in ("after", "inputs"):
            named = stage.get(name)
            edges += len(named) if isinstance(named, list) else 0
    return [] if edges <= MOST_EDGES else [Field("/stages", f"have {edges} edges: at most {MOST_EDGES}")]


def faults_of(nodes: Sequence[Node]) -> list[Field]:
    """All that is wrong with the graph that these make, each named by the stage it concerns."""
    place = {node.name: number for number, node in reversed(list(enumerate(nodes)))}
    faults = [
        Field(f"/stages/{number}/name", f"names {node.name!r} a second time")
        for number, node in enumerate(nodes)
        if place[node.name] != number
    ]
    for node in nodes:
        faults += _edge_faults(node, place)
    known = {
        node.name: Node(
            node.name, tuple(n for n in node.before if n in place and n != node.name), (), node.rule
        )
        for node in nodes
    }  # fmt: skip
    graph = Graph(known)
    faults += _circle_faults(graph, place)
    deep = [name for name, depth in graph.depths.items() if depth >= DEEPEST]
    if deep:
        first = deep[0]
        faults.append(
            Field(
                f"/stages/{place[first]}/after",
                f"{first!r} has {DEEPEST} stages in line before it: at most {DEEPEST - 1}",
            )
        )
    return faults


def _edge_faults(node: Node, place: Mapping[str, int]) -> Iterator[Field]:
    at = f"/stages/{place[node.name]}"
    for field, names in (("after", node.after), ("inputs", node.inputs)):
        for name in dict.fromkeys(names):
            if name == node.name:
                yield Field(f"{at}/{field}", f"{node.name!r} waits for itself")
            elif name not in place:
                yield Field(f"{at}/{field}", f"{node.name!r} names {name!r}, which is no stage of this pipeline")
            elif names.count(name) > 1:
                yield Field(f"{at}/{field}", f"{node.name!r} names {name!r} twice")
    for field, single in (("map/over/stage", node.over), ("only_if/stage", node.only_if and node.only_if.stage)):
        if single is not None and (single not in place or single == node.name):
            yield Field(f"{at}/{field}", f"{node.name!r} names {single!r}, which is no other stage of this pipeline")
    if node.rule is TriggerRule.ONE_FAILED and not node.before:
        yield Field(f"{at}/when", f"{node.name!r} can never be reached: it waits for a failure, and for no stage")


def _circle_faults(graph: Graph, place: Mapping[str, int]) -> Iterator[Field]:
    """Each circle once, named along its way, and who can never be reached because of one."""
    stuck = {name: node for name, node in graph.nodes.items() if name not in graph.depths}
    in_circle: set[str] = set()
    seen: set[str] = set()
    for start in stuck:
        way: dict[str, None] = {}
        name = start
        while name not in seen:
            seen.add(name)
            way[name] = None
            name = next(before for before in graph.nodes[name].before if before in stuck)
        if name in way:
            line = list(way)
            circle = line[line.index(name) :][::-1]
            in_circle |= set(circle)
            shown = circle if len(circle) <= _SHOWN else [*circle[: _SHOWN - 1], "..."]
            yield Field(
                f"/stages/{place[circle[0]]}/after", f"stages wait in a circle: {' -> '.join([*shown, circle[0]])}"
            )
    for name in stuck:
        if name not in in_circle:
            yield Field(
                f"/stages/{place[name]}/after",
                f"{name!r} can never be reached: it waits for a circle, or stands in one",
            )


def _reach(names: Collection[str], edges: Mapping[str, Collection[str]]) -> set[str]:
    found, line = set(names), list(names)
    while line:
        for other in edges.get(line.pop(), ()):
            if other not in found:
                found.add(other)
                line.append(other)
    return found


@dataclass(frozen=True, slots=True)
class Step:
    """What the waiting stages become now: those that are `ready`, and those that `end` without having been done."""

    ready: tuple[str, ...]
    ends: Mapping[str, StageState]


def decide(graph: Graph, states: Mapping[str, StageState], results: Mapping[str, object]) -> Step:
    """Which waiting stages may begin, and which never will. `results` are those of stages that others are chosen by."""
    now = dict(states)
    ready: list[str] = []
    ends: dict[str, StageState] = {}
    for name in graph.order:
        if now[name] is not StageState.WAITING:
            continue
        node = graph.nodes[name]
        verdict = _judge(node.rule, [now[before] for before in node.before])
        if verdict is StageState.RUNNING and not _chosen(node, now, results):
            verdict = StageState.SKIPPED
        if verdict is StageState.RUNNING:
            ready.append(name)
        elif verdict is not None:
            now[name] = ends[name] = verdict
    return Step(tuple(ready), ends)


def _chosen(node: Node, now: Mapping[str, StageState], results: Mapping[str, object]) -> bool:
    """Whether the way that was taken leads by it; a stage that was left out chooses nothing."""
    wish = node.only_if
    if wish is None or now[wish.stage] is StageState.LEFT_OUT:
        return True
    told = results.get(wish.stage)
    return type(told) is type(wish.equals) and told == wish.equals


def _judge(rule: TriggerRule, before: Sequence[StageState]) -> StageState | None:
    """What a stage becomes after those before it are in these states: `running`, an end, or None while that is open."""
    good, bad = sum(state in GOOD for state in before), sum(state in BAD for state in before)
    all_ended = all(state in ENDED for state in before)
    if rule is TriggerRule.ALL_DONE:
        return StageState.RUNNING if all_ended else None
    if rule is TriggerRule.ONE_FAILED:
        return StageState.RUNNING if bad else (StageState.SKIPPED if all_ended else None)
    if rule is TriggerRule.ANY_SUCCESS and before:
        if good:
            return StageState.RUNNING
        return None if not all_ended else (StageState.BLOCKED if bad else StageState.SKIPPED)
    if bad:
        return StageState.BLOCKED
    if rule is TriggerRule.NONE_FAILED:
        return StageState.RUNNING if all_ended else None
    if good == len(before):
        return StageState.RUNNING
    return StageState.SKIPPED if StageState.SKIPPED in before else None
