from dataclasses import replace

from scheduler.capacity import Setting
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant
from scheduler.snapshot import Affinity, Constraints, Node
from tests.support.clusters import a_node
from tests.support.placing import a_kind, placed

WEB, CACHE = (("app", "web"),), (("app", "cache"),)
LEVELS = Setting(("rack",))


def racks(*sizes: int) -> list[Node]:
    """Nodes n00, n01, ... by rack, of as many nodes each."""
    return [
        replace(a_node(f"n{rack}{number}"), domains=(f"r{rack}",))
        for rack, size in enumerate(sizes)
        for number in range(size)
    ]


def wanting(*affinities: Affinity) -> Constraints:
    return Constraints(affinities=affinities)


def test_near_goes_only_where_such_replicas_are() -> None:
    ledger = Ledger(racks(1, 1), LEVELS)
    near = a_kind(labels=WEB, constraints=wanting(Affinity(CACHE)))
    assert placed(ledger, near) == []
    ledger.seat(Grant(1, 0, 0, job_class=a_kind(labels=(*CACHE, ("tier", "hot")))))
    assert placed(ledger, near) == ["n10"]


def test_near_means_the_same_project_and_all_labels() -> None:
    ledger = Ledger(racks(1, 1, 1), LEVELS)
    ledger.seat(Grant(0, 0, 0, job_class=a_kind(labels=CACHE, project="other")))
    ledger.seat(Grant(1, 0, 0, job_class=a_kind(labels=WEB)))
    assert placed(ledger, a_kind(constraints=wanting(Affinity((*CACHE, *WEB))))) == []
    assert placed(ledger, a_kind(constraints=wanting(Affinity(WEB)))) == ["n10"]


def test_near_by_rack_is_met_by_any_node_of_the_rack() -> None:
    ledger = Ledger(racks(1, 2), LEVELS)
    ledger.seat(Grant(2, 8000, 0, job_class=a_kind(labels=CACHE)))
    assert placed(ledger, a_kind(constraints=wanting(Affinity(CACHE, "rack")))) == ["n10"]


def test_apart_keeps_away_from_the_whole_domain() -> None:
    ledger = Ledger(racks(2, 1), LEVELS)
    ledger.seat(Grant(0, 0, 0, job_class=a_kind(labels=WEB)))
    assert placed(ledger, a_kind(constraints=wanting(Affinity(WEB, "node", apart=True)))) == ["n01"]
    assert placed(ledger, a_kind(constraints=wanting(Affinity(WEB, "rack", apart=True)))) == ["n10"]


def test_apart_holds_whoever_comes_first() -> None:
    ledger = Ledger(racks(1, 1), LEVELS)
    assert placed(ledger, a_kind(constraints=wanting(Affinity(WEB, apart=True)))) == ["n00"]
    assert placed(ledger, a_kind(labels=WEB)) == ["n10"]
    assert placed(ledger, a_kind(labels=WEB, project="other")) == ["n00"]


def test_a_gang_that_keeps_apart_from_itself_spreads() -> None:
    ledger = Ledger(racks(2, 2), LEVELS)
    apart = wanting(Affinity(WEB, "rack", apart=True))
    assert placed(ledger, a_kind(labels=WEB, constraints=apart, least=2)) == ["n00", "n10"]
    assert placed(ledger, a_kind(labels=WEB, constraints=apart)) == []
    assert placed(Ledger(racks(2, 2), LEVELS), a_kind(labels=WEB, constraints=apart, least=3)) == []


def test_a_gang_that_wants_to_be_near_itself_gathers_where_all_have_room() -> None:
    ledger = Ledger(racks(1, 3), LEVELS)
    near = wanting(Affinity(WEB, "rack"))
    nodes = placed(ledger, a_kind(labels=WEB, constraints=near, least=24))
    assert sorted(set(nodes)) == ["n10", "n11", "n12"]
    assert placed(ledger, a_kind(labels=WEB, constraints=near)) == []


def test_those_that_follow_join_the_first_ones() -> None:
    ledger = Ledger(racks(1, 2), LEVELS)
    near = a_kind(labels=WEB, constraints=wanting(Affinity(WEB, "rack")), least=9)
    assert set(placed(ledger, near)) == {"n10", "n11"}
    assert set(placed(ledger, replace(near, roles=a_kind(least=7).roles))) <= {"n10", "n11"}


def test_a_wish_to_be_near_or_apart_gives_way_to_room() -> None:
    ledger = Ledger(racks(1, 1), LEVELS)
    ledger.seat(Grant(0, 0, 0, job_class=a_kind(labels=CACHE)))
    near = a_kind(constraints=wanting(Affinity(CACHE, required=False)), least=8)
    apart = a_kind(constraints=wanting(Affinity(CACHE, apart=True, required=False)), least=4)
    assert placed(ledger, apart) == ["n10"] * 4
    assert placed(ledger, near) == ["n00"] * 8
    assert placed(ledger, apart) == ["n10"] * 4
    assert placed(ledger, a_kind(constraints=wanting(Affinity(CACHE, required=False)))) == []


def test_a_wish_to_be_apart_spreads_evenly() -> None:
    ledger = Ledger(racks(2, 2), LEVELS)
    apart = wanting(Affinity(WEB, "rack", apart=True, required=False))
    nodes = placed(ledger, a_kind(labels=WEB, constraints=apart, least=6))
    assert sorted(node[1] for node in nodes) == ["0", "0", "0", "1", "1", "1"]


def test_who_leaves_is_heeded_no_more() -> None:
    ledger = Ledger(racks(1, 1), LEVELS)
    alone = a_kind(labels=WEB, constraints=wanting(Affinity(WEB, apart=True)), least=2)
    grant = Grant(0, 1000, 0, job_class=a_kind(labels=WEB))
    ledger.take(grant)
    assert placed(ledger, alone) == []
    ledger.give(grant)
    assert placed(ledger, alone) == ["n00", "n10"]


def test_a_start_that_opens_places_to_others_counts_as_a_gain() -> None:
    ledger = Ledger(racks(1, 1), LEVELS)
    assert placed(ledger, a_kind(constraints=wanting(Affinity(CACHE)))) == []
    before = ledger.gains
    ledger.take(Grant(0, 0, 0, job_class=a_kind(labels=WEB)))
    assert ledger.gains == before
    ledger.take(Grant(0, 0, 0, job_class=a_kind(labels=CACHE)))
    assert ledger.gains > before


def test_nodes_of_no_known_rack_are_racks_of_their_own() -> None:
    ledger = Ledger([a_node("n0"), a_node("n1")], LEVELS)
    apart = wanting(Affinity(WEB, "rack", apart=True))
    assert placed(ledger, a_kind(labels=WEB, constraints=apart, least=2)) == ["n0", "n1"]
