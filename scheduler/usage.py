"""Who has how much of the cluster: past use, decayed by the caller, and what is held now.

Accounts form a tree (organisation, project, user in a project); what a job holds counts for all above it.
"""

from collections.abc import Iterator, Mapping, Sequence

from scheduler.amounts import asked, offered
from scheduler.snapshot import NO_LIMIT, UNLIMITED, WHOLE, Account, Amounts, JobClass, Node, Queue

WHOLE_CLUSTER = 10**9
"""Use is counted in billionths of the cluster: integers, so that the order of additions never matters."""


def decay(used: float, since_s: float, half_life_s: float) -> float:
    """Return what past use is still worth after `since_s` seconds without any: half of it each half-life.

    Raises: ValueError for a half-life that is not above zero or a time that runs backwards.
    Source: Slurm, priority/multifactor.
    """
    if not half_life_s > 0 or not since_s >= 0:
        raise ValueError(f"use cannot decay over {since_s} s with a half-life of {half_life_s} s")
    return float(used * 0.5 ** (since_s / half_life_s))


def blend(used: float, held: float, since_s: float, half_life_s: float) -> float:
    """Return past use after `since_s` seconds in which the share `held` of the cluster was held throughout.

    Whoever holds a constant share comes to have used just that: the fraction of the cluster over the window. Two
    steps of a second are one of two, so how often it is called changes nothing.
    Raises: ValueError as `decay` does. Source: Kueue, admission fair sharing (its entry penalty is that present
    holdings count in full beside past use, from the moment a job starts).
    """
    kept = decay(1.0, since_s, half_life_s)
    return used * kept + held * (1.0 - kept)


class Holder:
    """An account or a queue: what its jobs hold now, and what they may hold at most.

    `past` is past use, and `entitled` the part its weight stands for, both in billionths of the cluster.
    """

    __slots__ = ("cpu_milli", "entitled", "gpu_milli", "jobs", "measured", "memory_bytes", "most", "most_jobs", "name",
                 "parent", "past", "present", "weight")  # fmt: skip

    def __init__(self, name: str, parent: "Holder | None" = None, weight: int = 1) -> None:
        self.name = name
        self.parent = parent
        self.weight = weight
        self.most = NO_LIMIT
        self.most_jobs = UNLIMITED
        self.cpu_milli = self.memory_bytes = self.gpu_milli = self.jobs = 0
        self.past = 0
        self.entitled = WHOLE_CLUSTER
        # The dominant share of what is held, worked out when somebody asks: most starts change it unread.
        self.present = 0
        self.measured = True

    @property
    def held(self) -> Amounts:
        """Return what all its jobs hold together."""
        return Amounts(self.cpu_milli, self.memory_bytes, self.gpu_milli)


