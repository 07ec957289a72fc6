from dataclasses import replace
from math import inf

import pytest

from scheduler.backfill import Guard
from scheduler.capacity import Setting
from scheduler.gang import extend_gang, place_gang
from scheduler.ledger import Ledger
from scheduler.placement.rooms import Grant
from scheduler.snapshot import Constraints, Node, Operator, Preference, Request, Role, Term
from tests.support.clusters import GIB, a_class, a_node, a_request
from tests.support.placing import a_kind, names, placed

LEVELS = Setting(("zone", "rack"))


def free() -> Guard:
    return Guard((), inf)


def rack(zone: str, name: str, *gpus: int) -> list[Node]:
    """Nodes of one rack with so many GPUs each; called after zone, rack and place."""
    return [
        replace(a_node(f"{zone}{name}{place}", gpus=count, cpus=64, gib=64), domains=(zone, name))
        for place, count in enumerate(gpus)
    ]


def of_gpus(count: int, gpus: int = 1) -> tuple[Role, ...]:
    return (Role(Request(1000, 1, gpus * 1000), count, count),)


def racks_of(nodes: list[str]) -> dict[str, int]:
    return {name: sum(node[:2] == name for node in nodes) for name in sorted({node[:2] for node in nodes})}


def within(level: str, *, required: bool = False, **others: object) -> Constraints:
    return replace(Constraints(within=level, within_required=required), **others)  # type: ignore[arg-type]


def test_replicas_share_a_node_where_they_fit() -> None:
    ledger = Ledger([a_node("n1", gpus=4), a_node("n2", gpus=8)])
    grants = place_gang(ledger, a_class(a_request(gpu_milli=2000), replicas=3), free())
    assert [(grant.number, grant.gpus) for grant in grants] == [
        (0, ((0, 1000), (1, 1000))),
        (0, ((2, 1000), (3, 1000))),
        (1, ((0, 1000), (1, 1000))),
    ]


def test_a_gang_short_of_room_takes_nothing_and_tells_how_many_fit() -> None:
    ledger = Ledger([a_node("n1", gpus=2), a_node("n2", gpus=1)])
    assert len(place_gang(ledger, a_class(a_request(gpu_milli=1000), replicas=4), free())) == 3
    assert [room.gpus for room in ledger.rooms] == [[1000, 1000], [1000]]


# Roles and elastic gangs


def test_every_role_gets_its_fewest_or_none_does() -> None:
    leader, worker = Role(Request(4000, 1), 1, 1), Role(Request(1000, 1, 2000), 2, 2)
    job_class = replace(a_class(), roles=(leader, worker))
    ledger = Ledger([a_node("n1", gpus=4, cpus=8)])
    grants = place_gang(ledger, job_class, free())
    assert [(grant.role, grant.cpu_milli) for grant in grants] == [(0, 4000), (1, 1000), (1, 1000)]
    assert placed(ledger, job_class) == []
    assert len(placed(Ledger([a_node("n1", gpus=4, cpus=5)]), job_class)) == 0


def test_large_roles_are_placed_before_small_ones_that_fit_beside_them() -> None:
    small, large = Role(Request(0, 1, 1000)), Role(Request(0, 9 * GIB, 2000))
    job_class = replace(a_class(), roles=(small, large))
    # Best fit would put the small one on n1, which alone has memory for the large one.
    nodes = [a_node("n1", gpus=2, cpus=1), a_node("n2", gpus=2, cpus=2, gib=1)]
    assert placed(Ledger(nodes), job_class) == ["n2", "n1"]


def test_a_gang_starts_with_its_fewest_and_takes_more_only_when_asked() -> None:
    job_class = a_kind(a_request(gpu_milli=1000), least=2, most=4)
    ledger = Ledger([a_node("n1", gpus=3)])
    grants = place_gang(ledger, job_class, free())
    assert len(grants) == 2
    assert len(extend_gang(ledger, job_class, grants, free(), 9)) == 1
    assert extend_gang(ledger, job_class, [*grants, *grants], free(), 9) == []


