"""One pass over all that waits: who starts now, who is promised what, and why everybody else waits."""

from collections.abc import Iterator, Sequence
from math import inf

from scheduler import explain
from scheduler.amounts import asked
from scheduler.backfill import Claim, binding
from scheduler.config import BackfillOrder
from scheduler.conservative import Agenda
from scheduler.gang import needed, place_gang
from scheduler.order import Line, Turns, Waiting
from scheduler.paper import Paper
from scheduler.placement.rooms import Grant
from scheduler.plan import Because, Placement, Verdict
from scheduler.snapshot import JobClass, PendingJob


class Round:
    """One pass over all lines with fresh claims; what failed in it, and for whom."""

    def __init__(self, paper: Paper, now: float, placements: list[Placement]) -> None:
        self.claims = tuple(paper.claims(now))
        paper.forecasts.begin(self.claims)
        self._paper = paper
        self._config = paper.config
        self._ledger = paper.ledger
        self._now = now
        self._placements = placements
        self._failed: set[Waiting] = set()
        self._blocked: list[Waiting] = []
        self._owing: set[Line] = set()
        self._alone = False

    @property
    def full(self) -> bool:
        """Whether the plan may start no more."""
        return len(self._placements) >= self._config.max_placements

    def run(self) -> bool:
        """Serve the lines in turns until nothing more starts; tell whether anything did."""
        before = len(self._placements)
        self._paper.admission.forgive()
        self._paper.owe_quotas()
        open_lines = [line for line in self._paper.lines.values() if not line.queue.paused]
        for line in open_lines:
            line.begin_round()
        self._alone = self._config.reserved_heads == 1 and sum(map(bool, open_lines)) == 1
        turns = Turns(open_lines, self._paper.admission)
        while not self.full and (served := turns.next()) is not None:
            if self._serve(served):
                turns.add(served)
        return len(self._placements) > before

    def keep_promises(self, agenda: Agenda) -> None:
        """Start whoever was promised to start by now, and promise a start to everybody else."""
        agenda.begin(self.claims, self._now)
        for line in self._paper.lines.values():
            for job in () if line.queue.paused else line.jobs():
                if self.full:
                    return
                if job.id not in self._paper.debts and self._admits(job.job_class):
                    grants = agenda.attend(job, self._paper.reach(job.job_class))
                    if grants:
                        line.remove(job)
                        self._place(line, job, grants)
            self._failed.update(line.groups())
        agenda.conclude()
        self.claims = (*self.claims, *agenda.claims)

    def _admits(self, job_class: JobClass) -> bool:
        refusal = self._paper.why_never(job_class) or self._paper.admission.refusal(job_class, asked(job_class))
        return refusal is None

    def _serve(self, line: Line) -> bool:
        """Start the first job of a line that can; one that cannot costs its queue no turn."""
        while (group := line.peek()) is not None:
            if self._try_head(line, group):
                return True
            line.skip()
            if line.blocked and not self._config.backfill:
                return False
            if self._config.backfill_order is BackfillOrder.SHORTEST and line.blocked == self._config.reserved_heads:
                line.shortest_first()
        return False

    def _try_head(self, line: Line, group: Waiting) -> bool:
        """Start the oldest job of a class, or learn that none of the class can start."""
        job_class = group.job_class
        if self._paper.why_never(job_class) is not None:
            self._failed.add(group)
            return False
        if self._paper.admission.refusal(job_class, group.asked) is not None:
            self._failed.add(group)
            self._blocked.append(group)
            self._owe(line, group)
            return False
        tried_at = self._ledger.gains, self._paper.admission.reach(job_class, group.asked)
        if group.tried_at != tried_at or group.refused_by not in ((), self.claims):
            guard = self._paper.guard(self._claims_of_others(group.head), job_class, self._now)
            grants = place_gang(self._ledger, job_class, guard)
            if len(grants) == needed(job_class):
                self._place(line, group.head, grants)
                line.start()
                return True
            group.tried_at = tried_at
            group.refused_by = () if guard.refused_for is None else self.claims
        self._failed.add(group)
        self._blocked.append(group)
        self._block(line, group.head)
        return False

    @property
    def blocked(self) -> Sequence[Waiting]:
        """The classes that found no room, in the order in which they were tried."""
        return self._blocked

    def _claims_of_others(self, job: PendingJob) -> Sequence[Claim]:
        if job.id not in self._paper.debts:
            return self.claims
        return [one for one in self.claims if one.job.id != job.id]

    def _owe(self, line: Line, group: Waiting) -> None:
        """Keep what is left of its quota for the first of a line that has waited for it too long."""
        if line in self._owing or self._now - group.head.submitted_at <= self._config.patience_s:
            return
        if self._paper.admission.owe(group.job_class, group.asked):
            self._owing.add(line)

    def _place(self, line: Line, job: PendingJob, grants: Sequence[Grant]) -> None:
        """Note a start whose grants are taken."""
        self._placements.append(self._paper.placement(job, grants, self._why_there(grants, line)))
        self._paper.start(job, grants, self._now)
        self._ledger.settle()
        self._paper.admission.settle()

    def _block(self, line: Line, job: PendingJob) -> None:
        """Claim room for the first jobs of a line that could start later."""
        if job.id in self._paper.debts:
            line.blocked += 1
            return
        most = self._config.reserved_heads
        if most is not None and line.blocked >= most:
            return
        within = self._ledger.capacity.allowed(job.job_class.constraints, self._paper.reach(job.job_class))
        claims = binding(self.claims, job.job_class)
        owed = self._paper.forecasts.claim(job, claims, self._now, within=within, alone=self._alone)
        if owed is not None:
            line.blocked += 1
            self.claims += (owed,)

    # In words

    def verdicts(self) -> Iterator[Verdict]:
        """Yield a verdict for every class that waits."""
        starts_at = {owed.job.id: owed.starts_at for owed in self.claims if owed.starts_at < inf}
        starts_at |= self._paper.debts.due_at
        coming = self._coming()
        for line in self._paper.lines.values():
            for position, group in line.in_order():
                reason, message = coming.get(group.job_class) or self._why_waiting(line, group, position)
                ids = tuple(job.id for job in group.jobs())
                yield Verdict(group.job_class, ids, reason, message, position, starts_at.get(ids[0]))

    def _why_waiting(self, line: Line, group: Waiting, position: int) -> Because:
        if line.queue.paused:
            return explain.why_paused(line.queue.name)
        if group not in self._failed:
            return explain.PLAN_FULL if self.full else explain.why_behind(position)
        job_class = group.job_class
        refuse = self._paper.admission.refusal
        return self._paper.why_never(job_class) or refuse(job_class, asked(job_class)) or self._why_not(job_class)

    def _coming(self) -> dict[JobClass, Because]:
        """Say of each class for whose jobs room is being made what is under way."""
        debts = self._paper.debts
        owed = debts.by_class().items()
        return {job_class: explain.why_coming(debts.told_for(jobs), len(jobs)) for job_class, jobs in owed}

    def _why_not(self, job_class: JobClass) -> Because:
        """Tell room that is missing from room that is promised."""
        mark = self._ledger.mark()
        guard = self._paper.guard(self.claims, job_class, self._now)
        placed = len(place_gang(self._ledger, job_class, guard))
        if guard.refused_for is not None:
            placed = len(place_gang(self._ledger, job_class, self._paper.guard((), job_class, self._now)))
        self._ledger.rollback(mark)
        if placed == needed(job_class) and guard.refused_for is not None:
            owner = guard.refused_for
            if owner.job_class.queue_id not in self._paper.lines:
                return explain.why_booked(owner)
            return explain.why_delayed(owner, self._paper.lines[owner.job_class.queue_id].queue.name, job_class)
        return explain.why_no_room(self._ledger, job_class, placed, self._paper.reach(job_class))

    def _why_there(self, grants: Sequence[Grant], line: Line) -> str:
        nodes = self._ledger.nodes
        numbers = [grants[0].number] if len(grants) == 1 else sorted({grant.number for grant in grants})
        names = ", ".join([nodes[number].name for number in numbers])
        return f"least left over on {names}{'; delays no job ahead of it' if line.blocked else ''}"
