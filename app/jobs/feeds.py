"""Live logs: read once a process, whatever the number of those who follow them.

One thread hears which jobs have news, gathers for a moment, reads what is new of all of them in three statements, puts it
into the form in which it is sent once for each set of filters, and hands the same bytes to every follower.
"""

import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import ARRAY, BigInteger, Uuid, any_, bindparam, column, func, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.orm import Session, sessionmaker

from app.core.live import Listener
from app.http.streaming import Message
from app.jobs.logs import Cursor, Line, LogFilter, lines_of
from app.jobs.models import Job, LogChunk, Replica
from trellis.vocabulary import ENDED_JOB_STATES, JobState

_log = logging.getLogger(__name__)
# News are gathered for so long: what a follower waits for at most, and how often the database is asked at most.
GATHER_S = 0.1
# As often all is looked at, should a notice have been lost.
SWEEP_S = 15.0
_RETRY_S = 1.0
# A follower that leaves so much lying is read for by itself, from where it is, until it has caught up.
UNREAD_BYTES = 4 << 20
_CHUNKS_AT_ONCE = 200
_JOBS_AT_ONCE = 500
Key = tuple[int, int]

_IDS = bindparam("ids", type_=ARRAY(Uuid))
_JOBS = select(Job.id, Job.state, Job.exit_code, Job.message).where(Job.id == any_(_IDS))
# A row's `index` is a method of its own.
_REPLICAS = select(Replica.id, Replica.job_id, Replica.number, Replica.index.label("place"), Replica.log_bytes).where(
    Replica.job_id == any_(_IDS)
)
_WANTED = (
    func.unnest(bindparam("replicas", type_=ARRAY(Uuid)), bindparam("offsets", type_=ARRAY(BigInteger)))
    .table_valued(column("replica_id", Uuid), column("start", BigInteger))
    .render_derived()
)
# Each replica's first chunks before any other's next: a job that prints without end holds up nobody.
_CHUNKS = (
    select(LogChunk)
    .join(_WANTED, (LogChunk.replica_id == _WANTED.c.replica_id) & (LogChunk.offset >= _WANTED.c.start))
    .order_by(LogChunk.offset - _WANTED.c.start, LogChunk.replica_id)
    .limit(_CHUNKS_AT_ONCE)
)


@dataclass(frozen=True, slots=True)
class Block:
    """Lines as they are sent, with what it takes to leave out those that a follower has: where each ends."""

    lines: Sequence[tuple[Key, int, bytes]]
    body: bytes
    firsts: Mapping[Key, int]
    ends: Mapping[Key, int]

    def after(self, had: Cursor) -> bytes:
        """What of it is new to whoever has come as far as `had`, which is moved on."""
        offsets = had.offsets
        if all(offsets.get(key, 0) <= start for key, start in self.firsts.items()):
            fresh = self.body
        else:
            fresh = b"".join(line for key, end, line in self.lines if end > offsets.get(key, 0))
        offsets |= {key: end for key, end in self.ends.items() if end > offsets.get(key, 0)}
        return fresh


@dataclass(frozen=True, slots=True)
class End:
    """The job has ended, and everything was said."""

    body: bytes


class Subscription:
    """What waits for one follower. The reading thread fills it, the follower's own empties it."""

    def __init__(self) -> None:
        self._waiting: deque[Block | End] = deque()
        self._bytes = 0
        self._guard = threading.Lock()
        self._filled = threading.Event()
        self._lost = False

    def put(self, item: Block | End) -> None:
        """Lay it there; where too much lies there already, all of it is let go of."""
        with self._guard:
            self._waiting.append(item)
            self._bytes += len(item.body)
            if self._bytes > UNREAD_BYTES:
                self._waiting.clear()
                self._bytes, self._lost = 0, True
        self._filled.set()

    def take(self, timeout_s: float) -> list[Block | End] | None:
        """What has come, after at most so long; None where some of it was let go of: read from the database instead."""
        self._filled.wait(timeout_s)
        with self._guard:
            self._filled.clear()
            taken, lost = list(self._waiting), self._lost
            self._waiting.clear()
            self._bytes, self._lost = 0, False
        return None if lost else taken


@dataclass(slots=True)
class _Feed:
    """One job's log as far as it was read here, and who follows it with which filters."""

    job_id: UUID
    cursor: dict[Key, int]
    hear: Callable[[], None]
    followers: dict[LogFilter, set[Subscription]] = field(default_factory=lambda: defaultdict(set))


@dataclass(slots=True)
class _News:
    """What one reading found of one job."""

    state: JobState
    outcome: dict[str, Any]
    chunks: list[tuple[Key, LogChunk]] = field(default_factory=list)
    more: bool = False