def test_more_is_given_to_the_roles_in_turn_and_no_more_than_asked() -> None:
    roles = (Role(Request(1000, 1), 1, 3), Role(Request(2000, 1), 1, 3))
    job_class = replace(a_class(), roles=roles)
    ledger = Ledger([a_node("n1", cpus=64)])
    grants = place_gang(ledger, job_class, free())
    assert [grant.role for grant in extend_gang(ledger, job_class, grants, free(), 3)] == [0, 1, 0]


def test_more_of_a_gang_that_must_lie_in_one_rack_goes_there() -> None:
    ledger = Ledger([*rack("a", "1", 2), *rack("a", "2", 8)], LEVELS)
    job_class = replace(a_kind(a_request(gpu_milli=1000), least=1, most=4), constraints=within("rack", required=True))
    grants = place_gang(ledger, job_class, free())
    assert names(ledger, grants) == ["a10"]
    assert names(ledger, extend_gang(ledger, job_class, grants, free(), 9)) == ["a10"]


# Topology: Kueue's topology-aware scheduling (KEP 2724) and Slurm's topology/tree


def test_the_tightest_rack_that_holds_all_is_taken() -> None:
    nodes = [*rack("a", "1", 8, 8), *rack("a", "2", 4, 4), *rack("b", "1", 2, 2)]
    job_class = replace(a_class(), roles=of_gpus(6), constraints=within("rack"))
    assert racks_of(placed(Ledger(nodes, LEVELS), job_class)) == {"a2": 6}


def test_where_no_rack_holds_all_the_tightest_zone_does() -> None:
    nodes = [*rack("a", "1", 8, 8), *rack("a", "2", 8, 8), *rack("b", "1", 6), *rack("b", "2", 6)]
    job_class = replace(a_class(), roles=of_gpus(12), constraints=within("rack"))
    ledger = Ledger(nodes, LEVELS)
    assert racks_of(placed(ledger, job_class)) == {"a1": 12}
    job_class = replace(job_class, roles=of_gpus(8))
    assert racks_of(placed(Ledger([*rack("a", "1", 6), *rack("a", "2", 6), *rack("b", "1", 4), *rack("b", "2", 5)], LEVELS),
                           job_class)) == {"b1": 3, "b2": 5}  # fmt: skip


def test_the_roomiest_racks_first_but_for_the_last_the_tightest_that_holds_the_rest() -> None:
    # Kueue's rule for racks with room for 6, 5, 4, 3 and 2.
    sizes = (4, 6, 2, 5, 3)
    nodes = [node for place, size in enumerate(sizes) for node in rack("a", str(place), size)]
    for count, expected in ((12, {"a1": 6, "a3": 5, "a2": 1}), (9, {"a1": 6, "a4": 3}), (20, None)):
        job_class = replace(a_class(), roles=of_gpus(count), constraints=within("rack"))
        by_rack = racks_of(placed(Ledger(nodes, LEVELS), job_class))
        assert by_rack == (
            expected if expected is not None else {f"a{place}": size for place, size in enumerate(sizes)}
        )


def test_in_a_rack_as_few_nodes_as_can_be_are_used() -> None:
    job_class = replace(a_class(), roles=of_gpus(7), constraints=within("rack"))
    assert placed(Ledger(rack("a", "1", 2, 4, 8, 3), LEVELS), job_class) == ["a12"] * 7
    job_class = replace(a_class(), roles=of_gpus(10), constraints=within("rack"))
    assert placed(Ledger(rack("a", "1", 2, 4, 8, 3), LEVELS), job_class) == ["a12"] * 8 + ["a10"] * 2


def test_a_required_rack_holds_all_or_the_gang_waits() -> None:
    nodes = [*rack("a", "1", 4), *rack("a", "2", 3)]
    job_class = replace(a_class(), roles=of_gpus(5), constraints=within("rack", required=True))
    ledger = Ledger(nodes, LEVELS)
    assert len(place_gang(ledger, job_class, free())) == 4
    assert [room.whole for room in ledger.rooms] == [4, 3]
    assert racks_of(placed(ledger, replace(job_class, roles=of_gpus(4)))) == {"a1": 4}


