"""A node in this process against a control plane in small, over real HTTP, with real jobs."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent import commands, isolation, sweep
from agent.cgroups import Cgroups
from agent.daemon import Daemon
from agent.ground import Confinement, Ground
from agent.layout import Home
from agent.link import Link
from agent.settings import NodeSettings
from tests.support.agent_api import JOIN_TOKEN, ControlPlane
from trellis.settings import SettingsError
from trellis.vocabulary import Isolation
from trellis.wire import ReplicaSpec


@dataclass
class Node:
    """A daemon that can be stopped and started again on the same home."""

    plane: ControlPlane
    path: Path
    isolation: str = ""
    changes: dict[str, Any] = field(default_factory=dict)

    @property
    def home(self) -> Home:
        return Home(self.path.resolve())

    def start(self) -> "Node":
        values = {"join_token": JOIN_TOKEN, "name": "a-node", "home": self.path, "isolation": self.isolation}
        values["container_socket"] = "none"  # whatever this machine has is nothing of the tests'
        settings = NodeSettings(self.plane.url, **{**values, **self.changes})
        self.daemon = Daemon(settings, Link(self.plane.url))
        self.daemon.start()
        commands.install(self.daemon)
        return self

    @property
    def groups(self) -> Cgroups:
        """Where it makes control groups."""
        ground = self.daemon._ground
        assert ground is not None
        return ground.cgroups

    def run(self, *specs: ReplicaSpec) -> None:
        commands.launch(self.plane.want(*specs))


@pytest.fixture(scope="session", autouse=True)
def _try_each_confinement_once() -> Iterator[None]:
    """A trial start tells of the machine, not of the home: once a session is enough, and each costs a second."""
    with pytest.MonkeyPatch.context() as patch:
        outcomes: dict[Confinement, str] = {}
        real = isolation._try

        def remember(ground: Ground) -> str:
            if ground.confinement not in outcomes:
                outcomes[ground.confinement] = real(ground)
            return outcomes[ground.confinement]

        patch.setattr(isolation, "_try", remember)
        yield


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    plane = ControlPlane()
    plane.start()
    yield plane
    plane.stop()


@pytest.fixture
def home() -> Iterator[Path]:
    # Not pytest's own directory: that is closed to other users, and a root agent's jobs are another user.
    with tempfile.TemporaryDirectory(prefix="trellis-node-", ignore_cleanup_errors=True) as path:
        Path(path).chmod(0o711)
        yield Path(path) / "home"
        if (Path(path) / "home/replicas").exists():
            sweep.stop_all(Path(path) / "home", 0.0)


@pytest.fixture
def make_node(plane: ControlPlane, home: Path) -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(isolation: str = "", **changes: Any) -> Node:
        node = Node(plane, home, isolation, changes)
        try:
            node.start()
        except SettingsError as error:
            if isolation:
                pytest.skip(str(error))
            raise
        made.append(node)
        return node

    yield make
    for node in made:
        node.daemon.stop()


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    """At the strongest level that this machine has."""
    return make_node()


@pytest.fixture
def limited_node(node: Node) -> Node:
    """One that sets limits by control groups; skipped where there are none."""
    if not node.groups.version:
        pytest.skip("this process may make no control groups")
    return node


@pytest.fixture(params=[Isolation.NAMESPACES, Isolation.LANDLOCK])
def confined_node(request: pytest.FixtureRequest, make_node: Callable[..., Node]) -> Node:
    """At each level that keeps files from a job; skipped where the machine lacks it."""
    return make_node(request.param)
