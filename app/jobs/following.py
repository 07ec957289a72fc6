"""Following a job's log: reading on whenever there is news, until the job has ended and everything was said."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from time import monotonic
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

from app.core.access import NOBODY, Actor, Permission
from app.core.uow import UnitOfWork, run
from app.http.streaming import KEEP_ALIVE, Message
from app.jobs.feeds import End, Feeds, Subscription
from app.jobs.logs import Cursor, LogFilter, Part, read_lines
from app.jobs.models import Job
from trellis.vocabulary import ENDED_JOB_STATES

KEEP_ALIVE_S = 15.0
# A right that was taken back is noticed within this time.
ASK_AGAIN_S = 5.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look at a job's log gave, and how the job stood just before."""

    part: Part
    ended: bool
    outcome: dict[str, Any]
    wanted: LogFilter


class Follower:
    """Holds no transaction while it waits, and finds out again and again who is asking (`who`)."""

    def __init__(
        self, sessions: sessionmaker[Session], who: Callable[[UnitOfWork], Actor], job_id: UUID, cursor: Cursor
    ) -> None:
        self._sessions, self._who, self._job_id = sessions, who, job_id
        self.cursor = cursor
        self._told = Cursor(dict(cursor.offsets))

    def read(self, wanted: LogFilter) -> Reading:
        """One look. Raises NotFound for a job that is not the caller's."""
        return run(self._sessions, NOBODY, lambda uow: self._read(uow, wanted))

    def _read(self, uow: UnitOfWork, wanted: LogFilter) -> Reading:
        job = self._job(uow)  # its state first: lines that came before its end are then all there
        outcome = {"state": str(job.state), "exit_code": job.exit_code, "message": job.message}
        wanted = wanted.at(uow.clock.now()) if isinstance(wanted.since, timedelta) else wanted
        return Reading(
            read_lines(uow.session, job, wanted, self.cursor), job.state in ENDED_JOB_STATES, outcome, wanted
        )

    def _job(self, uow: UnitOfWork) -> Job:
        """The job, if it is (still) the caller's."""
        uow.actor = self._who(uow)
        job = uow.get(Job, self._job_id)
        uow.require(Permission.JOB_READ, job.project_id)
        return job

    def stream(self, feeds: Feeds, first: Reading) -> Iterator[bytes]:
        """The messages of a stream, beginning with what was `first` read."""
        yield KEEP_ALIVE  # so that the answer's headers go out at once, however quiet the job
        yield from self._messages(first.part)
        wanted = replace(first.wanted, tail=None)
        with feeds.followed(self._job_id, wanted) as subscription:
            while True:  # once, and again whenever more has come than could be sent
                reading = self.read(wanted)
                yield from self._messages(reading.part)
                if reading.part.more:
                    continue
                if reading.ended:
                    yield Message("end", reading.outcome).encode()
                    return
                if (yield from self._live(subscription)):
                    return

    def _live(self, subscription: Subscription) -> Generator[bytes, None, bool]:
        """What comes, until it is the end (True), or too much of it lay there (False)."""
        asked_at = said_at = monotonic()
        while (items := subscription.take(min(KEEP_ALIVE_S, ASK_AGAIN_S))) is not None:
            fresh = b"".join(item.body if isinstance(item, End) else item.after(self.cursor) for item in items)
            if fresh:
                said_at = monotonic()
                yield fresh
            if any(isinstance(item, End) for item in items):
                return True
            if monotonic() - asked_at >= ASK_AGAIN_S:
                asked_at = monotonic()
                run(self._sessions, NOBODY, self._job)
            if monotonic() - said_at >= KEEP_ALIVE_S:
                said_at = monotonic()
                yield KEEP_ALIVE
        return False

    def _messages(self, part: Part) -> Iterator[bytes]:
        """Each line with the cursor that stands right behind it, whatever was left out before it."""
        firsts = {line.key: line.start for line in reversed(part.lines)}
        self._told.offsets = firsts | self._told.offsets
        for line in part.lines:
            self._told.offsets[line.key] = line.end
            yield Message("log", line.as_json(), str(self._told)).encode()
        self._told.offsets |= self.cursor.offsets
