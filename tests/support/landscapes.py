"""Clusters in which everything comes together, from a seed: nested pools, quotas, slices, shares, reservations, debts,
roles, constraints, elastic jobs, dependencies. What runs was put there by lot, not by the scheduler.
"""

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import TypeVar

from scheduler.config import BackfillOrder, Config, Preemption
from scheduler.snapshot import (
    UNLIMITED,
    Account,
    Affinity,
    Amounts,
    BlockedJob,
    Constraints,
    Effect,
    Holding,
    JobClass,
    Node,
    Operator,
    PendingJob,
    Pool,
    Preference,
    Queue,
    Request,
    Reservation,
    Role,
    RunningJob,
    Shape,
    Snapshot,
    Strategy,
    Taint,
    Term,
    Toleration,
)
from tests.support.floors import PROFILES, Floor

T = TypeVar("T")

NOW = 1000.0
LEVELS = ("zone", "rack")
POLICIES = ("", "deadline", "fair_share", "fifo", "gang", "priority", "slowdown")
ABOVE = {"root": "", "left": "root", "right": "root", "deep": "left", "apart": ""}
WEB, DB = (("app", "web"),), (("app", "db"),)
RULES = Preemption(min_run_s=300, max_preemptions=2, grace_s=60)


def a_config(random: Random) -> Config:
    """Return a configuration; nothing in it bounds a plan of a small cluster."""
    threshold = random.choice((1, 1, 1, 2))
    return Config(
        policy=random.choice(POLICIES[1:]),
        second_policy=random.choice(POLICIES[1:]),
        backfill=random.random() < 0.85,
        backfill_order=random.choice(tuple(BackfillOrder)),
        reserved_heads=random.choice((1, 1, 1, 2, 4, None)),
        predictions=random.random() < 0.3,
        preemption=replace(RULES, enabled=random.random() < 0.9, priority_threshold=threshold),
        reclaim=random.random() < 0.9,
        consolidate=random.random() < 0.8,
        elastic=random.random() < 0.8,
        ageing_per_hour=random.choice((0.0, 10.0)),
        patience_s=random.choice((86_400.0, 50.0)),
        max_placements=1000,
    )


def a_landscape(random: Random, nodes: int, running: int, waiting: int) -> Snapshot:
    """Return a cluster of so many nodes, and at most so many running and waiting jobs."""
    machines = [_node(random, number) for number in range(nodes)]
    classes = [a_kind_of_job(random) for _ in range(random.randint(1, 5))]
    floors = {node.id: Floor(node) for node in machines}
    begun = [a_running_job(random, floors, f"r{number}", random.choice(classes)) for number in range(running)]
    pending = tuple(_pending(random, floors, f"j{number}", random.choice(classes)) for number in range(waiting))
    return Snapshot(
        now=NOW,
        nodes=tuple(floors[node.id].left(node) for node in machines),
        queues=tuple(a_queue(random, number) for number in range(3)),
        pending=pending,
        running=tuple(job for job in begun if job is not None),
        pools=tuple(a_pool(random, name) for name in ABOVE),
        accounts=some_accounts(random),
        reservations=tuple(a_booking(random, machines, number) for number in range(random.choice((0, 0, 0, 1, 2)))),
        blocked=tuple(a_blocked_job(random, pending, number) for number in range(random.choice((0, 0, 1, 2)))),
        shapes=tuple(Shape(_request(random), random.random()) for _ in range(random.choice((0, 3)))),
        levels=LEVELS,
    )


def _some(random: Random, options: Sequence[T], most: int = 1) -> tuple[T, ...]:
    return tuple(random.sample(options, random.randint(0, min(most, len(options)))))


