from dataclasses import replace

import pytest

from scheduler import capacity
from scheduler.capacity import Setting
from scheduler.ledger import Ledger
from scheduler.snapshot import Constraints, Operator, Shape, Taint, Term, Toleration
from tests.support.clusters import a_class, a_node, a_request
from tests.support.placing import a_kind, placed

TAINTED = replace(a_node("n2"), taints=(Taint("gpu"),))


def test_constraints_that_come_to_the_same_share_what_is_kept() -> None:
    ledger = Ledger([a_node("n1"), a_node("n2")])
    (plain,) = ledger.capacity.views(a_class())
    (other,) = ledger.capacity.views(
        a_kind(a_request(cpus=2), constraints=Constraints(selector=(Term("pool", Operator.ABSENT),)))
    )
    assert plain.field is other.field
    assert plain is not other


def test_roles_of_one_request_share_a_view() -> None:
    one, other = Ledger([a_node()]).capacity.views(a_kind(a_request(), a_request()))
    assert one is other


def test_nodes_outside_the_reach_are_not_looked_at() -> None:
    ledger = Ledger([a_node("n1"), a_node("n2")])
    (view,) = ledger.capacity.views(a_class(), frozenset({1}))
    assert [view.field.allows(number) for number in (0, 1)] == [False, True]


def test_allowed_are_the_nodes_that_labels_and_taints_allow_none_where_that_is_all() -> None:
    ledger = Ledger([a_node("n1"), TAINTED])
    assert ledger.capacity.allowed(Constraints()) == frozenset({0})
    assert ledger.capacity.allowed(Constraints(tolerations=(Toleration(),))) is None
    assert ledger.capacity.allowed(Constraints(tolerations=(Toleration(),)), frozenset({1})) == frozenset({1})
    assert ledger.capacity.allowed(Constraints(), frozenset({1})) == frozenset()


def test_a_node_that_is_not_ready_takes_nobody_until_it_is() -> None:
    ledger = Ledger([replace(a_node(), ready=False)])
    assert placed(ledger, a_class()) == []
    ledger.rooms[0].ready = True
    ledger.capacity.note(0)
    assert placed(ledger, a_class()) == ["n1"]


def test_an_index_built_anew_finds_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [a_node(f"n{number}", gpus=4) for number in range(5)]
    kinds = [a_kind(a_request(gpu_milli=milli)) for milli in (300, 1000, 500, 2000, 300, 1000)] * 4
    shapes = Setting(shapes=(Shape(a_request(gpu_milli=500), 1.0),))
    kept, renewed = Ledger(nodes, shapes), Ledger(nodes, shapes)
    expected = [placed(kept, kind) for kind in kinds]
    monkeypatch.setattr(capacity, "_MOST_CHANGES", 1)
    assert [placed(renewed, kind) for kind in kinds] == expected
