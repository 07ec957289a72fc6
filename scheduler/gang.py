"""Replicas that start together or not at all."""

from collections.abc import Sequence

from scheduler.backfill import Guard
from scheduler.ledger import Ledger
from scheduler.placement.best_fit import find_room
from scheduler.placement.rooms import Grant
from scheduler.snapshot import JobClass


def place_gang(ledger: Ledger, job_class: JobClass, guard: Guard) -> list[Grant]:
    """Take room for the fewest replicas that the job starts with, one after the other, as far as there is any.

    Replicas of a role are alike, so filling nodes in any order finds room for as many as there is. Short of all of
    them the ledger is left as it was, and the grants tell only how many would have found room.
    """
    mark = ledger.mark()
    grants: list[Grant] = []
    for number, role in enumerate(job_class.roles):
        for _ in range(role.least):
            grant = find_room(ledger, role.request, guard.permits)
            if grant is None:
                undo(ledger, mark, grants, guard)
                return grants
            grant = grant._replace(role=number) if number else grant
            ledger.take(grant)
            guard.hold(grant)
            grants.append(grant)
    return grants


def needed(job_class: JobClass) -> int:
    """How many replicas a job of this class starts with."""
    return sum(role.least for role in job_class.roles)


def undo(ledger: Ledger, mark: int, grants: Sequence[Grant], guard: Guard) -> None:
    """Give back what was taken since `mark`, also to the claims."""
    for grant in grants:
        guard.release(grant)
    ledger.rollback(mark)