def _node(random: Random, number: int) -> Node:
    devices = random.choice((0, 2, 2, 3, 4))
    cut = tuple(device for device in range(devices) if random.random() < 0.15)
    wired = random.random() < 0.3
    cpu_milli, memory_bytes = random.choice((4000, 8000, 8000)), random.choice((9, 16, 16))
    taints = _some(random, (Taint("gpu", "kept"), Taint("disk", "slow", Effect.AVOID))) if random.random() < 0.2 else ()
    return Node(
        id=f"id{number}",
        name=f"n{number}",
        ready=random.random() < 0.93,
        cpu_milli=cpu_milli,
        memory_bytes=memory_bytes,
        cpu_milli_free=cpu_milli,
        memory_bytes_free=memory_bytes,
        gpu_model=random.choice(("H100", "H100", "A100")) if devices else "",
        gpu_milli_free=tuple(0 if device in cut else 1000 for device in range(devices)),
        gpu_links=tuple(device // 2 for device in range(devices)) if wired else (),
        gpu_numa=tuple(device // 4 for device in range(devices)) if wired else (),
        partitioned=cut,
        domains=(random.choice("ab"), random.choice(("1", "2", "")))[: random.choice((2, 2, 2, 1))],
        labels=(("disk", random.choice(("ssd", "hdd"))),),
        taints=taints,
        pool_id=random.choice(("", "", "", *ABOVE)),
        isolation=random.choice((0, 1, 1)),
        spot=random.random() < 0.3,
        usd_micros_hour=random.choice((0, 1000, 2000)),
        caches=frozenset(_some(random, "xyz", 2)),
        gpu_memory_bytes=80 * 2**30,
    )


def _request(random: Random) -> Request:
    cpu_milli, memory_bytes = random.choice((0, 500, 1000, 2000)), random.choice((0, 1, 1, 2))
    if random.random() < 0.08:
        return Request(cpu_milli, memory_bytes, mig_profile=random.choice(tuple(PROFILES)))
    gpu_milli = random.choice((0, 0, 250, 300, 500, 700, 1000, 1000, 1000, 2000))
    return Request(cpu_milli, memory_bytes, gpu_milli, random.choice(((), (), (), (), ("H100",), ("H100", "A100"))))


def _constraints(random: Random) -> Constraints:
    if random.random() < 0.55:
        return Constraints(strategy=random.choice(tuple(Strategy)))
    disk = Term("disk", random.choice((Operator.IN, Operator.NOT_IN)), ("ssd",))
    wish = Term(random.choice(("disk", "zone")), Operator.IN, (random.choice(("ssd", "a")),))
    level = random.choice(("node", *LEVELS))
    within = random.choice(("", "", *LEVELS, "node"))
    near = Affinity(random.choice((WEB, DB)), level, random.random() < 0.6, random.random() < 0.6)
    return Constraints(
        pool_id=random.choice(("", "", "", "", "", "left", "root")),
        selector=(disk,) if random.random() < 0.15 else (),
        tolerations=random.choice(((), (Toleration(),), (Toleration("gpu", "kept"),))),
        prefers=(Preference(random.randint(1, 9), wish),) if random.random() < 0.2 else (),
        affinities=(near,) if random.random() < 0.35 else (),
        exclusive=random.random() < 0.15,
        within=within,
        within_required=random.random() < 0.4,
        strategy=random.choice(tuple(Strategy)),
        spot=random.random() < 0.85,
        min_isolation=random.choice((0, 0, 0, 1)),
        data=_some(random, "xyz", 2),
    )


def a_kind_of_job(random: Random) -> JobClass:
    """Return a class of jobs."""
    roles = []
    for _ in range(random.choice((1, 1, 1, 1, 2))):
        least = random.choice((1, 1, 1, 2, 3))
        roles.append(Role(_request(random), least, least + random.choice((0, 0, 0, 1, 2))))
    return JobClass(
        project_id=random.choice("abc"),
        queue_id=f"q{random.randint(0, 2)}",
        roles=tuple(roles),
        priority=random.randint(0, 3),
        time_limit_s=random.choice((None, 50, 100, 2000)),
        user_id=random.choice("uv"),
        constraints=_constraints(random),
        labels=random.choice(((), (), WEB, DB)),
        preemptible=random.random() < 0.85,
        checkpointable=random.random() < 0.5,
    )


def a_running_job(random: Random, floors: dict[str, Floor], job_id: str, job_class: JobClass) -> RunningJob | None:
    """Put a job on nodes by lot, without a look at its constraints; None where there is no room."""
    holdings: list[Holding] = []
    for number, role in enumerate(job_class.roles):
        for _ in range(random.randint(role.least, role.most)):
            holding = _seat(random, floors, role.request, number)
            if holding is None:
                for taken in holdings:
                    floors[taken.node_id].give(taken)
                return None
            holdings.append(holding)
    if random.random() < 0.04:
        place = random.randrange(len(holdings))
        holdings[place] = replace(holdings[place], releasing_at=NOW + 20)
    return RunningJob(
        job_id,
        job_class,
        tuple(holdings),
        started_at=random.choice((0.0, 0.0, 0.0, 500.0, NOW - 100)),
        ends_by=random.choice((None, None, NOW - 5, NOW + random.randint(1, 200), NOW + 2000)),
        expected_by=random.choice((None, None, NOW + 50)),
        checkpointed_at=random.choice((None, None, 400.0, 900.0)),
        releasing_at=random.choice((*(None,) * 9, NOW + 30.0, NOW - 90.0)),
        preemptions=random.choice((0, 0, 0, 0, 2)),
    )


def _seat(random: Random, floors: dict[str, Floor], request: Request, role: int) -> Holding | None:
    names = random.sample(list(floors), len(floors))
    held = (floors[name].seat(random, request, role) for name in names)
    return next((one for one in held if one is not None), None)


def _pending(random: Random, floors: dict[str, Floor], job_id: str, job_class: JobClass) -> PendingJob:
    owed: list[Holding] = []
    if random.random() < 0.08:
        empty = {name: Floor(floor.node) for name, floor in floors.items()}
        for number, role in enumerate(job_class.roles):
            owed += [one for _ in range(role.least) if (one := _seat(random, empty, role.request, number))]
        if len(owed) < sum(role.least for role in job_class.roles):
            owed.clear()
    return PendingJob(
        job_id,
        NOW - random.choice((0.0, 1.0, 60.0, 900.0)),
        job_class,
        deadline=random.choice((None, None, NOW - 5, NOW + 50.0)),
        expected_s=random.choice((None, None, 30.0, 99.0)),
        owed=tuple(owed),
    )


def a_queue(random: Random, number: int) -> Queue:
    """Return a queue, now and then with a limit."""
    return Queue(
        f"q{number}",
        f"queue{number}",
        paused=random.random() < 0.05,
        weight=random.randint(1, 3),
        policy=random.choice(POLICIES),
        second_policy=random.choice(POLICIES),
        pool_id=random.choice(("", "", "", *ABOVE)),
        most=_most(random),
        most_running=random.choice((*(UNLIMITED,) * 6, random.randint(0, 4))),
    )


def _most(random: Random) -> Amounts:
    if random.random() < 0.85:
        return Amounts()
    return Amounts(random.choice((UNLIMITED, 3000)), random.choice((UNLIMITED, 6)), random.choice((UNLIMITED, 2000)))


def a_pool(random: Random, name: str) -> Pool:
    """Return the pool of that name."""
    nominal = Amounts(random.randint(0, 16) * 1000, random.randint(0, 32), random.randint(0, 8) * 1000)
    return Pool(
        name,
        name,
        ABOVE[name],
        weight=random.choice((1, 1, 2)),
        nominal=random.choice((None, nominal)),
        lends=_most(random),
        borrows=_most(random),
    )


def some_accounts(random: Random) -> tuple[Account, ...]:
    """Return an organisation with two projects, one of which has a user with a quota."""
    return (
        Account("org", most=_most(random)),
        Account("a", "org", random.randint(1, 3), random.choice((0.0, 0.3)), _most(random), "alpha"),
        Account("b", "org", used=random.choice((0.0, 0.1))),
        Account("a/u", "a", most=_most(random)),
    )


def a_booking(random: Random, nodes: Sequence[Node], number: int, now: float = NOW) -> Reservation:
    """Return what somebody, or maintenance, has booked on one or two nodes."""
    holdings = []
    for node in random.sample(nodes, random.randint(1, min(2, len(nodes)))):
        uncut = [device for device in range(len(node.gpu_milli_free)) if device not in node.partitioned]
        gpus = tuple((device, 1000) for device in sorted(_some(random, uncut, 2)))
        holdings.append(Holding(node.id, random.choice((0, 1000, 2000)), random.choice((0, 2)), gpus))
    starts_at = now + random.choice((-10, 0, 20, 90, 500))
    ends_at = starts_at + random.choice((30, 200))
    return Reservation(f"booking{number}", random.choice(("", "a", "b")), starts_at, ends_at, tuple(holdings))


def a_blocked_job(random: Random, pending: Sequence[PendingJob], number: int) -> BlockedJob:
    """Return a job that waits for one of these."""
    needs = (random.choice(pending).id,) if pending else ("gone",)
    return BlockedJob(
        f"b{number}",
        random.choice("abc"),
        random.randint(0, 5),
        needs,
        deadline=random.choice((None, NOW + 100)),
        expected_s=random.choice((0.0, 40.0)),
    )
