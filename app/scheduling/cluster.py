"""Rows to what the scheduler is told of the cluster and of how it is shared: a statement or two a table."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from sqlalchemy import select

from app.core.uow import UnitOfWork
from app.queues.models import Queue
from app.resources.models import Gpu, Node
from app.resources.pools import list_pools
from app.resources.reservations import list_reservations
from app.resources.topology import list_levels
from app.scheduling.classes import ISOLATION, Classes
from app.scheduling.jobs import load_blocked, load_jobs
from app.scheduling.policy import policy_in_force
from app.scheduling.popular import popular_shapes
from app.scheduling.predictions import Expected
from app.scheduling.shares import account_id, past_use
from app.tenancy.models import Organisation, Project
from app.tenancy.quotas import Subject, list_quotas
from scheduler import snapshot as plain
from trellis.vocabulary import ExecutorKind, NodeState, QueueState

# A node that simulates plays whatever it is given.
_CONTAINERS = frozenset({ExecutorKind.CONTAINER, ExecutorKind.SIMULATED})


def load_snapshot(uow: UnitOfWork, classes: Classes, expected: Expected) -> plain.Snapshot:
    """The cluster, all that wait and all that run, in a fixed number of statements."""
    jobs = load_jobs(uow, classes, expected)
    levels = list_levels(uow)
    return plain.Snapshot(
        now=uow.clock.now().timestamp(),
        nodes=tuple(load_nodes(uow, levels)),
        queues=tuple(_queues(uow)),
        pending=jobs.pending,
        running=jobs.running,
        pools=tuple(load_pools(uow)),
        accounts=tuple(load_accounts(uow)),
        reservations=tuple(_reservations(uow)),
        blocked=load_blocked(uow, expected),
        shapes=popular_shapes(uow),
        levels=levels,
    )


def load_empty(uow: UnitOfWork) -> plain.Snapshot:
    """The cluster and how it is shared, without anybody's jobs; every queue is open."""
    levels = list_levels(uow)
    return plain.Snapshot(
        now=uow.clock.now().timestamp(),
        nodes=tuple(load_nodes(uow, levels)),
        queues=tuple(replace(queue, paused=False) for queue in _queues(uow)),
        pending=(),
        pools=tuple(load_pools(uow)),
        accounts=tuple(load_accounts(uow)),
        levels=levels,
    )


def load_nodes(uow: UnitOfWork, levels: tuple[str, ...]) -> Iterable[plain.Node]:
    """Every node with what is free of it."""
    devices: dict[UUID, list[Gpu]] = defaultdict(list)
    for gpu in uow.session.execute(select(Gpu).order_by(Gpu.node_id, Gpu.index)).scalars():
        devices[gpu.node_id].append(gpu)
    for node in uow.session.execute(select(Node).order_by(Node.id)).scalars():
        gpus = devices[node.id]
        cuts = _cuts(gpus)
        yield plain.Node(
            id=str(node.id),
            name=node.name,
            ready=node.state is NodeState.READY and node.cordoned_at is None,
            cpu_milli=node.cpu_milli,
            memory_bytes=node.memory_bytes,
            cpu_milli_free=node.cpu_milli - node.cpu_milli_used,
            memory_bytes_free=node.memory_bytes - node.memory_bytes_used,
            gpu_model=node.gpu_model,
            gpu_milli_free=tuple(0 if gpu.partitioned or gpu.quarantine else 1000 - gpu.milli_used for gpu in gpus),
            gpu_links=_cliques(gpus),
            gpu_numa=tuple(gpu.numa for gpu in gpus),
            partitioned=tuple(gpu.index for gpu in gpus if _is_cut(gpu) and _pairs_in(gpu) == cuts),
            cuts=cuts,
            away="" if node.state is NodeState.READY else str(node.state),
            # Of the others it is no matter, and nodes that differ in it by a few bytes alone shall be alike.
            gpu_memory_bytes=next((gpu.memory_bytes for gpu in gpus if gpu.partitioned), 0),
            domains=tuple(node.domains.get(level, "") for level in levels),
            labels=tuple(sorted(node.all_labels.items())),
            taints=tuple(plain.Taint(one["key"], one["value"], plain.Effect(one["effect"])) for one in node.taints),
            pool_id="" if node.pool_id is None else str(node.pool_id),
            isolation=ISOLATION[node.isolation],
            spot=node.spot,
            usd_micros_hour=node.usd_micros_hour,
            caches=frozenset(node.caches),
            containers=not _CONTAINERS.isdisjoint(node.executors),
        )


