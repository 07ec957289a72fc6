"""Replicas that start together or not at all."""

from collections.abc import Sequence

from scheduler.backfill import Guard
from scheduler.ledger import Ledger
from scheduler.placement.best_fit import find_room
from scheduler.placement.rooms import Grant
from scheduler.snapshot import Request


def place_gang(ledger: Ledger, request: Request, guard: Guard) -> list[Grant]:
    """Take room for the replicas, one after the other, as far as there is any.

    Replicas are alike, so filling nodes in any order finds room for as many as there is. Short of all of them the
    ledger is left as it was, and the grants tell only how many would have found room.
    """
    mark = ledger.mark()
    grants: list[Grant] = []
    while len(grants) < request.replicas:
        grant = find_room(ledger, request, guard.permits)
        if grant is None:
            undo(ledger, mark, grants, guard)
            break
        ledger.take(grant)
        guard.hold(grant)
        grants.append(grant)
    return grants


def undo(ledger: Ledger, mark: int, grants: Sequence[Grant], guard: Guard) -> None:
    """Give back what was taken since `mark`, also to the reservations."""
    for grant in grants:
        guard.release(grant)
    ledger.rollback(mark)