class Usage:
    """Dominant shares of accounts and queues; they grow as the plan starts jobs and shrink as it ends some.

    A started job counts at once, as a running one does: a burst cannot slip through before its use is measured, and
    planning an applied plan again sees the same ranks. Accounts that the snapshot does not list weigh 1, have used
    nothing, and have no quota; a project without an organisation stands beside the organisations.
    Raises: ValueError for accounts that come twice, lie in a circle or below one unknown, or have impossible values.
    Sources: Ghodsi et al., Dominant Resource Fairness, NSDI 2011; Slurm, Fair Tree.
    """

    def __init__(self, nodes: Sequence[Node], accounts: Sequence[Account] = (), queues: Sequence[Queue] = ()) -> None:
        self.version = 0
        """Grows with every change of what anybody holds."""
        # Of what the cluster lacks nobody has a share.
        self._total = [total or UNLIMITED * WHOLE_CLUSTER for total in offered(nodes)]
        self._accounts = _plant(accounts)
        self._chains: dict[tuple[str, str], tuple[Holder, ...]] = {}
        self._queues: dict[str, Holder] = {}
        for queue in queues:
            holder = self._queues[queue.id] = Holder(queue.name, weight=queue.weight)
            holder.most, holder.most_jobs = queue.most, queue.most_running
        roots = sum(account.weight for account in accounts if not account.parent_id)
        self._entitled_unlisted = WHOLE_CLUSTER // (roots + 1) if roots else WHOLE_CLUSTER

    def share_of(self, amounts: Amounts) -> int:
        """Return the largest fraction that `amounts` are of any one resource, in billionths of the cluster."""
        cpu_milli, memory_bytes, gpu_milli = self._total
        return max(
            amounts[0] * WHOLE_CLUSTER // cpu_milli,
            amounts[1] * WHOLE_CLUSTER // memory_bytes,
            amounts[2] * WHOLE_CLUSTER // gpu_milli,
        )

    def accounts_of(self, job_class: JobClass) -> tuple[Holder, ...]:
        """Return whom a job's use counts for: organisation, project, user, the widest first."""
        key = job_class.project_id, job_class.user_id
        chain = self._chains.get(key)
        if chain is None:
            chain = self._chains[key] = tuple(_upwards(self._user(*key)))[::-1]
        return chain

    def queue(self, queue_id: str) -> Holder:
        """Return what is known of a queue; nothing is held in one unheard of."""
        holder = self._queues.get(queue_id)
        if holder is None:
            holder = self._queues[queue_id] = Holder(queue_id)
        return holder

    def path(self, job_class: JobClass) -> tuple[int, ...]:
        """Return the place in the fair tree, lowest first: use for its weight at each level, from the root.

        Compared level by level: of two siblings the one that had less passes with all its projects and users.
        Siblings that had the same are looked at as one, their children side by side.
        """
        return tuple([self._share(holder) * WHOLE // holder.weight for holder in self.accounts_of(job_class)])

    def of_project(self, project_id: str) -> int:
        """Return past use and present holdings of a project, in billionths of the cluster."""
        return self._share(self._project(project_id))

    def of_queue(self, queue_id: str) -> int:
        """Return what the jobs of a queue hold now, in billionths of the cluster."""
        return self._share(self.queue(queue_id))

    def within_share(self, job_class: JobClass) -> bool:
        """Tell whether the project, with one more such job, holds no more of the cluster than its weight stands for."""
        project = self._project(job_class.project_id)
        held, more = project.held, asked(job_class)
        with_it = Amounts(held[0] + more[0], held[1] + more[1], held[2] + more[2])
        return self.share_of(with_it) <= project.entitled

    def charge(self, job_class: JobClass, amounts: Amounts, jobs: int = 1) -> None:
        """Count what a job holds from now on; for more replicas of a running one, `jobs` is 0."""
        self.version += 1
        cpu_milli, memory_bytes, gpu_milli = amounts
        for holder in (*self.accounts_of(job_class), self.queue(job_class.queue_id)):
            holder.cpu_milli += cpu_milli
            holder.memory_bytes += memory_bytes
            holder.gpu_milli += gpu_milli
            holder.jobs += jobs
            holder.measured = False

    def discharge(self, job_class: JobClass, amounts: Amounts, jobs: int = 1) -> None:
        """Count no longer what a job has given back."""
        cpu_milli, memory_bytes, gpu_milli = amounts
        self.charge(job_class, Amounts(-cpu_milli, -memory_bytes, -gpu_milli), -jobs)

    def _share(self, holder: Holder) -> int:
        if not holder.measured:
            holder.present = self.share_of(holder.held)
            holder.measured = True
        return holder.past + holder.present

    def _project(self, project_id: str) -> Holder:
        project = self._accounts.get(project_id)
        if project is None:
            project = self._accounts[project_id] = Holder(project_id)
            project.entitled = self._entitled_unlisted
        return project

    def _user(self, project_id: str, user_id: str) -> Holder:
        name = f"{project_id}/{user_id}"
        user = self._accounts.get(name)
        if user is None:
            user = self._accounts[name] = Holder(name, self._project(project_id))
        return user


def _plant(accounts: Sequence[Account]) -> dict[str, Holder]:
    """Build the tree, roots first, with what each is entitled to; past use counts for all above."""
    by_id = {account.id: account for account in accounts}
    if len(by_id) < len(accounts):
        raise ValueError("two accounts of the snapshot have the same id")
    children: dict[str, list[Account]] = {}
    for account in accounts:
        _check(account, by_id)
        children.setdefault(account.parent_id, []).append(account)
    planted: dict[str, Holder] = {}
    level = [""]
    while level:
        for parent_id in level:
            siblings = children.get(parent_id, ())
            weights = sum(account.weight for account in siblings)
            for account in siblings:
                holder = Holder(account.name or account.id, planted.get(parent_id), account.weight)
                above = holder.parent.entitled if holder.parent else WHOLE_CLUSTER
                holder.entitled = above * account.weight // weights
                holder.most = account.most
                planted[account.id] = holder
                for one in _upwards(holder):
                    one.past += round(account.used * WHOLE_CLUSTER)
        level = [account.id for parent_id in level for account in children.get(parent_id, ())]
    if len(planted) < len(accounts):
        lost = min(by_id.keys() - planted.keys())
        raise ValueError(f"account {lost!r} lies in a circle of accounts")
    return planted


def _check(account: Account, by_id: Mapping[str, Account]) -> None:
    if not account.id:
        raise ValueError("an account of the snapshot has an empty id")
    if account.parent_id and account.parent_id not in by_id:
        raise ValueError(f"account {account.id!r} lies below {account.parent_id!r}, which the snapshot lacks")
    if account.weight < 1:
        raise ValueError(f"account {account.id!r} has weight {account.weight}; it must be at least 1")
    if not 0 <= account.used < float("inf"):
        raise ValueError(f"account {account.id!r} has used {account.used} of the cluster")


def _upwards(holder: Holder) -> Iterator[Holder]:
    above: Holder | None = holder
    while above is not None:
        yield above
        above = above.parent
