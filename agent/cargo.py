"""One replica's files as a stream to the control plane: what is next, and how far it has it."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from agent import journal, metering
from agent.holes import free_front
from agent.layout import ReplicaDir, read_json, write_json
from agent.metering import MetricEntry
from trellis.vocabulary import ReplicaState
from trellis.wire import LogChunk, MetricPoint, Receipt, Report

LOG_BYTES = 256 * 1024
METRIC_POINTS = 1000
# Disk of points that the control plane has is given back in parts of this size.
_FREED_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Load:
    """What one shipment takes of one replica."""

    log: LogChunk | None
    metrics: tuple[MetricEntry, ...]
    reports: tuple[journal.Entry, ...]

    @property
    def points(self) -> tuple[MetricPoint, ...]:
        """What of it goes on the wire."""
        return tuple(entry.point for entry in self.metrics)

    @property
    def told(self) -> tuple[Report, ...]:
        """What of it goes on the wire."""
        return tuple(entry.report for entry in self.reports)

    @property
    def size_bytes(self) -> int:
        """About what it takes on the wire."""
        return (len(self.log.text) if self.log else 0) + 128 * len(self.metrics) + 256 * len(self.reports)

    def __bool__(self) -> bool:
        return bool(self.log or self.metrics or self.reports)


@dataclass(slots=True)
class Cargo:
    """How far the control plane has one replica's files: offsets of bytes. Used by the shipping thread alone.

    `ready` turns true when its artifacts are stored: only then may its end be told. `state` is its last reported one.
    """

    replica: ReplicaDir
    log: int = 0
    metrics: int = 0
    reports: int = 0
    ready: bool = False
    ended: bool = False
    forgotten: bool = False
    storing: bool = False
    state: ReplicaState = ReplicaState.STARTING
    _saved: tuple[int, int, int] = field(default=(0, 0, 0))

    @classmethod
    def resume(cls, replica: ReplicaDir) -> "Cargo":
        """Go on where an earlier daemon stopped. What it sent and did not note is sent again, and known there."""
        stored = read_json(replica.shipped) or {"log": 0, "metrics": 0, "reports": 0}  # it knows what comes twice
        cargo = cls(replica, **stored)
        cargo._saved = (cargo.log, cargo.metrics, cargo.reports)
        entries = journal.read(replica.journal, 0)
        if entries:
            cargo.state, cargo.ended = entries[-1].report.state, entries[-1].ended
        return cargo

    def next_load(self) -> Load:
        """What is to be shipped next; an end only together with, or after, all that came before it."""
        # In this order: once the journal tells of the end, the other files are complete.
        entries = journal.read(self.replica.journal, self.reports)
        if entries:
            self.state, self.ended = entries[-1].report.state, entries[-1].ended
        text = _read_lines(self.replica.log, self.log)
        owner = (self.replica.replica_id, self.replica.fence)
        chunk = LogChunk(*owner, self.log, text.decode()) if text else None
        points = metering.read(self.replica.metrics, self.metrics, METRIC_POINTS, *owner)
        if entries and entries[-1].ended:
            all_there = self.log + len(text) == _size(self.replica.log) and (
                (points[-1].end if points else self.metrics) == _size(self.replica.metrics)
            )
            self.ready = self.ready or not (has_artifacts(self.replica.artifacts) or self.replica.plan.exists())
            if not (all_there and self.ready):
                entries = entries[:-1]
        return Load(chunk, tuple(points), tuple(entries))

    def accept(self, receipt: Receipt, load: Load) -> bool:
        """Note what the control plane has now; whether that is more than before."""
        before = (self.log, self.metrics, self.reports)
        name = self.replica.replica_id
        if load.log:
            self.log = receipt.logs.get(name, self.log)
        settled = receipt.metrics.get(name, 0)
        self.metrics = max([self.metrics, *(entry.end for entry in load.metrics if entry.point.seq <= settled)])
        settled = receipt.reports.get(name, 0)
        self.reports = max([self.reports, *(entry.end for entry in load.reports if entry.report.seq <= settled)])
        return (self.log, self.metrics, self.reports) != before

    @property
    def done(self) -> bool:
        """Whether the control plane knows all there will ever be."""
        return self.forgotten or (
            self.ended
            and self.reports == _size(self.replica.journal)
            and self.log == _size(self.replica.log)
            and self.metrics == _size(self.replica.metrics)
        )

    def save(self) -> None:
        """Write down how far it is, if that changed."""
        now = (self.log, self.metrics, self.reports)
        if now != self._saved:
            write_json(self.replica.shipped, {"log": self.log, "metrics": self.metrics, "reports": self.reports})
            # Only now: what was shipped and not noted is read again.
            if self.metrics // _FREED_BYTES > self._saved[1] // _FREED_BYTES:
                free_front(self.replica.metrics, self.metrics)
            self._saved = now


def has_artifacts(folder: Path) -> bool:
    """Whether the job left anything to store."""
    try:
        with os.scandir(folder) as entries:
            return any(True for _ in entries)
    except FileNotFoundError:  # it never came to run
        return False
    except OSError:  # the job shut it, or made something else of it: whoever stores them says so
        return True


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def _read_lines(path: Path, offset: int) -> bytes:
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(offset)
            block = file.read(LOG_BYTES)
    except FileNotFoundError:
        return b""
    return block[: block.rfind(b"\n") + 1]
