from pathlib import Path

from agent.settings import NodeSettings
from app.cli import accounts, platform
from app.cli.home import Home
from app.cli.platform import NODE_TUNING, SERVER_TUNING, Wiring
from trellis.settings import names


def a_wiring(**environment: str) -> Wiring:
    return Wiring(Home(Path("/h")), accounts.current(), Path("/c"), environment, {}, {}, 8420, 8421)


def test_settings_given_to_up_reach_the_processes_that_listen_to_them() -> None:
    wiring = a_wiring(TRELLIS_HEARTBEAT_S="1", TRELLIS_ISOLATION="basic", TRELLIS_API_KEY="trk_secret", PGHOST="x")
    server, node = wiring.server_environment(), wiring.node_environment("node-1", "", Path("/t"))
    assert server["TRELLIS_HEARTBEAT_S"] == "1"
    assert node["TRELLIS_ISOLATION"] == "basic"
    for environment in (server, node):
        assert not {"TRELLIS_API_KEY", "PGHOST"} & environment.keys()


def test_what_the_stack_wires_by_itself_is_not_overridden() -> None:
    wiring = a_wiring(TRELLIS_SECRET_KEY="x" * 32, TRELLIS_PUBLIC_URL="http://elsewhere")
    server = wiring.server_environment()
    assert "TRELLIS_SECRET_KEY" not in server
    assert server["TRELLIS_PUBLIC_URL"] == "http://127.0.0.1:8420"


def test_every_setting_that_is_passed_on_is_one() -> None:
    assert names(NodeSettings) >= NODE_TUNING
    assert "TRELLIS_LEASE_S" in SERVER_TUNING


def test_thousands_of_nodes_beat_more_rarely_unless_somebody_says_how_often() -> None:
    assert platform.pace_for(2000, {}) == {}
    slower = {"TRELLIS_HEARTBEAT_S": "12.5", "TRELLIS_LEASE_S": "70.0", "TRELLIS_NODE_LOST_S": "87.5"}
    assert platform.pace_for(5000, {}) == slower
    assert platform.pace_for(5000, {"TRELLIS_LEASE_S": "30"}) == {}