class Feeds:
    """All logs that are followed in this process."""

    def __init__(self, sessions: sessionmaker[Session], listener: Listener) -> None:
        self._sessions, self._listener = sessions, listener
        self._feeds: dict[UUID, _Feed] = {}
        self._touched: set[UUID] = set()
        self._guard, self._noting = threading.Lock(), threading.Lock()
        self._wake = threading.Event()
        self._thread: threading.Thread | None = None

    @contextmanager
    def followed(self, job_id: UUID, wanted: LogFilter) -> Iterator[Subscription]:
        """What comes of a job from about now on; whoever reads the database after this misses nothing."""
        mine = Subscription()
        with self._guard:
            feed = self._feeds.get(job_id) or self._begin(job_id)
            feed.followers[wanted].add(mine)
        try:
            yield mine
        finally:
            with self._guard:
                feed.followers[wanted].discard(mine)
                if not feed.followers[wanted]:
                    del feed.followers[wanted]
                if not feed.followers:
                    self._listener.remove(str(job_id), feed.hear)
                    del self._feeds[job_id]

    def _begin(self, job_id: UUID) -> _Feed:
        feed = _Feed(job_id, {}, partial(self._hear, job_id))
        self._listener.add(str(job_id), feed.hear)  # first: what is committed after the look below is told of
        try:
            with self._sessions() as session:
                found = session.execute(_REPLICAS, {"ids": [job_id]}).all()
        except (DBAPIError, PoolTimeout):
            self._listener.remove(str(job_id), feed.hear)
            raise
        feed.cursor = {(row.number, row.place): row.log_bytes for row in found}
        self._feeds[job_id] = feed
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._run, name="feeds", daemon=True)
            self._thread.start()
        return feed

    def _hear(self, job_id: UUID) -> None:
        # Called by the listening thread: no lock that is ever held for longer than a moment.
        with self._noting:
            self._touched.add(job_id)
        self._wake.set()

    def _run(self) -> None:
        read_at = 0.0
        while True:
            swept = not self._wake.wait(SWEEP_S)
            time.sleep(max(0.0, read_at + GATHER_S - time.monotonic()))  # the first news after a calm are read at once
            read_at = time.monotonic()
            self._wake.clear()
            with self._noting:
                touched, self._touched = self._touched, set()
            with self._guard:
                feeds = [feed for job_id, feed in self._feeds.items() if swept or job_id in touched]
            for start in range(0, len(feeds), _JOBS_AT_ONCE):
                self._serve(feeds[start : start + _JOBS_AT_ONCE])

    def _serve(self, feeds: list[_Feed]) -> None:
        try:
            with self._sessions() as session:
                news = _read(session, {feed.job_id: feed.cursor for feed in feeds})
        except (DBAPIError, PoolTimeout) as error:
            _log.warning("followed logs could not be read, trying again: %s", type(error).__name__)
            time.sleep(_RETRY_S)
            for feed in feeds:
                self._hear(feed.job_id)
            return
        for feed in feeds:
            if found := news.get(feed.job_id):
                self._hand_out(feed, found)

    def _hand_out(self, feed: _Feed, news: _News) -> None:
        before = dict(feed.cursor)
        feed.cursor |= {key: chunk.offset + chunk.size for key, chunk in news.chunks}
        with self._guard:
            followers = {wanted: list(some) for wanted, some in feed.followers.items()}
        ended = news.state in ENDED_JOB_STATES and not news.more
        for wanted, some in followers.items():
            block = _encode(news.chunks, wanted, before, feed.cursor)
            for follower in some:
                if news.chunks:
                    follower.put(block)
                if ended:
                    follower.put(End(Message("end", news.outcome).encode()))
        if news.more:
            self._hear(feed.job_id)


def _read(session: Session, cursors: Mapping[UUID, Mapping[Key, int]]) -> dict[UUID, _News]:
    """What is new of these jobs; their states first: lines that came before an end are then all there."""
    ids = {"ids": list(cursors)}
    news = {
        row.id: _News(row.state, {"state": str(row.state), "exit_code": row.exit_code, "message": row.message})
        for row in session.execute(_JOBS, ids)
    }
    behind: dict[UUID, tuple[UUID, Key, int, int]] = {}
    for row in session.execute(_REPLICAS, ids):
        key, start = (row.number, row.place), cursors[row.job_id].get((row.number, row.place), 0)
        if row.log_bytes > start:
            behind[row.id] = (row.job_id, key, start, row.log_bytes)
    if not behind:
        return news
    values = {"replicas": list(behind), "offsets": [start for _, _, start, _ in behind.values()]}
    chunks = session.execute(_CHUNKS, values).scalars().all()
    reached: dict[UUID, int] = {}
    for chunk in chunks:
        job_id, key, _, _ = behind[chunk.replica_id]
        news[job_id].chunks.append((key, chunk))
        reached[chunk.replica_id] = chunk.offset + chunk.size
    if len(chunks) == _CHUNKS_AT_ONCE:
        for replica_id, (job_id, _, start, end) in behind.items():
            news[job_id].more |= reached.get(replica_id, start) < end
    return news


def _encode(
    chunks: Sequence[tuple[Key, LogChunk]], wanted: LogFilter, before: Mapping[Key, int], after: Mapping[Key, int]
) -> Block:
    """Lines in order of time, each with the cursor that stands right behind it."""
    lines: list[Line] = []
    for key, chunk in chunks:
        if wanted.takes(key):
            lines += lines_of(chunk, key, before.get(key, 0), wanted)
    lines.sort(key=lambda line: (line.us, line.key, line.end))
    told = Cursor(dict(before))
    encoded = []
    for line in lines:
        told.offsets[line.key] = line.end
        encoded.append((line.key, line.end, Message("log", line.as_json(), str(told)).encode()))
    firsts: dict[Key, int] = {}
    for key, chunk in chunks:
        firsts.setdefault(key, chunk.offset)
    ends = {key: after[key] for key in firsts}
    return Block(encoded, b"".join(line for _, _, line in encoded), firsts, ends)
