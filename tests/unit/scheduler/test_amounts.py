from dataclasses import replace

import pytest

from scheduler.amounts import asked, held, offered, slice_milli
from scheduler.snapshot import Amounts, Role, Slice
from tests.support.clusters import GIB, a_class, a_holding, a_node, a_request


def test_running_and_starting_hold_alike() -> None:
    holdings = [a_holding("n1", gpus=((0, 1000),)), a_holding("n1", gpus=((1, 1000),))]
    assert held(holdings) == asked(a_class(a_request(gpu_milli=1000), replicas=2))


def test_of_an_elastic_job_the_fewest_replicas_of_every_role_are_asked_for() -> None:
    roles = (Role(a_request(cpus=2), least=3, most=8), Role(a_request(cpus=1, gib=4, gpu_milli=500), least=2, most=2))
    assert asked(replace(a_class(), roles=roles)) == Amounts(8000, 11 * GIB, 1000)


def test_a_slice_counts_as_its_compute_sevenths_asked_for_or_held() -> None:
    assert [slice_milli(profile) for profile in ("1g.10gb", "2g.20gb", "3g.40gb", "7g.80gb")] == [142, 285, 428, 1000]
    job_class = a_class(replace(a_request(), mig_profile="3g.40gb"))
    holding = replace(a_holding("n1"), slices=(Slice(0, "3g.40gb", 0),))
    assert asked(job_class) == held([holding]) == Amounts(1000, GIB, 428)


@pytest.mark.parametrize("profile", ["", "g", "8g.80gb", "0g.5gb", "x", "1c.2g"])
def test_a_slice_of_an_unknown_size_is_refused(profile: str) -> None:
    with pytest.raises(ValueError, match="mig_profile"):
        slice_milli(profile)


def test_a_cluster_offers_what_its_nodes_have_ready_or_not() -> None:
    nodes = [a_node("n1", cpus=2, gib=3, gpus=4), replace(a_node("n2", cpus=1, gib=1), ready=False)]
    assert offered(nodes) == Amounts(3000, 4 * GIB, 4000)
    assert offered([]) == Amounts(0, 0, 0)