def _cuts(gpus: list[Gpu]) -> tuple[tuple[str, int], ...]:
    """How most of a node's partitioned devices are cut; one that is cut in another way is given to nobody."""
    ways = Counter(_pairs_in(gpu) for gpu in gpus if _is_cut(gpu))
    return min(ways, key=lambda way: (-ways[way], way), default=())


def _is_cut(gpu: Gpu) -> bool:
    """Whether there are slices of it to give: of one that is partitioned into none, or quarantined, there are not."""
    return gpu.partitioned and gpu.cuts != [] and gpu.quarantine is None


def _pairs_in(gpu: Gpu) -> tuple[tuple[str, int], ...]:
    return tuple(sorted((profile, start) for profile, start in gpu.cuts or ()))


def _cliques(gpus: list[Gpu]) -> tuple[int, ...]:
    """Number the groups of devices that are linked with one another, directly or through others."""
    clique = list(range(len(gpus)))
    for gpu in gpus:
        for other in gpu.links:
            if other < len(gpus) and clique[other] != clique[gpu.index]:
                joined = {clique[other], clique[gpu.index]}
                clique = [min(joined) if one in joined else one for one in clique]
    return tuple(clique)


def _queues(uow: UnitOfWork) -> Iterable[plain.Queue]:
    return map(plain_queue, uow.session.execute(select(Queue).order_by(Queue.id)).scalars())


def plain_queue(queue: Queue) -> plain.Queue:
    """What a queue is to the scheduler."""
    return plain.Queue(
        id=str(queue.id),
        name=queue.name,
        paused=queue.state is QueueState.PAUSED,
        weight=queue.weight,
        policy=queue.policy,
        second_policy=queue.second_policy,
        pool_id="" if queue.pool_id is None else str(queue.pool_id),
        most=_limit(queue.most),
        most_running=plain.UNLIMITED if queue.most_running is None else queue.most_running,
    )


def load_pools(uow: UnitOfWork) -> Iterable[plain.Pool]:
    """Every pool."""
    for pool in list_pools(uow):
        yield plain.Pool(
            id=str(pool.id),
            name=pool.name,
            parent_id="" if pool.parent_id is None else str(pool.parent_id),
            weight=pool.weight,
            nominal=_limit(pool.nominal) if pool.nominal else None,
            lends=_limit(pool.lends),
            borrows=_limit(pool.borrows),
        )


def load_accounts(uow: UnitOfWork) -> Iterable[plain.Account]:
    """The tree of organisations, projects, and actors that used something or have a quota of their own."""
    most = {_account_of(quota.subject): _limit(quota.most.stored()) for quota in list_quotas(uow)}
    used = past_use(uow, policy_in_force(uow).policy.fair_share)
    for organisation_id, name in uow.session.execute(select(Organisation.id, Organisation.name)):
        account = str(organisation_id)
        yield plain.Account(account, most=most.get(account, plain.NO_LIMIT), name=name)
    known = set()
    for project_id, organisation_id, name in uow.session.execute(
        select(Project.id, Project.organisation_id, Project.name)
    ):
        account = str(project_id)
        known.add(account)
        yield plain.Account(account, str(organisation_id), most=most.get(account, plain.NO_LIMIT), name=name)
    for account in sorted(used.keys() | {account for account in most if "/" in account}):
        project = account.partition("/")[0]
        if project in known:
            limit = most.get(account, plain.NO_LIMIT)
            yield plain.Account(account, project, used=used.get(account, 0.0), most=limit)


def _account_of(subject: Subject) -> str:
    if subject.project_id is None:
        return str(subject.organisation_id)
    return str(subject.project_id) if subject.actor_id is None else account_id(subject.project_id, subject.actor_id)


def _reservations(uow: UnitOfWork) -> Iterable[plain.Reservation]:
    for reservation, parts in list_reservations(uow):
        yield plain.Reservation(
            id=str(reservation.id),
            project_id="" if reservation.project_id is None else str(reservation.project_id),
            starts_at=reservation.starts_at.timestamp(),
            ends_at=reservation.ends_at.timestamp(),
            holdings=tuple(
                plain.Holding(str(part.node_id), part.cpu_milli, part.memory_bytes, tuple(map(_pair, part.gpus)))
                for part in parts
            ),
        )


def _pair(part: Any) -> tuple[int, int]:
    index, milli = part
    return index, milli


def _limit(amounts: Mapping[str, int]) -> plain.Amounts:
    """Amounts that may be left out: those have no limit."""
    return plain.Amounts(**amounts)
