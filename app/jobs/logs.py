"""What jobs print: taken in by byte offset, exactly once and in order; read by line.

A cursor says how far a reader has come: `<attempt>.<replica>:<offset>` for every replica seen, joined by commas.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, func, insert, select, tuple_
from sqlalchemy.orm import Session

from app.core.uow import UnitOfWork
from app.jobs.models import Job, LogChunk, Replica
from app.jobs.patterns import matcher
from trellis import wire
from trellis.errors import Field, Invalid
from trellis.vocabulary import Stream

LARGEST_READ = 4 * 2**20
# How far back the last lines that match are looked for, in each replica's log.
LARGEST_SEARCH = 32 * 2**20
DROPPED_AT_ONCE = 2000
LATEST_US = 253_402_300_799_000_000  # the last second of year 9999: beyond it no date can be written
_STREAMS = {"o": Stream.STDOUT, "e": Stream.STDERR, "s": Stream.SYSTEM}


@dataclass(frozen=True, slots=True)
class Line:
    """One line: bytes `start` to `end` of the log of replica `key`, which is (attempt, index)."""

    us: int
    stream: Stream
    key: tuple[int, int]
    start: int
    end: int
    text: str

    def as_json(self) -> dict[str, Any]:
        """As it is answered."""
        at = datetime.fromtimestamp(min(self.us, LATEST_US) / 1e6, UTC).isoformat()
        return {"at": at, "stream": str(self.stream), "replica": self.key[1], "attempt": self.key[0], "text": self.text}


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Which lines of a job's log; `grep` is an expression that they match. Raises Invalid for one that can't be.

    `since` may be a time before the present, until `at` says of when.
    """

    attempt: int | None = None
    replica: int | None = None
    stream: Stream | None = None
    since: datetime | timedelta | None = None
    tail: int | None = None
    grep: str | None = None

    def __post_init__(self) -> None:
        """Refuse it before anything is read."""
        if self.grep is not None:
            matcher(self.grep)

    def at(self, now: datetime) -> "LogFilter":
        """The same, with `since` as a moment."""
        return replace(self, since=now - self.since) if isinstance(self.since, timedelta) else self

    @property
    def since_us(self) -> float:
        """From when on, in microseconds since the epoch."""
        return self.since.timestamp() * 1e6 if isinstance(self.since, datetime) else 0

    def takes(self, key: tuple[int, int]) -> bool:
        """Whether lines of this replica, (attempt, index), are wanted."""
        return self.attempt in (None, key[0]) and self.replica in (None, key[1])


@dataclass(slots=True)
class Cursor:
    """How far a reader has come in each replica's log."""

    offsets: dict[tuple[int, int], int] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str | None) -> "Cursor":
        """Raises Invalid for what is no cursor."""
        offsets = {}
        try:
            for part in filter(None, (text or "").split(",")):
                key, _, offset = part.partition(":")
                attempt, _, index = key.partition(".")
                offsets[int(attempt), int(index)] = int(offset)
        except ValueError as error:
            raise Invalid(Field("/cursor", "is not a cursor that this log gave out")) from error
        return cls(offsets)

    def __str__(self) -> str:
        return ",".join(f"{attempt}.{index}:{offset}" for (attempt, index), offset in sorted(self.offsets.items()))


def append_chunks(uow: UnitOfWork, replicas: Mapping[UUID, Replica], chunks: Iterable[wire.LogChunk]) -> None:
    """Add what continues the (locked) replicas' logs; what is known is skipped, what leaves a gap is not taken."""
    rows = []
    for chunk in chunks:
        replica = replicas.get(UUID(chunk.replica_id))
        body = chunk.text.encode()
        if not body.endswith(b"\n"):
            raise Invalid(Field("/logs", "chunks must hold whole lines"))
        if replica is None or chunk.offset > replica.log_bytes or chunk.offset + len(body) <= replica.log_bytes:
            continue
        body = body[replica.log_bytes - chunk.offset :]
        rows.append(
            {
                "replica_id": replica.id,
                "offset": replica.log_bytes,
                "size": len(body),
                "first_us": _stamp(body[: body.find(b"\n") + 1]),
                "last_us": _stamp(body[body[:-1].rfind(b"\n") + 1 :]),
                "body": body,
            }
        )
        replica.log_bytes += len(body)
        uow.touch_job(replica.job_id)
    if rows:
        uow.session.execute(insert(LogChunk), rows)


@dataclass(frozen=True, slots=True)
class Part:
    """Lines of a job's log in order of time; `more` where reading stopped before its end."""

    lines: list[Line]
    more: bool


