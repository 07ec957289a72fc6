"""Who a replica is told that it is, and where the others are."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.rendezvous import interface_of, own_address, variables
from tests.support.agent_api import a_spec
from trellis.wire import GpuGrant, World

GANG = a_spec("r", "true", gang=True)


def a_world(*places: int, roles: tuple[int, ...] = (), host: str = "10.0.0.{}", port: int = 20_000) -> World:
    hosts = tuple(host.format(number) for number in range(max(places) + 1))
    ports = tuple(port + rank if port else 0 for rank in range(len(places)))
    return World({}, hosts, places, ports, roles or (0,) * len(places))


def test_ranks_are_counted_over_all_on_the_node_and_in_the_role() -> None:
    told = variables(a_spec("r", "true", role="worker"), a_world(0, 0, 1, 1, roles=(0, 1, 1, 1)), 3)
    said = {name: told[name] for name in (
        "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "GROUP_WORLD_SIZE",
        "ROLE_RANK", "ROLE_WORLD_SIZE", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT", "TRELLIS_PORT",
    )}  # fmt: skip
    assert said == {
        "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "NODE_RANK": "1", "GROUP_RANK": "1",
        "GROUP_WORLD_SIZE": "2", "ROLE_RANK": "2", "ROLE_WORLD_SIZE": "3", "ROLE_NAME": "worker",
        "MASTER_ADDR": "10.0.0.0", "MASTER_PORT": "20000", "TRELLIS_PORT": "20003",
    }  # fmt: skip


def test_with_a_device_of_its_own_the_first_device_is_its_own() -> None:
    spec = a_spec("r", "true", gpus=(GpuGrant(3, "GPU-3", 1000),))
    told = variables(spec, a_world(0, 0, 1, 1), 3)
    assert (told["LOCAL_RANK"], told["LOCAL_WORLD_SIZE"], told["TRELLIS_LOCAL_RANK"]) == ("0", "1", "1")
    assert told["PET_NPROC_PER_NODE"] == "1"


def test_torchrun_finds_its_others_without_being_told_on_the_command_line() -> None:
    told = variables(a_spec("r", "true", job_id="j", fence=3), a_world(0, 1, host="fd00::{}"), 1)
    assert {name: value for name, value in told.items() if name.startswith("PET_")} == {
        "PET_NNODES": "2", "PET_NPROC_PER_NODE": "1", "PET_RDZV_BACKEND": "static", "PET_NODE_RANK": "1",
        "PET_MASTER_ADDR": "fd00::0", "PET_MASTER_PORT": "20000", "PET_RDZV_ID": "j.3",
        "PET_RDZV_ENDPOINT": "[fd00::0]:20000", "PET_RDZV_CONF": "is_host=0", "PET_LOCAL_ADDR": "fd00::1",
    }  # fmt: skip


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12).map(sorted))
def test_nobody_is_told_to_be_another(places: list[int]) -> None:
    dense = {place: number for number, place in enumerate(dict.fromkeys(places))}
    world = a_world(*(dense[place] for place in places))
    told = [variables(GANG, world, rank) for rank in range(len(places))]
    assert [one["RANK"] for one in told] == [str(rank) for rank in range(len(places))]
    assert len({(one["NODE_RANK"], one["LOCAL_RANK"]) for one in told}) == len(places)
    for one in told:
        assert 0 <= int(one["LOCAL_RANK"]) < int(one["LOCAL_WORLD_SIZE"]) <= int(one["WORLD_SIZE"]) == len(places)
        assert int(one["NODE_RANK"]) < int(one["GROUP_WORLD_SIZE"]) == len(set(places))


@pytest.mark.parametrize(
    ("url", "address"), [("http://127.0.0.1:8420", "127.0.0.1"), ("http://localhost", "127.0.0.1")]
)
def test_a_nodes_address_is_the_one_that_it_reaches_the_control_plane_from(url: str, address: str) -> None:
    assert own_address(url) in (address, "::1")


def test_an_address_that_cannot_be_found_is_the_hosts_name() -> None:
    assert own_address("http://no-such-host.invalid")


def test_the_interface_of_an_address_is_found() -> None:
    known: Any = ["lo"]
    assert (
        interface_of("127.0.0.1", known),
        interface_of("203.0.113.9", known),
        interface_of("127.0.0.1", ["none"]),
    ) == ("lo", "", "")
