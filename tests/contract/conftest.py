"""The node of the integration tests, for the suites that run every kind of something through the same questions."""

from tests.integration.agent.conftest import _try_each_confinement_once, home, make_node, plane

__all__ = ["_try_each_confinement_once", "home", "make_node", "plane"]
