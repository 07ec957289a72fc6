from dataclasses import replace

from scheduler.capacity import Setting
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant
from scheduler.placement.tallies import Tally
from scheduler.placement.topology import WHOLE_CLUSTER, Part
from scheduler.snapshot import Affinity, Constraints, JobClass, Node, Request
from tests.support.clusters import GIB, a_node
from tests.support.placing import a_kind

LEVELS = Setting(("zone", "rack"))
WEB = (("app", "web"),)


def at(name: str, zone: str, rack: str, gpus: int) -> Node:
    return replace(a_node(name, gpus=gpus), domains=(zone, rack))


def tally_of(ledger: Ledger, kind: JobClass) -> Tally:
    return ledger.capacity.tally(ledger.capacity.views(kind)[0])


def cluster() -> Ledger:
    return Ledger([at("n0", "a", "1", 4), at("n1", "a", "1", 2), at("n2", "a", "2", 1), at("n3", "b", "", 8)], LEVELS)


def test_slots_are_summed_up_the_tree() -> None:
    tally = tally_of(cluster(), a_kind(Request(1000, GIB, 1000)))
    assert tally.slots == {0: 4, 1: 2, 2: 1, 3: 8}
    assert [tally.of(Part(0, number)) for number in (0, 1)] == [7, 8]
    assert [tally.of(Part(1, number)) for number in (0, 1)] == [6, 1]
    assert (tally.of(Part(2, 3)), tally.of(WHOLE_CLUSTER)) == (8, 15)


def test_what_is_scarcest_counts() -> None:
    assert tally_of(cluster(), a_kind(Request(3000, GIB, 1000))).slots == {0: 2, 1: 2, 2: 1, 3: 2}
    assert tally_of(cluster(), a_kind(Request(0, 20 * GIB, 1000))).slots == {0: 1, 1: 1, 2: 1, 3: 1}
    assert tally_of(cluster(), a_kind(Request(5000, 0))).total == 4


def test_the_counts_follow_every_change() -> None:
    ledger, kind = cluster(), a_kind(Request(1000, GIB, 1000))
    tally = tally_of(ledger, kind)
    grant = Grant(0, 0, 0, ((0, 500), (1, 1000)))
    ledger.take(grant)
    assert tally_of(ledger, kind) is tally
    assert (tally.slots[0], tally.of(Part(1, 0)), tally.total) == (2, 4, 13)
    ledger.give(grant)
    assert tally_of(ledger, kind).total == 15


def test_the_counts_follow_what_replicas_must_be_apart_from() -> None:
    ledger = cluster()
    apart = Constraints(affinities=(Affinity(WEB, "zone", apart=True),))
    kind = a_kind(Request(1000, GIB, 1000), constraints=apart)
    assert tally_of(ledger, kind).total == 15
    web = Grant(2, 0, 0, job_class=a_kind(labels=WEB))
    ledger.take(web)
    assert tally_of(ledger, kind).slots == {3: 8}
    ledger.give(web)
    assert tally_of(ledger, kind).total == 15


def test_the_counts_follow_what_replicas_must_be_near_to() -> None:
    ledger = cluster()
    near = Constraints(affinities=(Affinity(WEB, "rack"),))
    kind = a_kind(Request(1000, GIB, 1000), labels=WEB, constraints=near)
    assert tally_of(ledger, kind).total == 15
    ledger.take(Grant(0, 0, 0, job_class=kind))
    assert tally_of(ledger, kind).slots == {0: 4, 1: 2}