def read_lines(session: Session, job: Job, wanted: LogFilter, cursor: Cursor) -> Part:
    """Lines after `cursor`, which is moved on; about LARGEST_READ bytes at a time. With `tail`, the last ones."""
    lines: list[Line] = []
    left, more = LARGEST_READ, False
    for replica in _replicas(session, job, wanted):
        key = (replica.number, replica.index)
        start = cursor.offsets.get(key, 0)
        if replica.log_bytes <= start:
            continue
        if left <= 0:
            more = True
            break
        chunks, whole = _chunks(session, replica, start, wanted)
        for chunk in chunks:
            lines += lines_of(chunk, key, start, wanted)
            left -= chunk.size
        end = chunks[-1].offset + chunks[-1].size if chunks else start
        cursor.offsets[key] = max(end, replica.log_bytes) if whole else end
        more = more or not whole
    lines.sort(key=lambda line: (line.us, line.key, line.end))
    return Part(lines if wanted.tail is None else lines[max(0, len(lines) - wanted.tail) :], more)


def drop_old(uow: UnitOfWork, days: int) -> bool:
    """Forget some of what was printed more than so many days ago; whether there may be more."""
    edge = uow.clock.now() - timedelta(days=days)
    # By the replica's age too: the stamps are of its node's clock, which may be wrong.
    old = (
        select(LogChunk.replica_id, LogChunk.offset)
        .join(Replica, Replica.id == LogChunk.replica_id)
        .where(LogChunk.last_us < int(edge.timestamp() * 1e6), Replica.created_at < edge)
        .limit(DROPPED_AT_ONCE)
    )
    found = tuple_(LogChunk.replica_id, LogChunk.offset).in_(old)
    return uow.execute(delete(LogChunk).where(found)).rowcount == DROPPED_AT_ONCE


def _replicas(session: Session, job: Job, wanted: LogFilter) -> Sequence[Replica]:
    statement = select(Replica).where(Replica.job_id == job.id)
    if wanted.attempt is not None:
        statement = statement.where(Replica.number == wanted.attempt)
    if wanted.replica is not None:
        statement = statement.where(Replica.index == wanted.replica)
    statement = statement.order_by(Replica.number, Replica.index)
    return session.execute(statement.execution_options(populate_existing=True)).scalars().all()


def _chunks(session: Session, replica: Replica, start: int, wanted: LogFilter) -> tuple[list[LogChunk], bool]:
    """The chunks to read, in order, and whether they reach the log's end."""
    # The chunk that holds `start` begins before it; found by the index, however long the log.
    first = select(func.max(LogChunk.offset)).where(LogChunk.replica_id == replica.id, LogChunk.offset <= start)
    statement = select(LogChunk).where(
        LogChunk.replica_id == replica.id, LogChunk.offset >= func.coalesce(first.scalar_subquery(), 0)
    )
    if wanted.since is not None:
        statement = statement.where(LogChunk.last_us >= wanted.since_us)
    if wanted.tail is None:
        return _from_here(
            session.execute(statement.order_by(LogChunk.offset).execution_options(yield_per=20)).scalars()
        )
    backwards = statement.order_by(LogChunk.offset.desc()).execution_options(yield_per=20)
    return _last(session.execute(backwards).scalars(), start, wanted, wanted.tail), True


def _from_here(chunks: Iterable[LogChunk]) -> tuple[list[LogChunk], bool]:
    found: list[LogChunk] = []
    size = 0
    for chunk in chunks:
        if size > LARGEST_READ:
            return found, False
        found.append(chunk)
        size += chunk.size
    return found, True


def _last(chunks: Iterable[LogChunk], start: int, wanted: LogFilter, tail: int) -> list[LogChunk]:
    """Of chunks that come last first, those that hold the last so many wanted lines; LARGEST_SEARCH is looked through."""
    found: list[LogChunk] = []
    size = searched = count = 0
    for chunk in chunks:
        if count >= tail or size > LARGEST_READ or searched > LARGEST_SEARCH:
            break
        searched += chunk.size
        if held := sum(1 for _ in lines_of(chunk, (0, 0), start, wanted)):
            found.append(chunk)
            size += chunk.size
            count += held
    return found[::-1]


def lines_of(chunk: LogChunk, key: tuple[int, int], start: int, wanted: LogFilter) -> Iterator[Line]:
    """Those of a chunk's lines that end after byte `start` and are wanted; which replica's they are is not asked."""
    end = chunk.offset
    since_us = wanted.since_us
    matches = None if wanted.grep is None else matcher(wanted.grep)
    for raw in bytes(chunk.body).split(b"\n")[:-1]:
        end += len(raw) + 1
        if end <= start:
            continue
        stamp, mark, text = _parse(raw)
        if stamp >= since_us and wanted.stream in (None, mark) and (matches is None or matches(text)):
            yield Line(stamp, mark, key, end - len(raw) - 1, end, text)


def _parse(raw: bytes) -> tuple[int, Stream, str]:
    stamp, _, rest = raw.decode("utf-8", "replace").partition(" ")
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 18):  # what a node sent need not make sense
        return 0, Stream.SYSTEM, f"{stamp} {rest}"
    return int(stamp), _STREAMS.get(rest[:1], Stream.SYSTEM), rest[2:]


def _stamp(line: bytes) -> int:
    digits = line.partition(b" ")[0]
    if not digits.isdigit() or len(digits) > 18:
        raise Invalid(Field("/logs", "lines must begin with microseconds since the epoch"))
    return int(digits)
