"""Who may start at all: the limits of queues, the quotas of accounts, the books of pools.

Asked before a place is looked for, in step with the ledger: what the plan starts is taken, what it ends is given back,
and a what-if is rolled back.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from scheduler.cohorts import Cohorts
from scheduler.plan import Reason
from scheduler.snapshot import UNLIMITED, Account, Amounts, JobClass, Node, Pool, Queue
from scheduler.usage import Holder, Usage
from scheduler.words import count, cpus, gpus, memory

T = TypeVar("T")

_HELD_BACK = (Reason.QUOTA, "what is left of the quota is kept for a job that has waited for it longer than patience")

_WORDS: tuple[Callable[[int], str], ...] = (cpus, memory, gpus)


class _Book:
    """What the jobs of one user, project and queue hold, and whose limits they meet."""

    __slots__ = ("job_class", "jobs", "limits", "pool_id", "sums")

    def __init__(self, job_class: JobClass, limits: list[tuple[str, Holder]], pool_id: str) -> None:
        self.job_class = job_class
        self.limits = limits
        self.pool_id = pool_id
        self.sums = [0, 0, 0]
        self.jobs = 0


class Admission:
    """Tells who may start, and keeps `usage` and `cohorts` in step.

    Raises: ValueError for accounts, pools or queues that contradict one another.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        queues: Sequence[Queue],
        pools: Sequence[Pool] = (),
        accounts: Sequence[Account] = (),
    ) -> None:
        self.usage = Usage(nodes, accounts, queues)
        self.cohorts = Cohorts(pools, nodes)
        self._pooled = bool(pools)
        self._pool_of = {queue.id: queue.pool_id for queue in queues}
        self._pool_names = {pool.id: pool.name for pool in pools}
        self._books: dict[tuple[str, str, str], _Book] = {}
        self._log: list[tuple[_Book, Amounts, int]] = []
        self._owed: list[tuple[_Book, Amounts]] = []
        for queue in queues:
            if queue.pool_id and queue.pool_id not in self._pool_names:
                raise ValueError(f"queue {queue.name!r} is charged to pool {queue.pool_id!r}, which the snapshot lacks")

    def renewed(
        self,
        nodes: Sequence[Node],
        queues: Sequence[Queue],
        pools: Sequence[Pool] = (),
        accounts: Sequence[Account] = (),
    ) -> "Admission":
        """Return the same holdings under other limits, weights or past use; costs a step a user, project and queue.

        What is owed is forgiven.
        """
        self.forgive()
        made = Admission(nodes, queues, pools, accounts)
        for book in self._books.values():
            made.take(book.job_class, Amounts(*book.sums), book.jobs)
        return made

    def refusal(self, job_class: JobClass, amounts: Amounts, jobs: int = 1) -> tuple[Reason, str] | None:
        """Say which limit keeps `jobs` more jobs that hold `amounts` together from starting; None where none does.

        For more replicas of a running job, `jobs` is 0. A resource that is not asked for is not looked at: a quota
        that was cut below what is held stops only what would add to it.
        """
        book = self._book(job_class)
        refused = self._refusal(book, amounts, jobs)
        if refused is None or not self._owed:
            return refused
        return self._without_owed(lambda: self._refusal(book, amounts, jobs)) or _HELD_BACK

    def owe(self, job_class: JobClass, amounts: Amounts) -> bool:
        """Keep for a job that was refused what the limits leave, until `forgive`; tell whether it can ever fit them.

        Others under the same limits are refused meanwhile as if it ran, so that small jobs, each of which fits, do not
        keep a large one from its quota for ever.
        """
        book = self._book(job_class)
        if not self._could_fit(book, amounts):
            return False
        self._move(book, amounts, 1)
        self._owed.append((book, amounts))
        return True

    def is_beyond(self, job_class: JobClass, amounts: Amounts) -> bool:
        """Tell whether a job that holds `amounts` could not start if nobody held anything: some limit is lower."""
        return not self._could_fit(self._book(job_class), amounts)

    def forgive(self) -> None:
        """Owe nobody anything any more."""
        while self._owed:
            book, amounts = self._owed.pop()
            self._move(book, _negative(amounts), -1)

    def turn(self, job_class: JobClass, amounts: Amounts) -> tuple[int, ...]:
        """Return when such a job's turn comes among those of other pools, lowest first; () while nothing is borrowed.

        It grows as the plan starts jobs.
        """
        pool_id = self._book(job_class).pool_id
        debt = self.cohorts.debt(pool_id, amounts) if pool_id else ()
        return debt if any(debt) else ()

    def reach(self, job_class: JobClass, amounts: Amounts) -> frozenset[str] | None:
        """Return the pools on whose nodes such a job may start now; None where there are no pools at all.

        What is owed is not counted: it may be owed to that very job.
        """
        if not self._pooled:
            return None
        pool_id = self._book(job_class).pool_id
        borrowing = bool(pool_id) and self._without_owed(lambda: self.cohorts.borrows(pool_id, amounts))
        return self.cohorts.reach(pool_id, borrowing=borrowing)

    def widest_reach(self, job_class: JobClass) -> frozenset[str] | None:
        """Return the pools on whose nodes such a job could ever start, within its pool's quota or beyond it."""
        return self.cohorts.reach(self._book(job_class).pool_id, borrowing=True) if self._pooled else None

    def take(self, job_class: JobClass, amounts: Amounts, jobs: int = 1) -> None:
        """Count what a job holds from now on, within the limits or not: what runs, runs."""
        book = self._book(job_class)
        self._move(book, amounts, jobs)
        self._log.append((book, amounts, jobs))

    def give(self, job_class: JobClass, amounts: Amounts, jobs: int = 1) -> None:
        """Count no longer what a job has given back."""
        self.take(job_class, _negative(amounts), -jobs)

    def settle(self) -> None:
        """Forget how to undo what was done so far: it has happened."""
        self._log.clear()

    def mark(self) -> int:
        """Return a point to roll back to."""
        return len(self._log)

    def rollback(self, mark: int) -> None:
        """Undo everything since `mark`."""
        while len(self._log) > mark:
            book, amounts, jobs = self._log.pop()
            self._move(book, _negative(amounts), -jobs)

    def _refusal(self, book: _Book, amounts: Amounts, jobs: int) -> tuple[Reason, str] | None:
        for what, holder in book.limits:
            if holder.jobs + jobs > holder.most_jobs and jobs:
                return Reason.QUEUE_LIMIT, _why_full(holder, jobs)
            held, most = holder.held, holder.most
            for number, amount in enumerate(amounts):
                if amount > 0 and held[number] + amount > most[number]:
                    reason = Reason.QUEUE_LIMIT if what == "queue" else Reason.QUOTA
                    return reason, _why_over(what, holder, number, amount)
        return self._pool_refusal(book.pool_id, amounts) if book.pool_id else None

    def _without_owed(self, ask: Callable[[], T]) -> T:
        owed = list(self._owed)
        self.forgive()
        answer = ask()
        for book, amounts in owed:
            self._move(book, amounts, 1)
        self._owed = owed
        return answer

    def _could_fit(self, book: _Book, amounts: Amounts) -> bool:
        limits = [holder.most for _, holder in book.limits]
        if book.pool_id:
            limits.append(self.cohorts.most(book.pool_id))
        return all(amount <= most for limit in limits for amount, most in zip(amounts, limit, strict=True)) and all(
            holder.most_jobs for _, holder in book.limits
        )

    def _move(self, book: _Book, amounts: Amounts, jobs: int) -> None:
        sums = book.sums
        sums[0] += amounts[0]
        sums[1] += amounts[1]
        sums[2] += amounts[2]
        book.jobs += jobs
        self.usage.charge(book.job_class, amounts, jobs)
        if book.pool_id:
            self.cohorts.take(book.pool_id, amounts)

    def _book(self, job_class: JobClass) -> _Book:
        key = job_class.project_id, job_class.user_id, job_class.queue_id
        book = self._books.get(key)
        if book is None:
            queue = self.usage.queue(job_class.queue_id)
            parties = [("queue", queue), *(("account", one) for one in self.usage.accounts_of(job_class))]
            limits = [(what, one) for what, one in parties if min(one.most_jobs, *one.most) < UNLIMITED]
            book = self._books[key] = _Book(job_class, limits, self._pool_of.get(job_class.queue_id, ""))
        return book

    def _pool_refusal(self, pool_id: str, amounts: Amounts) -> tuple[Reason, str] | None:
        available = self.cohorts.available(pool_id)
        for number, amount in enumerate(amounts):
            if amount > 0 and amount > available[number]:
                words, name = _WORDS[number], self._pool_names[pool_id]
                most = self.cohorts.most(pool_id)[number]
                if amount > most:
                    return (
                        Reason.QUOTA,
                        f"asks for {words(amount)}; pool {name!r} can never use more than {words(most)}",
                    )
                used, left = self.cohorts.used(pool_id)[number], max(0, available[number])
                return Reason.QUOTA, (
                    f"pool {name!r} uses {words(used)} of its {words(self.cohorts.quota(pool_id)[number])} and can get "
                    f"{words(left)} more, what it may borrow included; {words(amount)} more asked for"
                )
        return None


def _negative(amounts: Amounts) -> Amounts:
    return Amounts(-amounts[0], -amounts[1], -amounts[2])


def _why_full(queue: Holder, jobs: int) -> str:
    if jobs > queue.most_jobs:
        return f"queue {queue.name!r} may never run more than {count(queue.most_jobs, 'job')} at a time"
    return f"queue {queue.name!r} runs {queue.jobs} of the {count(queue.most_jobs, 'job')} it may run at a time"


def _why_over(what: str, holder: Holder, number: int, amount: int) -> str:
    words, most = _WORDS[number], holder.most[number]
    if amount > most:
        return f"asks for {words(amount)}; {what} {holder.name!r} may never hold more than {words(most)}"
    held = words(holder.held[number])
    return f"{what} {holder.name!r} holds {held} of the {words(most)} it may hold; {words(amount)} more asked for"
