"""What all supervisors of a node stand on: settled once, when the node starts."""

from dataclasses import dataclass, field
from pathlib import Path

from agent.layout import Home
from trellis.vocabulary import Isolation


@dataclass(frozen=True, slots=True)
class Confinement:
    """How far this node keeps jobs in, as a trial start proved; a supervisor does exactly this or fails.

    uid: what a root agent turns jobs into; None leaves the user as it is.
    drop_capabilities: jobs stay root in name only.
    nested_users: jobs could make user namespaces of their own, because this bubblewrap is too old to forbid it.
    """

    level: Isolation
    detail: str
    uid: int | None = None
    drop_capabilities: bool = False
    bwrap: str = ""
    setpriv: str = ""
    nested_users: bool = False
    landlock_abi: int = 0


@dataclass(frozen=True, slots=True)
class Ground:
    """Crosses to the launcher as JSON. `devices` maps a GPU's uuid to its device node, where it has one."""

    home_path: str
    confinement: Confinement
    job_uid: int
    timezone: str = ""
    devices: dict[str, str] = field(default_factory=dict)

    @property
    def home(self) -> Home:
        """The node's directory, from the text that crossed."""
        return Home(Path(self.home_path))
