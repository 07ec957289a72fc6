"""The limits of queues, accounts and pools, checked the slow way, for comparison with the quick one."""

from collections.abc import Iterator, Sequence

from scheduler.snapshot import Account, Amounts, JobClass, Pool, Queue


class Books:
    """What admission keeps, by definition: summed up from all that runs, every time."""

    def __init__(self, pools: Sequence[Pool], accounts: Sequence[Account], queues: Sequence[Queue]) -> None:
        self.pools = {pool.id: pool for pool in pools}
        self.accounts = {account.id: account for account in accounts}
        self.queues = {queue.id: queue for queue in queues}
        self.running: list[tuple[JobClass, Amounts]] = []

    def allows(self, job_class: JobClass, amounts: Amounts) -> bool:
        """Whether everything is within its limits with this job, in what it asks for."""
        self.running.append((job_class, amounts))
        fits = all(
            used <= most
            for resource, amount in enumerate(amounts)
            if amount
            for used, most in self.uses(job_class, resource)
        )
        queue = self.queues[job_class.queue_id]
        fits = fits and sum(one.queue_id == queue.id for one, _ in self.running) <= queue.most_running
        self.running.pop()
        return fits

    def uses(self, job_class: JobClass, resource: int) -> Iterator[tuple[int, int]]:
        """Yield what is used of each limit that such a job meets, and the limit."""
        queue = self.queues[job_class.queue_id]
        yield sum(one[resource] for made, one in self.running if made.queue_id == queue.id), queue.most[resource]
        for account_id in (f"{job_class.project_id}/{job_class.user_id}", job_class.project_id):
            account = self.accounts.get(account_id)
            while account is not None:
                below = self._below(account.id)
                yield sum(one[resource] for made, one in self.running if _names(made) & below), account.most[resource]
                account = self.accounts.get(account.parent_id)
        pool = self.pools.get(queue.pool_id)
        while pool is not None:
            used, kept = self.used(pool.id, resource), self._kept(pool, resource)
            quota = self.quota(pool, resource)
            yield used, quota + pool.borrows[resource] if pool.parent_id else quota
            # What a pool keeps for itself is nobody else's business.
            pool = self.pools.get(pool.parent_id) if used > kept else None

    def _below(self, account_id: str) -> set[str]:
        below = {account_id}
        for account in self.accounts.values():
            if account.parent_id == account_id:
                below |= self._below(account.id)
        return below

    def quota(self, pool: Pool, resource: int) -> int:
        left = (
            self.quota(child, resource) - self._kept(child, resource)
            for child in self.pools.values()
            if child.parent_id == pool.id
        )
        assert pool.nominal is not None
        return pool.nominal[resource] + sum(left)

    def _kept(self, pool: Pool, resource: int) -> int:
        return max(0, self.quota(pool, resource) - pool.lends[resource])

    def used(self, pool_id: str, resource: int) -> int:
        own = sum(one[resource] for made, one in self.running if self.queues[made.queue_id].pool_id == pool_id)
        children = [child for child in self.pools.values() if child.parent_id == pool_id]
        return own + sum(max(0, self.used(child.id, resource) - self._kept(child, resource)) for child in children)


def _names(job_class: JobClass) -> set[str]:
    return {job_class.project_id, f"{job_class.project_id}/{job_class.user_id}"}
