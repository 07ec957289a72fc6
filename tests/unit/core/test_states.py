"""The state tables: every word has a line, every state a way out or an end."""

import pytest

from app.core.events import ANNOUNCED, KINDS
from app.core.states import MACHINES, Machine, table
from trellis.vocabulary import ENDED_JOB_STATES, ENDED_REPLICA_STATES, QueueState

machines = pytest.mark.parametrize("machine", MACHINES.values(), ids=lambda machine: machine.noun)


@machines
def test_every_state_can_be_reached(machine: Machine) -> None:
    reached, border = {machine.initial}, [machine.initial]
    while border:
        border = [after for state in border for after in machine.moves[state] if after not in reached]
        reached.update(border)
    assert reached == set(type(machine.initial))


@machines
def test_no_state_leads_to_itself(machine: Machine) -> None:
    assert not [state for state in machine.moves if machine.allows(state, state)]


@machines
def test_every_state_of_a_thing_that_ends_leads_to_an_end(machine: Machine) -> None:
    leads = set(machine.ends)
    while more := {state for state, after in machine.moves.items() if after & leads} - leads:
        leads |= more
    assert leads in (set(), set(machine.moves))


@machines
def test_every_move_has_its_event(machine: Machine) -> None:
    assert {f"{machine.noun}.{state}" for state in machine.moves} <= KINDS


def test_what_is_announced_is_a_kind() -> None:
    assert ANNOUNCED <= KINDS


def test_the_ends_are_those_of_the_vocabulary() -> None:
    assert MACHINES["job"].ends == ENDED_JOB_STATES
    assert MACHINES["replica"].ends == ENDED_REPLICA_STATES


def test_an_end_stamps_its_time() -> None:
    for noun in ("job", "attempt", "replica"):
        machine = MACHINES[noun]
        assert {machine.stamps.get(state) for state in machine.ends} == {"ended_at"}


def test_a_table_that_leaves_out_a_state_is_refused() -> None:
    with pytest.raises(ValueError, match="paused"):
        table(QueueState, "open:")
