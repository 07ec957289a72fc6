"""How a host of simulated nodes is wired."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class HostSettings:
    """Read from the environment by `trellis.settings.load`.

    url: the control plane, such as `http://127.0.0.1:8420`.
    home: where the host keeps what it plays; one host a home.
    plan: a JSON file that names its nodes and says how their jobs are played; `trellis up --simulate` writes it.
    join_token: lets its nodes register.
    """

    url: str
    home: Path
    plan: Path
    join_token: str = ""
