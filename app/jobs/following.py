"""Following a job's log: reading on whenever there is news, until the job has ended and everything was said."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from sqlalchemy.orm import Session, sessionmaker

from app.core.access import NOBODY, Actor, Permission
from app.core.live import Listener
from app.core.uow import UnitOfWork, run
from app.http.streaming import KEEP_ALIVE, Message
from app.jobs.logs import Cursor, LogFilter, Part, read_lines
from app.jobs.models import Job
from trellis.vocabulary import ENDED_JOB_STATES

KEEP_ALIVE_S = 15.0


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look at a job's log gave, and how the job stood just before."""

    part: Part
    ended: bool
    outcome: dict[str, Any]


class Follower:
    """Holds no transaction between two looks, and finds out anew at each who is asking (`who`)."""

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
        uow.actor = self._who(uow)
        job = uow.get(Job, self._job_id)  # its state first: lines that came before its end are then all there
        uow.require(Permission.JOB_READ, job.project_id)
        outcome = {"state": str(job.state), "exit_code": job.exit_code, "message": job.message}
        return Reading(read_lines(uow.session, job, wanted, self.cursor), job.state in ENDED_JOB_STATES, outcome)

    def stream(self, listener: Listener, wanted: LogFilter, first: Reading) -> Iterator[bytes]:
        """The messages of a stream, beginning with what was `first` read."""
        yield KEEP_ALIVE  # so that the answer's headers go out at once, however quiet the job
        yield from self._messages(first.part)
        wanted = replace(wanted, tail=None)
        with listener.subscribed(str(self._job_id)) as news:
            while True:
                news.clear()
                reading = self.read(wanted)
                yield from self._messages(reading.part)
                if reading.part.more:
                    continue
                if reading.ended:
                    yield Message("end", reading.outcome).encode()
                    return
                if not news.wait(KEEP_ALIVE_S):
                    yield KEEP_ALIVE

    def _messages(self, part: Part) -> Iterator[bytes]:
        """Each line with the cursor that stands right behind it, whatever was left out before it."""
        firsts = {line.key: line.start for line in reversed(part.lines)}
        self._told.offsets = firsts | self._told.offsets
        for line in part.lines:
            self._told.offsets[line.key] = line.end
            yield Message("log", line.as_json(), str(self._told)).encode()
        self._told.offsets |= self.cursor.offsets
