"""Trellis from Python: `from trellis import Client`.

Names are fetched when first used, so that code inside a job can import `trellis.runtime` on a machine without httpx.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trellis.answers import Event, Job, JobArray, LogLine, Node, Queue
    from trellis.client import Client
    from trellis.errors import (
        Conflict,
        Forbidden,
        Invalid,
        NotFound,
        QuotaExceeded,
        RateLimited,
        TrellisError,
        Unauthenticated,
        Unavailable,
    )
    from trellis.vocabulary import JobState

__version__ = "0.1.0"

_HOMES = {
    "Client": "trellis.client",
    "JobState": "trellis.vocabulary",
    **dict.fromkeys(("Event", "Job", "JobArray", "LogLine", "Node", "Queue"), "trellis.answers"),
    **dict.fromkeys(
        ("Conflict", "Forbidden", "Invalid", "NotFound", "QuotaExceeded", "RateLimited", "TrellisError"),
        "trellis.errors",
    ),
    **dict.fromkeys(("Unauthenticated", "Unavailable"), "trellis.errors"),
}

__all__ = [
    "Client",
    "Conflict",
    "Event",
    "Forbidden",
    "Invalid",
    "Job",
    "JobArray",
    "JobState",
    "LogLine",
    "Node",
    "NotFound",
    "Queue",
    "QuotaExceeded",
    "RateLimited",
    "TrellisError",
    "Unauthenticated",
    "Unavailable",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'trellis' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
