"""The node of the integration tests, for the suites that run every kind of something through the same questions.

The examples of this folder are those of `tests.support.examples`.
"""

from tests.integration.agent.conftest import _try_each_confinement_once, home, make_node, plane
from tests.support import examples

__all__ = ["_try_each_confinement_once", "examples", "home", "make_node", "plane"]
