import pytest

from app.core.settings import Settings
from trellis.settings import SettingsError


def a_setting(**given: float) -> Settings:
    return Settings("postgresql+psycopg://h/d", "redis://h", "s" * 32, **given)  # type: ignore[arg-type]  # floats all


def test_a_node_is_not_given_up_before_what_its_lease_allowed_is_dead() -> None:
    with pytest.raises(SettingsError, match="TRELLIS_NODE_LOST_S - 5"):
        a_setting(heartbeat_s=0.5, lease_s=3, node_lost_s=8)
    a_setting(heartbeat_s=0.5, lease_s=3, node_lost_s=8.5)


def test_a_lease_outlasts_two_heartbeats() -> None:
    with pytest.raises(SettingsError, match="2 x TRELLIS_HEARTBEAT_S"):
        a_setting(heartbeat_s=10, lease_s=20)