def test_what_is_in_no_rack_serves_who_prefers_one_but_not_who_needs_one() -> None:
    nodes = [replace(a_node("x", gpus=8, cpus=64), domains=("a", "")), *rack("a", "1", 1)]
    job_class = replace(a_class(), roles=of_gpus(2), constraints=within("rack"))
    assert len(placed(Ledger(nodes, LEVELS), job_class)) == 2
    assert placed(Ledger(nodes, LEVELS), replace(job_class, constraints=within("rack", required=True))) == []


def test_all_replicas_can_be_asked_onto_one_node() -> None:
    nodes = [a_node("n1", gpus=2), a_node("n2", gpus=4)]
    job_class = replace(a_class(), roles=of_gpus(3), constraints=within("node", required=True))
    assert placed(Ledger(nodes), job_class) == ["n2"] * 3


def test_roles_lie_in_one_rack_together() -> None:
    nodes = [*rack("a", "1", 4), *rack("a", "2", 8)]
    job_class = replace(a_class(), roles=(*of_gpus(3), *of_gpus(1, gpus=2)), constraints=within("rack", required=True))
    # Each alone would fit rack 1, both together do not.
    assert racks_of(placed(Ledger(nodes, LEVELS), job_class)) == {"a2": 4}


def test_a_rack_that_a_claim_is_on_is_passed_over() -> None:
    class Reserved(Guard):
        def permits(self, grant: Grant) -> bool:
            return grant.number not in (0, 1)

    nodes = [*rack("a", "1", 4, 4), *rack("a", "2", 8, 8)]
    ledger = Ledger(nodes, LEVELS)
    job_class = replace(a_class(), roles=of_gpus(8), constraints=within("rack"))
    assert racks_of(names(ledger, place_gang(ledger, job_class, Reserved((), inf)))) == {"a2": 8}


def test_in_a_rack_what_the_job_prefers_comes_first() -> None:
    liked = Preference(1, Term("name", Operator.IN, ("a11",)))
    job_class = replace(a_class(), roles=of_gpus(3), constraints=within("rack", prefers=(liked,)))
    assert placed(Ledger(rack("a", "1", 8, 2), LEVELS), job_class) == ["a11", "a11", "a10"]


@pytest.mark.parametrize("required", [False, True])
def test_a_level_that_there_is_not_is_a_wish_nobody_hears_or_a_need_nobody_meets(required: bool) -> None:
    job_class = replace(a_class(), roles=of_gpus(2), constraints=within("row", required=required))
    assert len(placed(Ledger(rack("a", "1", 8), LEVELS), job_class)) == (0 if required else 2)


# Alone


ALONE = Constraints(exclusive=True)


def test_an_exclusive_job_gets_nodes_with_nobody_on_them_and_shares_them_with_itself() -> None:
    ledger = Ledger([a_node("n1", cpus=4), a_node("n2", cpus=4), a_node("n3", cpus=4)])
    ledger.seat(Grant(0, 0, 0))
    assert placed(ledger, replace(a_class(replicas=6), constraints=ALONE)) == ["n2"] * 4 + ["n3"] * 2


def test_nobody_comes_beside_an_exclusive_job() -> None:
    ledger = Ledger([a_node("n1"), a_node("n2")])
    alone = replace(a_class(), constraints=ALONE)
    grants = place_gang(ledger, alone, free())
    assert names(ledger, grants) == ["n1"]
    assert placed(ledger, a_class()) == ["n2"]
    assert placed(ledger, alone) == []
    ledger.give(grants[0])
    assert placed(ledger, a_class(a_request(cpus=8))) == ["n1"]


def test_more_of_an_exclusive_job_fits_on_its_own_nodes() -> None:
    ledger = Ledger([a_node("n1", cpus=2)])
    job_class = replace(a_kind(least=1, most=4), constraints=ALONE)
    grants = place_gang(ledger, job_class, free())
    assert names(ledger, extend_gang(ledger, job_class, grants, free(), 9)) == ["n1"]
