"""Behaviour that is not for everybody yet: switches by name, for one job, a project or the whole platform.

One is here only while something reads it; it goes when what it switches becomes usual, or is given up.
"""

from collections.abc import Mapping
from dataclasses import dataclass

FINE_METRICS = "fine_metrics"
CRASH_TRACES = "crash_traces"


@dataclass(frozen=True, slots=True)
class Feature:
    """A switch: what it does, which part of the platform answers for it, and whether it is on where nobody says."""

    description: str
    owner: str
    default: bool = False


FEATURES: Mapping[str, Feature] = {
    FINE_METRICS: Feature(
        "What a replica uses is measured each second, from its first on, in place of each ten: ten times as many points.",
        "agent/sampling.py",
    ),
    CRASH_TRACES: Feature(
        "A Python program that dies of a signal such as SEGV says in its log where each of its threads was "
        "(PYTHONFAULTHANDLER, unless the job sets that itself).",
        "agent/workspace.py",
    ),
}
