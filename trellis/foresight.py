"""What is answered to "what if this were submitted now?"."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from trellis.answers import Answer


@dataclass(frozen=True, kw_only=True)
class Seat(Answer):
    """Where one replica would be: `gpus` are devices with so many thousandths of each, `slices` parts of cut ones."""

    index: int = 0
    role: int = 0
    node: str = ""
    gpus: tuple[Mapping[str, int], ...] = ()
    slices: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Copy(Answer):
    """What would become of one copy. `certainty` is now, promised, expected, later (than `not_before`), unknown, never."""

    certainty: str = ""
    starts_at: datetime | None = None
    not_before: datetime | None = None
    position: int | None = None
    nodes: tuple[str, ...] = ()
    replicas: tuple[Seat, ...] = ()
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class Because(Answer):
    """Why those wait that do not start now: a code for programs, and words with the nearest miss."""

    reason: str = ""
    message: str = ""


@dataclass(frozen=True, kw_only=True)
class DisplacedJob(Answer):
    """A job of yours that would go (`how`: preempt, reclaim, consolidate), or give up replicas (shrink)."""

    job_id: str = ""
    name: str = ""
    priority: int = 0
    how: str = ""
    grace_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Displaced(Answer):
    """Who would make room at once; `others` counts jobs of projects that are not yours."""

    jobs: tuple[DisplacedJob, ...] = ()
    others: int = 0


@dataclass(frozen=True, kw_only=True)
class WhatIf(Answer):
    """What would become of a job. `refused` is why a quota would refuse the submission, `requeued` how many jobs would
    wait again for the nodes that were supposed to be away.
    """

    queue: str = ""
    asked_at: datetime | None = None
    copies: tuple[Copy, ...] = ()
    starting_now: int = 0
    could_ever_start: bool = True
    why: Because | None = None
    refused: str | None = None
    displaced: Displaced = field(default_factory=Displaced)
    requeued: int = 0


@dataclass(frozen=True, kw_only=True)
class Held(Answer):
    """What jobs hold together if all run at once; `gpu_seconds_at_most` is None where one has no time limit."""

    cpu_milli: int = 0
    memory_bytes: int = 0
    gpu_milli: int = 0
    gpu_seconds_at_most: float | None = None


@dataclass(frozen=True, kw_only=True)
class DryJob(Answer):
    """What one submission would become: `count` jobs, stored as `spec`. `forecast` is the number of its forecast."""

    name: str = ""
    project: str = ""
    queue: str = ""
    count: int = 1
    spec: Mapping[str, Any] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    waits_for: tuple[str, ...] = ()
    total: Held = field(default_factory=Held)
    forecast: int | None = None


@dataclass(frozen=True, kw_only=True)
class DryRun(Answer):
    """What would happen to a submission. `refused` is why a quota would refuse it."""

    count: int = 0
    refused: str | None = None
    could_ever_start: bool = True
    total: Held = field(default_factory=Held)
    jobs: tuple[DryJob, ...] = ()
    forecasts: tuple[WhatIf, ...] = ()
