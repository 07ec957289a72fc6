"""What holds for every placement, whatever the nodes, the wishes and what came before."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from math import inf
from random import Random
from typing import TypeVar

from hypothesis import given
from hypothesis import strategies as st

from scheduler.backfill import Guard
from scheduler.capacity import Setting
from scheduler.gang import extend_gang, place_gang
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant
from scheduler.placement.scoring import gauge_of
from scheduler.placement.states import Demand
from scheduler.placement.views import POINT, View
from scheduler.snapshot import (
    Affinity,
    Constraints,
    Effect,
    JobClass,
    Node,
    Operator,
    Pool,
    Preference,
    Request,
    Role,
    Shape,
    Strategy,
    Taint,
    Term,
    Toleration,
)
from tests.support.examples import CHEAP

T = TypeVar("T")

SEEDS = st.integers(0, 2**32)
LEVELS = ("zone", "rack")
POOLS = (Pool("p", "p"), Pool("below", "below", parent_id="p"), Pool("other", "other"))
TAINTS = (Taint("gpu", "reserved"), Taint("disk", "slow", Effect.AVOID))
WEB, DB = (("app", "web"),), (("app", "db"),)
PROFILES = ("1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb", "1g.10gb+me")
SLICES = {"1g.10gb": 1, "1g.10gb+me": 1, "1g.20gb": 2, "2g.20gb": 2, "3g.40gb": 4, "4g.40gb": 4, "7g.80gb": 8}
STARTS = {"1g.20gb": {0, 2, 4, 6}, "2g.20gb": {0, 2, 4}, "3g.40gb": {0, 4}, "4g.40gb": {0}, "7g.80gb": {0}}


def some(random: Random, options: Sequence[T], most: int = 1) -> tuple[T, ...]:
    return tuple(random.sample(options, random.randint(0, min(most, len(options)))))


def a_node(random: Random, number: int) -> Node:
    devices = random.choice((0, 1, 2, 4, 8))
    partitioned = tuple(device for device in range(devices) if random.random() < 0.2)
    milli = [0 if device in partitioned else random.choice((1000, 1000, 700, 500, 250, 0)) for device in range(devices)]
    wired = random.random() < 0.5
    return Node(
        id=f"id{number}",
        name=f"n{number:02}",
        ready=random.random() < 0.95,
        cpu_milli=16000,
        memory_bytes=64,
        cpu_milli_free=random.choice((16000, 8000, random.randrange(33) * 500)),
        memory_bytes_free=random.choice((64, 32, 3)),
        gpu_model=random.choice(("H100", "A100")) if devices else "",
        gpu_milli_free=tuple(milli),
        gpu_links=tuple(device // 2 for device in range(devices)) if wired else (),
        gpu_numa=tuple(device // 4 for device in range(devices)) if wired else (),
        partitioned=partitioned,
        domains=(random.choice("ab"), random.choice(("1", "2", ""))),
        labels=(("disk", random.choice(("ssd", "hdd"))),),
        taints=some(random, TAINTS) if random.random() < 0.3 else (),
        pool_id=random.choice(("", "p", "below", "other")),
        spot=random.random() < 0.3,
        usd_micros_hour=random.choice((0, 1000, 2000)),
        caches=frozenset(some(random, "xyz", 2)),
    )


def a_request(random: Random) -> Request:
    kind = random.random()
    amounts = random.choice((0, 500, 1000, random.randrange(17) * 500)), random.choice((0, 1, 8))
    if kind < 0.15:
        return Request(*amounts, mig_profile=random.choice(PROFILES))
    gpu_milli = random.choice((0, 250, 300, 500, 1000, 1000, 2000, 3000))
    return Request(*amounts, gpu_milli, some(random, ("H100", "A100")) if random.random() < 0.4 else ())


def some_constraints(random: Random) -> Constraints:
    if random.random() < 0.3:
        return Constraints(strategy=random.choice(tuple(Strategy)))
    disk = Term("disk", random.choice((Operator.IN, Operator.NOT_IN)), ("ssd",))
    wish = Term(random.choice(("disk", "zone")), Operator.IN, (random.choice(("ssd", "a")),))
    near = Affinity(
        random.choice((WEB, DB)), random.choice(("node", *LEVELS)), random.random() < 0.5, random.random() < 0.6
    )
    return Constraints(
        pool_id=random.choice(("", "", "p", "other")),
        selector=(disk,) if random.random() < 0.3 else (),
        tolerations=random.choice(((), (Toleration(),), (Toleration("gpu", "reserved"),))),
        prefers=(Preference(random.randint(1, 9), wish),) if random.random() < 0.3 else (),
        affinities=(near,) if random.random() < 0.4 else (),
        exclusive=random.random() < 0.2,
        within=random.choice(("", "", *LEVELS, "node")),
        within_required=random.random() < 0.5,
        strategy=random.choice(tuple(Strategy)),
        spot=random.random() < 0.8,
        data=some(random, "xyz", 2),
    )


def a_class(random: Random) -> JobClass:
    roles = []
    for _ in range(random.choice((1, 1, 1, 2))):
        least = random.choice((1, 1, 1, 2, 4))
        roles.append(Role(a_request(random), least, least + random.choice((0, 2))))
    labels = random.choice(((), (), WEB, DB))
    return JobClass(random.choice("ab"), "q", tuple(roles), constraints=some_constraints(random), labels=labels)


def a_cluster(random: Random) -> Ledger:
    nodes = [a_node(random, number) for number in range(random.randint(1, 8))]
    shapes = tuple(Shape(a_request(random), random.random()) for _ in range(random.choice((0, 0, 8))))
    return Ledger(nodes, Setting(LEVELS, POOLS, shapes))


Life = list[tuple[JobClass, list[Grant]]]


def live(ledger: Ledger, random: Random, steps: int) -> Life:
    """Start, grow and end gangs of a few classes; return those that run."""
    running: Life = []
    classes = [a_class(random) for _ in range(random.randint(2, 8))]
    for _ in range(steps):
        if running and random.random() < 0.25:
            for grant in running.pop(random.randrange(len(running)))[1]:
                ledger.give(grant)
        else:
            job_class = random.choice(classes)
            grants = place_gang(ledger, job_class, Guard((), inf))
            if len(grants) == sum(role.least for role in job_class.roles):
                grants += extend_gang(ledger, job_class, grants, Guard((), inf), random.choice((0, 1, 9)))
                running.append((job_class, grants))
    return running


def state_of(ledger: Ledger) -> object:
    """Everything that rooms say; what is found follows from it alone, as another test shows."""
    return [
        (room.cpu_milli, room.memory_bytes, tuple(room.gpus), tuple(room.masks), room.whole, room.tenants, room.exclusive)
        for room in ledger.rooms
    ]  # fmt: skip


@given(SEEDS)
@CHEAP
def test_nothing_is_given_beyond_what_there_is(seed: int) -> None:
    random = Random(seed)
    ledger = a_cluster(random)
    before = [(list(room.gpus), room.cpu_milli, room.memory_bytes) for room in ledger.rooms]
    running = live(ledger, random, 12)
    for number, (gpus, cpu_milli, memory_bytes) in enumerate(before):
        here = [grant for _, grants in running for grant in grants if grant.number == number]
        assert sum(grant.cpu_milli for grant in here) <= cpu_milli
        assert sum(grant.memory_bytes for grant in here) <= memory_bytes
        for device, milli in enumerate(gpus):
            assert sum(taken for grant in here for index, taken in grant.gpus if index == device) <= milli


@given(SEEDS)
@CHEAP
def test_slices_of_a_device_never_overlap_and_begin_where_they_may(seed: int) -> None:
    random = Random(seed)
    ledger = a_cluster(random)
    running = live(ledger, random, 12)
    taken: dict[tuple[int, int], list[tuple[str, set[int]]]] = {}
    for _, grants in running:
        for grant in grants:
            for piece in grant.slices:
                assert piece.device in ledger.nodes[grant.number].partitioned
                assert piece.start in STARTS.get(piece.profile, set(range(7)))
                slots = set(range(piece.start, piece.start + SLICES[piece.profile]))
                taken.setdefault((grant.number, piece.device), []).append((piece.profile, slots))
    for pieces in taken.values():
        assert all(not one & other for (_, one), (_, other) in combinations(pieces, 2))
        assert sum(profile.endswith("+me") for profile, _ in pieces) <= 1


@given(SEEDS)
@CHEAP
def test_every_replica_gets_what_was_asked_for_where_it_may_be(seed: int) -> None:
    random = Random(seed)
    ledger = a_cluster(random)
    for job_class, grants in live(ledger, random, 12):
        for grant in grants:
            request, node = job_class.roles[grant.role].request, ledger.nodes[grant.number]
            assert node.ready
            assert (grant.cpu_milli, grant.memory_bytes) == (request.cpu_milli, request.memory_bytes)
            assert sum(milli for _, milli in grant.gpus) == request.gpu_milli
            assert len({device for device, _ in grant.gpus}) == -(-request.gpu_milli // 1000)
            assert [piece.profile for piece in grant.slices] == [request.mig_profile] * bool(request.mig_profile)
            if request.gpu_milli or request.mig_profile:
                assert not request.gpu_models or node.gpu_model in request.gpu_models
            assert may_be(job_class.constraints, node)


def may_be(constraints: Constraints, node: Node) -> bool:
    """Tell whether labels, taints and pools allow it, written apart from the code under test."""
    pools = {"": {"", "p", "below", "other"}, "p": {"p", "below"}, "other": {"other"}}[constraints.pool_id]
    disk = dict(node.labels)["disk"]
    selected = all((disk in term.values) is (term.operator is Operator.IN) for term in constraints.selector)
    tolerated = not any(taint.effect is Effect.REFUSE for taint in node.taints) or bool(constraints.tolerations)
    return node.pool_id in pools and selected and tolerated and (constraints.spot or not node.spot)


@given(SEEDS)
@CHEAP
def test_a_gang_that_must_lie_in_one_domain_does(seed: int) -> None:
    random = Random(seed)
    ledger = a_cluster(random)
    for job_class, grants in live(ledger, random, 12):
        constraints = job_class.constraints
        if constraints.within and constraints.within_required:
            depth = {"zone": 1, "rack": 2, "node": 3}[constraints.within]
            found = {(*ledger.nodes[grant.number].domains, ledger.nodes[grant.number].id)[:depth] for grant in grants}
            assert len(found) == 1
            assert constraints.within == "node" or all(found.pop())


@given(SEEDS)
@CHEAP
def test_who_wants_to_be_alone_is(seed: int) -> None:
    random = Random(seed)
    ledger = a_cluster(random)
    running = live(ledger, random, 12)
    for place, (job_class, grants) in enumerate(running):
        if job_class.constraints.exclusive:
            others = {grant.number for other, (_, each) in enumerate(running) if other != place for grant in each}
            assert not others & {grant.number for grant in grants}


@given(SEEDS)
@CHEAP
def test_who_must_be_apart_is_whoever_came_first(seed: int) -> None:
    random = Random(seed)
    ledger = a_cluster(random)
    running = live(ledger, random, 12)
    for job_class, grants in running:
        for wish in job_class.constraints.affinities:
            if wish.apart and wish.required:
                for other, theirs in running:
                    if other.project_id == job_class.project_id and set(wish.labels) <= set(other.labels):
                        assert not any(
                            one is not another and shares(ledger, wish.level, one.number, another.number)
                            for one in grants
                            for another in theirs
                        )


def shares(ledger: Ledger, level: str, one: int, other: int) -> bool:
    if one == other or level == "node":
        return one == other
    depth = LEVELS.index(level) + 1
    here, there = ledger.nodes[one].domains[:depth], ledger.nodes[other].domains[:depth]
    return here == there and here[-1] != ""


@given(SEEDS)
@CHEAP
def test_undoing_restores_every_amount_and_every_answer(seed: int) -> None:
    random = Random(seed)
    ledger = a_cluster(random)
    live(ledger, random, random.randint(0, 6))
    asked = [a_class(random) for _ in range(6)]
    before, answers, mark = state_of(ledger), [answer(ledger, each) for each in asked], ledger.mark()
    live(ledger, random, 6)
    ledger.rollback(mark)
    assert state_of(ledger) == before
    assert [answer(ledger, each) for each in asked] == answers


def answer(ledger: Ledger, job_class: JobClass) -> list[Grant]:
    """Place a gang and put everything back."""
    mark = ledger.mark()
    grants = place_gang(ledger, job_class, Guard((), inf))
    ledger.rollback(mark)
    return grants


@given(SEEDS)
@CHEAP
def test_what_is_found_depends_on_how_things_stand_not_on_how_they_came_to(seed: int) -> None:
    random = Random(seed)
    ledger = a_cluster(random)
    shapes = Setting(LEVELS, POOLS)
    ledger = Ledger(ledger.nodes, shapes)
    running = live(ledger, random, 10)
    fresh = Ledger(
        [
            replace(
                node,
                cpu_milli_free=room.cpu_milli,
                memory_bytes_free=room.memory_bytes,
                gpu_milli_free=tuple(room.gpus),
            )
            for node, room in zip(ledger.nodes, ledger.rooms, strict=True)
        ],
        shapes,
    )
    for _, grants in running:
        for grant in grants:
            fresh.seat(grant)
    assert state_of(fresh) == state_of(ledger)
    for job_class in [job_class for job_class, _ in running] + [a_class(random) for _ in range(3)]:
        assert answer(fresh, job_class) == answer(ledger, job_class)


@given(SEEDS)
@CHEAP
def test_the_place_found_is_the_best_of_all_nodes(seed: int) -> None:
    random = Random(seed)
    ledger = a_cluster(random)
    live(ledger, random, random.randint(0, 8))
    job_class = replace(a_class(random), roles=(Role(a_request(random)),))
    (view,) = ledger.capacity.views(job_class)
    refused = set(some(random, range(len(ledger.nodes)), 2))
    found = view.find(lambda grant: grant.number not in refused)
    scores = {
        number: score
        for number in range(len(ledger.nodes))
        if number not in refused and (score := score_of(ledger, view, job_class, number)) is not None
    }
    # Of equals the one with the least memory, or the most, where room is to be left.
    sign = -1 if job_class.constraints.strategy is Strategy.SPREAD else 1
    rooms = ledger.rooms
    best = min(scores, key=lambda number: (scores[number], sign * rooms[number].memory_bytes, number), default=None)
    assert (None if found is None else found.number) == best
    if found is not None:
        assert ledger.rooms[found.number].covers(found)


def score_of(ledger: Ledger, view: View, job_class: JobClass, number: int) -> int | None:
    """Weigh one node by itself, without groups, ranks or bounds."""
    request, room, capacity = view.request, ledger.rooms[number], ledger.capacity
    if not view.field.allows(number) or not room.slots(request, 1):
        return None
    gauge = gauge_of(job_class.constraints.strategy, capacity.fragmentation, ledger.nodes)
    states, demand = view.field.cluster.states, Demand.of(request)
    state, left = states.of(room), room.cpu_milli - request.cpu_milli
    before, after = capacity.fragmentation.band(room.cpu_milli), capacity.fragmentation.band(left)
    worth = min(gauge.weigh(outcome, demand, after) for outcome in states.outcomes(state, demand))
    return view.field.points_of(number) * POINT - gauge.before(state, before) + worth + gauge.leftover(left)
