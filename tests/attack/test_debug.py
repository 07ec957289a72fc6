"""Debug mode adds words and takes nothing away: limits, isolation, monitoring and the record stay (DEF-1)."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.core.events import Event
from sqlalchemy import select
from tests.integration.agent.conftest import Node, home, make_node, plane  # noqa: F401  # fixtures
from tests.support.agent_api import ControlPlane, a_spec
from tests.support.fake_node import FakeNode
from tests.support.stack import Stack
from tests.support.world import World
from trellis.vocabulary import Cause, ReplicaState
from trellis.wire import ReplicaSpec
