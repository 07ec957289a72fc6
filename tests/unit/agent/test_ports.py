"""Ports that replicas are promised: no two have the same, and nobody is promised one that is in use."""

import socket
import subprocess
import sys

import pytest

from agent.ports import NoPort, Port, parse_ports
from app.cli.ports import free_port


def test_one_port_is_given_to_one_replica_at_a_time_also_when_it_no_longer_holds_it() -> None:
    number = free_port()
    port = Port.reserve((number, number))
    with pytest.raises(NoPort, match="TRELLIS_PORTS"):
        Port.reserve((number, number))
    port.let_go()
    with pytest.raises(NoPort):
        Port.reserve((number, number))
    with socket.create_server(("127.0.0.1", number)):  # its own program
        assert port.is_taken()
    assert not port.is_taken()
    port.close()
    Port.reserve((number, number)).close()


def test_a_port_where_somebody_listens_is_passed_over() -> None:
    number = free_port()
    with socket.create_server(("", number)), pytest.raises(NoPort):
        Port.reserve((number, number))
    Port.reserve((number, number)).close()


def test_another_node_of_the_same_host_is_not_given_it_either_and_gets_it_when_its_holder_dies() -> None:
    number = free_port()
    code = f"from agent.ports import Port; import sys; p = Port.reserve(({number}, {number})); p.let_go(); print('has', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"has\n"
        with pytest.raises(NoPort):
            Port.reserve((number, number))
        other.kill()
    Port.reserve((number, number)).close()


@pytest.mark.parametrize(("text", "ends"), [("20000-29999", (20000, 29999)), ("4000", (4000, 4000))])
def test_ports_are_read_as_they_are_written(text: str, ends: tuple[int, int]) -> None:
    assert parse_ports(text) == ends


@pytest.mark.parametrize("text", ["", "a-b", "2-1", "80", "3000-2000", "1024-65536", "1024-", "-5"])
def test_what_are_no_ports_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="20000-29999"):
        parse_ports(text)
