"""Whether a plan keeps the rules: judged from the snapshot and the plan alone, the slow and obvious way.

Shares no code with the scheduler but its data. Every function yields what is wrong, in words; nothing is wrong where
it yields nothing. What was broken before the plan is not held against it, only what the plan adds.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from math import inf

from scheduler.config import Config
from scheduler.plan import Eviction, EvictionKind, Plan, ReplicaPlacement
from scheduler.snapshot import (
    Affinity,
    Amounts,
    Constraints,
    Effect,
    Holding,
    JobClass,
    Node,
    Operator,
    PendingJob,
    Pool,
    RunningJob,
    Snapshot,
    Term,
)
from tests.support.books import Books
from tests.support.floors import Floor

RESOURCES = range(3)


@dataclass(frozen=True, slots=True, eq=False)
class Tenant:
    """One replica on one node; `new` if the plan put it there."""

    job_id: str
    job_class: JobClass
    holding: Holding
    new: bool = False


class Judge:
    """One plan for one snapshot."""

    def __init__(self, snapshot: Snapshot, made: Plan, config: Config) -> None:
        self.snapshot = snapshot
        self.made = made
        self.config = config
        self.nodes = {node.id: node for node in snapshot.nodes}
        self.pending = {job.id: job for job in snapshot.pending}
        self.running = {job.id: job for job in snapshot.running}
        self.before = [Tenant(job.id, job.job_class, one) for job in snapshot.running for one in job.holdings]
        self.new = list(self._new())
        self.tenants = self.before + self.new
        self.placed = {one.job_id for one in made.placements}
        self.promised = {promise.job_id: promise.holdings for promise in made.promises if promise.holdings}
        self.told = {one.job_id: one for one in made.evictions}

    def faults(self) -> Iterator[str]:
        """Yield all that is wrong."""
        rules = (
            self.answers(), self.capacity(), self.requests(), self.places(), self.company(), self.gangs(),
            self.limits(), self.reach(), self.victims(), self.needs(), self.debts(), self.bookings(),
        )  # fmt: skip
        return chain.from_iterable(rules)

    def _new(self) -> Iterator[Tenant]:
        for placement in self.made.placements:
            job_class = self.pending[placement.job_id].job_class
            for one in placement.replicas:
                yield Tenant(placement.job_id, job_class, _holding(one, job_class), new=True)
        for resize in self.made.resizes:
            job_class = self.running[resize.job_id].job_class
            for one in resize.added:
                yield Tenant(resize.job_id, job_class, _holding(one, job_class), new=True)

    # Who is answered

    def answers(self) -> Iterator[str]:
        """Every pending job is in exactly one of placements and verdicts; paused queues and bounds are heeded."""
        told = [one.job_id for one in self.made.placements]
        told += [job_id for verdict in self.made.verdicts for job_id in verdict.job_ids]
        if Counter(told) != Counter(self.pending.keys()):
            yield f"answered are {sorted(told)}, pending {sorted(self.pending)}"
        for verdict in self.made.verdicts:
            if any(self.pending[job_id].job_class != verdict.job_class for job_id in verdict.job_ids):
                yield f"a verdict is about jobs of several classes: {verdict.job_ids}"
            if not verdict.message or verdict.position < 1:
                yield f"a verdict says nothing: {verdict}"
        paused = {queue.id for queue in self.snapshot.queues if queue.paused}
        yield from (
            f"{one} starts from a paused queue"
            for one in sorted(self.placed)
            if self.pending[one].job_class.queue_id in paused
        )
        if len(self.made.placements) > self.config.max_placements:
            yield f"{len(self.made.placements)} jobs start"

    # Amounts

    def capacity(self) -> Iterator[str]:
        """No device, no slot, no CPU and no byte is held twice."""
        for floor in self.floors().values():
            new = [one.holding for one in self.new if one.holding.node_id == floor.node.id]
            for holding in new:
                floor.take(holding)
            if new:
                yield from floor.faults()

    def floors(self) -> dict[str, Floor]:
        """Return all nodes as they are before the plan."""
        floors = {node.id: Floor(node) for node in self.snapshot.nodes}
        for tenant in self.before:
            if tenant.holding.node_id in floors:
                floors[tenant.holding.node_id].lay(tenant.holding.slices)
        return floors

    def requests(self) -> Iterator[str]:
        """Every replica gets what was asked for: whole devices, or a share of one, or one slice."""
        for one in self.new:
            request, holding = one.job_class.roles[one.holding.role].request, one.holding
            devices = [device for device, _ in holding.gpus]
            sizes = [milli for _, milli in holding.gpus]
            count, share = divmod(request.gpu_milli, 1000)
            if sizes != ([share] if share else [1000] * count) or len(set(devices)) < len(devices):
                yield f"{one.job_id} asked for {request.gpu_milli} milli-GPU and gets {holding.gpus}"
            if [piece.profile for piece in holding.slices] != [request.mig_profile] * bool(request.mig_profile):
                yield f"{one.job_id} asked for {request.mig_profile!r} and gets {holding.slices}"
            model = self.nodes[holding.node_id].gpu_model
            if (request.gpu_milli or request.mig_profile) and request.gpu_models and model not in request.gpu_models:
                yield f"{one.job_id} asked for {request.gpu_models} and gets {model}"

    # Places

    def places(self) -> Iterator[str]:
        """Every replica lies on a ready node that labels, taints and pools allow."""
        for one in self.new:
            node = self.nodes[one.holding.node_id]
            if not node.ready:
                yield f"{one.job_id} starts on {node.name}, which is not ready"
            if not self.may_be(one.job_class.constraints, node):
                yield f"{one.job_id} may not be on {node.name}"

    def may_be(self, constraints: Constraints, node: Node) -> bool:
        """Tell whether labels, taints and pools allow a node."""
        levels = self.snapshot.levels
        within = constraints.within if constraints.within_required else ""
        domain = self._label(node, within) if within in levels else "known"
        return (
            all(self._holds(term, node) for term in constraints.selector)
            and all(
                taint.effect is not Effect.REFUSE
                or any(
                    one.key in ("", taint.key) and one.value in (None, taint.value) for one in constraints.tolerations
                )
                for taint in node.taints
            )
            and (not constraints.pool_id or node.pool_id in self._below(constraints.pool_id))
            and (constraints.spot or not node.spot)
            and node.isolation >= constraints.min_isolation
            and bool(domain)
            and (not within or within in (*levels, "node"))
        )

    def _holds(self, term: Term, node: Node) -> bool:
        value = self._label(node, term.key)
        match term.operator:
            case Operator.IN:
                return value in term.values
            case Operator.NOT_IN:
                return value not in term.values
            case Operator.EXISTS:
                return value is not None
            case Operator.ABSENT:
                return value is None
            case _:
                raise NotImplementedError(term.operator)

    def _label(self, node: Node, key: str) -> str | None:
        known = {"name": node.name, "pool": node.pool_id, "gpu_model": node.gpu_model}
        known |= dict(zip(self.snapshot.levels, node.domains, strict=False))
        return (known[key] or None) if key in known else dict(node.labels).get(key)

    def _below(self, pool_id: str) -> set[str]:
        return {pool_id}.union(*(self._below(one.id) for one in self.snapshot.pools if one.parent_id == pool_id))

    def domain(self, level: str, node: Node) -> tuple[str, ...]:
        """Return what a node lies in; a place of its own where that is not known."""
        levels = self.snapshot.levels
        depth = levels.index(level) + 1 if level in levels else 0
        path = node.domains[:depth]
        return path if depth and len(path) == depth and path[-1] else ("node", node.id)

    def company(self) -> Iterator[str]:
        """Exclusive jobs are alone; who must be apart is, whoever came first; who must be near is."""
        for one in self.new:
            for other in self.tenants:
                if other is not one and (fault := self._clash(one, other)):
                    yield f"{one.job_id} and {other.job_id} on {one.holding.node_id}, {other.holding.node_id}: {fault}"
            for wish in one.job_class.constraints.affinities:
                if wish.required and not wish.apart and not self._is_near(one, wish):
                    yield f"{one.job_id} is not near {wish.labels}"

    def _clash(self, one: Tenant, other: Tenant) -> str:
        same_node = one.holding.node_id == other.holding.node_id
        alone = one.job_class.constraints.exclusive or other.job_class.constraints.exclusive
        if same_node and alone and one.job_id != other.job_id:
            return "one of them must be alone"
        if other.holding.node_id in self.nodes and one.job_class.project_id == other.job_class.project_id:
            for mine, theirs in ((one, other), (other, one)):
                for wish in mine.job_class.constraints.affinities:
                    if wish.required and wish.apart and _carries(theirs, wish) and self._share(wish, one, other):
                        return f"must be apart by {wish.level}"
        return ""

    def _is_near(self, one: Tenant, wish: Affinity) -> bool:
        alike = [
            other
            for other in self.tenants
            if other is not one and _carries(other, wish) and other.job_class.project_id == one.job_class.project_id
            and other.holding.node_id in self.nodes
        ]  # fmt: skip
        if any(self._share(wish, one, other) for other in alike):
            return True
        first = all(other.new for other in alike)
        return first and _carries(one, wish) and all(other.job_id != one.job_id for other in alike)

    def _share(self, wish: Affinity, one: Tenant, other: Tenant) -> bool:
        here, there = (self.nodes[tenant.holding.node_id] for tenant in (one, other))
        return self.domain(wish.level, here) == self.domain(wish.level, there)

    # Gangs

    def gangs(self) -> Iterator[str]:
        """Of every role there are least..most replicas, now and once those have ended who were told; one domain if required."""
        for placement in self.made.placements:
            if [one.index for one in placement.replicas] != list(range(len(placement.replicas))):
                yield f"{placement.job_id} has gaps in its replicas"
            if not placement.reason:
                yield f"nobody says why {placement.job_id} starts there"
        removed = {one.job_id: set(one.removed) for one in self.made.resizes}
        for job_id in sorted(self.placed | removed.keys()):
            if job_id in self.told:
                yield f"{job_id} is told to end and to change its size"
            job_class = (self.pending.get(job_id) or self.running[job_id]).job_class
            old = self.running[job_id].holdings if job_id in self.running else ()
            staying = [one for one in old if one.releasing_at is None]
            kept = [
                one for place, one in enumerate(old)
                if one.releasing_at is None and place not in removed.get(job_id, ())
            ]  # fmt: skip
            added = [one.holding for one in self.new if one.job_id == job_id]
            for number, role in enumerate(job_class.roles):
                had, has, more = (sum(one.role == number for one in some) for some in (staying, kept, added))
                if has + more < role.least and (has < had or job_id in self.placed):
                    yield f"{job_id} is left with {has + more} of {role.least} in role {number}"
                if more and has + more > role.most:
                    yield f"{job_id} gets {has + more} of at most {role.most} in role {number}"
            constraints = job_class.constraints
            if constraints.within and constraints.within_required and added:
                domains = {self.domain(constraints.within, self.nodes[one.node_id]) for one in (*added, *kept[:1])}
                if len(domains) > 1:
                    yield f"{job_id} must lie in one {constraints.within}"

    # Limits

    def books(self) -> Books:
        """Return the limits with all that is held once the plan is applied."""
        books = Books(
            [self._with_nominal(pool) for pool in self.snapshot.pools], self.snapshot.accounts, self.snapshot.queues
        )
        held: dict[str, tuple[JobClass, list[Holding]]] = {}
        for tenant in self.tenants:
            held.setdefault(tenant.job_id, (tenant.job_class, []))[1].append(tenant.holding)
        books.running = [(job_class, amounts_of(holdings)) for job_class, holdings in held.values()]
        return books

    def _with_nominal(self, pool: Pool) -> Pool:
        if pool.nominal is not None:
            return pool
        nodes = [node for node in self.snapshot.nodes if node.pool_id == pool.id]
        sums = (sum(node.cpu_milli for node in nodes), sum(node.memory_bytes for node in nodes))
        nominal = Amounts(*sums, sum(1000 * len(node.gpu_milli_free) for node in nodes))
        return Pool(pool.id, pool.name, pool.parent_id, pool.weight, nominal, pool.lends, pool.borrows)

    def limits(self) -> Iterator[str]:
        """No queue, account or pool holds more than it may of what a job that starts or grows asks for."""
        books = self.books()
        for one in self.new:
            amounts = amounts_of([one.holding])
            for resource in RESOURCES:
                for used, most in books.uses(one.job_class, resource) if amounts[resource] else ():
                    if used > most:
                        yield f"{one.job_id} brings the use of resource {resource} to {used} of {most}"
        running = Counter(job_class.queue_id for job_class, _ in books.running)
        starting = Counter(self.pending[job_id].job_class.queue_id for job_id in self.placed)
        for queue in self.snapshot.queues:
            if starting[queue.id] and running[queue.id] > queue.most_running:
                yield f"queue {queue.id} runs {running[queue.id]} of {queue.most_running}"

    def reach(self) -> Iterator[str]:
        """Who uses no more than its pool's own keeps to its nodes; who borrows goes only where something is lent."""
        if not self.snapshot.pools:
            return
        books = self.books()
        pools = {queue.id: queue.pool_id for queue in self.snapshot.queues}
        for one in self.new:
            pool = books.pools.get(pools[one.job_class.queue_id])
            # Replicas beyond the least may go where one more such job might.
            grows = any(role.least < role.most for role in one.job_class.roles)
            borrows = pool is not None and (
                grows or any(books.used(pool.id, resource) > books.quota(pool, resource) for resource in RESOURCES)
            )
            if self.nodes[one.holding.node_id].pool_id not in self.reachable(pool, borrows=borrows):
                yield f"{one.job_id} of pool {pool and pool.id!r} is out of reach on {one.holding.node_id}"

    def reachable(self, pool: Pool | None, *, borrows: bool) -> set[str]:
        """Return the pools on whose nodes jobs of a pool may be; "" are the nodes without one."""
        found = {""}
        while pool is not None:
            found |= self._lent_below(pool)
            if not borrows or not any(pool.borrows):
                break
            pool = (
                next((one for one in self.snapshot.pools if one.id == pool.parent_id), None) if pool.parent_id else None
            )
        return found

    def _lent_below(self, pool: Pool) -> set[str]:
        lenders = (one for one in self.snapshot.pools if one.parent_id == pool.id and any(one.lends))
        return {pool.id}.union(*(self._lent_below(one) for one in lenders))

    def meets_a_limit(self, job_class: JobClass) -> bool:
        """Tell whether one more such job, with its fewest replicas, would be beyond a limit once the plan is applied."""
        fewest = [
            Holding("", role.request.cpu_milli, role.request.memory_bytes, ((0, role.request.gpu_milli),))
            for role in job_class.roles
            for _ in range(role.least)
        ]
        sliced = [int(role.request.mig_profile[:1] or 0) * 1000 // 7 * role.least for role in job_class.roles]
        cpu_milli, memory_bytes, gpu_milli = amounts_of(fewest)
        books = self.books()
        # Room that is owed to others comes with the right to use it.
        books.running += [
            (self.pending[job_id].job_class, amounts_of(holdings))
            for job_id, holdings in self.promised.items()
            if job_id in self.pending
        ]
        return not books.allows(job_class, Amounts(cpu_milli, memory_bytes, gpu_milli + sum(sliced)))

    # Room

    def has_room(self, job_class: JobClass) -> bool:
        """Tell whether one replica that is all of its job has a place once the plan is applied, whatever is kept there.

        Never for larger jobs: their replicas depend on each other.
        """
        if len(job_class.roles) > 1 or job_class.roles[0].least > 1:
            return False
        books = self.books()
        pool_id = next(queue.pool_id for queue in self.snapshot.queues if queue.id == job_class.queue_id)
        pool, more = books.pools.get(pool_id), job_class.roles[0].request
        amounts = Amounts(
            more.cpu_milli, more.memory_bytes, more.gpu_milli or int(more.mig_profile[:1] or 0) * 1000 // 7
        )
        borrows = pool is not None and any(
            amounts[resource] and books.used(pool.id, resource) + amounts[resource] > books.quota(pool, resource)
            for resource in RESOURCES
        )
        reachable = self.reachable(pool, borrows=borrows) if self.snapshot.pools else None
        floors = self.floors()
        for one in self.new:
            floors[one.holding.node_id].take(one.holding)
        for floor in floors.values():
            node = floor.node
            if (
                node.ready
                and self.may_be(job_class.constraints, node)
                and (reachable is None or node.pool_id in reachable)
            ):
                for holding in floor.places(more):
                    one = Tenant("", job_class, holding)
                    if not any(self._clash(one, other) for other in self.tenants) and self._all_near(one):
                        return True
        return False

    def _all_near(self, one: Tenant) -> bool:
        wishes = one.job_class.constraints.affinities
        return all(wish.apart or not wish.required or self._would_be_near(one, wish) for wish in wishes)

    def _would_be_near(self, one: Tenant, wish: Affinity) -> bool:
        alike = [
            other
            for other in self.tenants
            if _carries(other, wish) and other.job_class.project_id == one.job_class.project_id
            and other.holding.node_id in self.nodes
        ]  # fmt: skip
        return any(self._share(wish, one, other) for other in alike) or (not alike and _carries(one, wish))

    # Who goes

    def victims(self) -> Iterator[str]:
        """A victim is of lower priority by the threshold, or a borrower, or moves; protected ones stay."""
        if len(self.told) < len(self.made.evictions):
            yield "somebody is told twice"
        for eviction in self.made.evictions:
            victim, needy = self.running.get(eviction.job_id), self.pending.get(eviction.for_job_id)
            if victim is None or needy is None:
                yield f"{eviction.job_id} goes for {eviction.for_job_id}: one of them is not there"
            elif why := self._protected(victim) or self._unfit(eviction, victim, needy):
                yield f"{victim.id} goes for {needy.id}: {why}"
            if victim and eviction.checkpoint != victim.job_class.checkpointable:
                yield f"{victim.id} is {'' if eviction.checkpoint else 'not '}asked for a checkpoint"
            if eviction.grace_s != self.config.preemption.grace_s or not eviction.reason:
                yield f"{eviction.job_id} gets {eviction.grace_s} s of grace, {eviction.reason!r}"
        for resize in self.made.resizes:
            yield from self._shrunk(resize.job_id, resize.removed, resize.for_job_id)

    def _protected(self, victim: RunningJob) -> str:
        rules, now = self.config.preemption, self.snapshot.now
        if victim.releasing_at is not None:
            return "it ends already"
        if not victim.job_class.preemptible:
            return "it is not preemptible"
        if victim.started_at >= now or victim.started_at + rules.min_run_s > now:
            return "it has only begun"
        return "it went too often" if victim.preemptions >= rules.max_preemptions else ""

    def _unfit(self, eviction: Eviction, victim: RunningJob, needy: PendingJob) -> str:
        rules, above = self.config.preemption, needy.job_class.priority - victim.job_class.priority
        match eviction.kind:
            case EvictionKind.PREEMPT:
                return "" if rules.enabled and above >= max(1, rules.priority_threshold) else "it is as important"
            case EvictionKind.RECLAIM:
                return "" if self.config.reclaim and self._borrows(victim) else "it holds nothing that is lent"
            case EvictionKind.CONSOLIDATE:
                moves = victim.job_class.checkpointable and victim.id in self.promised and above >= 0
                return "" if self.config.consolidate and moves else "it has nowhere to go on"

    def _borrows(self, victim: RunningJob) -> bool:
        """Tell whether the victim's pool, or one above it, holds beyond its own in the plan's end, debts included."""
        books = self.books()
        by_id = self.pending | self.running
        for job_id, holdings in self.promised.items():
            if job_id not in self.running:
                books.running.append((by_id[job_id].job_class, amounts_of(holdings)))
        pool_id = next(queue.pool_id for queue in self.snapshot.queues if queue.id == victim.job_class.queue_id)
        pool = books.pools.get(pool_id)
        while pool is not None:
            if any(books.used(pool.id, resource) > books.quota(pool, resource) for resource in RESOURCES):
                return True
            pool = books.pools.get(pool.parent_id)
        return False

    def _shrunk(self, job_id: str, removed: Sequence[int], for_job_id: str) -> Iterator[str]:
        job = self.running[job_id]
        if removed and for_job_id not in self.pending:
            yield f"{job_id} gives up replicas for {for_job_id!r}"
        if len(set(removed)) < len(removed) or any(job.holdings[place].releasing_at is not None for place in removed):
            yield f"{job_id} gives up what is gone: {removed}"

    def needs(self) -> Iterator[str]:
        """Whoever goes does so for a job that is promised room, and without it that room would not be there."""
        for eviction in self.made.evictions:
            if eviction.for_job_id not in self.promised or eviction.for_job_id in self.placed:
                yield f"{eviction.job_id} goes for {eviction.for_job_id}, which is promised nothing"
            elif eviction.kind is EvictionKind.RECLAIM:
                continue  # it goes for the books, which have no nodes
            elif not any(self._in_the_way(self.running[eviction.job_id])):
                yield f"{eviction.job_id} could stay"

    def _in_the_way(self, job: RunningJob) -> Iterator[str]:
        """Yield why a job that was told to end cannot stay beside what is promised."""
        yield from self._promised_floors(keep=job.holdings, but=job.id)
        for job_id, holdings in self.promised.items():
            if job_id != job.id:
                job_class = (self.pending.get(job_id) or self.running[job_id]).job_class
                for one in holdings:
                    for other in job.holdings:
                        yield self._clash(Tenant(job_id, job_class, one), Tenant(job.id, job.job_class, other))

    def debts(self) -> Iterator[str]:
        """All that is promised is there once those have gone who were told."""
        yield from self._promised_floors()

    def _promised_floors(self, keep: Sequence[Holding] = (), but: str = "") -> Iterator[str]:
        floors = self.floors()
        removed = {(one.job_id, place) for one in self.made.resizes for place in one.removed}
        for job in self.snapshot.running:
            for place, one in enumerate(job.holdings):
                at = one.releasing_at if job.releasing_at is None else job.releasing_at
                # Who is overdue by another grace is no longer counted on.
                comes = at is not None and self.snapshot.now <= at + self.config.preemption.grace_s
                if one.node_id in floors and (comes or job.id in self.told or (job.id, place) in removed):
                    floors[one.node_id].give(one)
        for holding in chain((one.holding for one in self.new), keep):
            if holding.node_id in floors:
                floors[holding.node_id].take(holding)
        for job_id, holdings in self.promised.items():
            for holding in holdings if job_id != but else ():
                floors[holding.node_id].take(holding)
        touched = {one.node_id for holdings in self.promised.values() for one in holdings}
        return chain.from_iterable(floors[node_id].faults() for node_id in sorted(touched))

    # What is booked

    def bookings(self) -> Iterator[str]:
        """Nobody who starts is in the way of what another project, or maintenance, has booked."""
        for booking in self.snapshot.reservations:
            if booking.ends_at <= self.snapshot.now:
                continue
            at = max(booking.starts_at, self.snapshot.now)
            for node in self.snapshot.nodes:
                parts = [one for one in booking.holdings if one.node_id == node.id]
                theirs = [one for one in self.new if one.holding.node_id == node.id]
                others = [
                    one for one in theirs
                    if not booking.project_id or one.job_class.project_id != booking.project_id
                ]  # fmt: skip
                lasting = [one for one in others if self._lasts(one, at)]
                if parts and lasting and not self._has_booked(node, parts, theirs, booking.project_id, at):
                    yield f"{sorted({one.job_id for one in lasting})} on {node.name} are in the way of {booking.id}"

    def _lasts(self, one: Tenant, at: float) -> bool:
        if one.job_id in self.running:
            ends_by = self.running[one.job_id].ends_by
            return ends_by is None or ends_by > at
        limit = one.job_class.time_limit_s
        return limit is None or self.snapshot.now + limit > at

    def _has_booked(
        self, node: Node, parts: Sequence[Holding], theirs: Sequence[Tenant], project_id: str, at: float
    ) -> bool:
        """Tell whether what is booked is free by then, but for what its owner holds of it."""
        floor, used = Floor(node), [0, 0, 0]
        for job in self.snapshot.running:
            ends_by = job.ends_by if job.releasing_at is None else job.releasing_at
            for one in job.holdings:
                ends_at = min(
                    inf if ends_by is None else ends_by, inf if one.releasing_at is None else one.releasing_at
                )
                if one.node_id == node.id and ends_at <= at != self.snapshot.now:
                    floor.take(Holding(one.node_id, -one.cpu_milli, -one.memory_bytes, _negative(one.gpus)))
                elif one.node_id == node.id and project_id == job.job_class.project_id:
                    used = [so_far + more for so_far, more in zip(used, amounts_of([one]), strict=True)]
        for tenant in theirs:
            if tenant.job_class.project_id == project_id:
                used = [so_far + more for so_far, more in zip(used, amounts_of([tenant.holding]), strict=True)]
            elif self._lasts(tenant, at):
                floor.take(tenant.holding)
        cpu_milli, memory_bytes, gpu_milli = amounts_of(parts)
        return (
            floor.cpu_milli >= cpu_milli - used[0]
            and floor.memory_bytes >= memory_bytes - used[1]
            and sum(milli >= 1000 for milli in floor.gpus) >= (gpu_milli - used[2]) // 1000
        )


def _holding(one: ReplicaPlacement, job_class: JobClass) -> Holding:
    request = job_class.roles[one.role].request
    return Holding(one.node_id, request.cpu_milli, request.memory_bytes, one.gpus, one.slices, one.role)


def _carries(tenant: Tenant, wish: Affinity) -> bool:
    return set(wish.labels) <= set(tenant.job_class.labels)


def _negative(gpus: Iterable[tuple[int, int]]) -> tuple[tuple[int, int], ...]:
    return tuple((device, -milli) for device, milli in gpus)


def amounts_of(holdings: Iterable[Holding]) -> Amounts:
    """Return what replicas hold together; a slice counts as its sevenths of a device."""
    held = list(holdings)
    slices = [int(piece.profile[0]) * 1000 // 7 for one in held for piece in one.slices]
    gpu_milli = sum(milli for one in held for _, milli in one.gpus) + sum(slices)
    return Amounts(sum(one.cpu_milli for one in held), sum(one.memory_bytes for one in held), gpu_milli)
