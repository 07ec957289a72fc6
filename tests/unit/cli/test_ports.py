import os
import socket

import pytest

from app.cli.errors import StackError
from app.cli.ports import PRIVATE_PORTS, answers, free_port, holder_of, is_free, require_free


def test_a_taken_port_names_its_holder_and_the_way_out() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        assert answers(port)
        with pytest.raises(StackError, match=rf"Port {port} is taken by .*\(pid {os.getpid()}\).*--port"):
            require_free(port, "--port")
    assert holder_of(port) == ""


def test_the_preferred_port_is_taken_if_it_is_free() -> None:
    port = free_port()
    assert port in PRIVATE_PORTS
    assert free_port(preferred=port) == port
    assert free_port(preferred=port, avoid=[port]) != port
