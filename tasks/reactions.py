"""Who hears what: the one table from kinds of events to tasks.

Subjects of several events for one task and queue travel in one message, as a list.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from app.pipelines.launching import OWNER
from app.scheduling.cycle import LOCK
from tasks import queues

LARGEST_MESSAGE = 200


class Happened(Protocol):
    """What a reaction may look at."""

    kind: str
    subject_id: UUID
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class To:
    """A task to be sent to `queue` with what `about` says of each event; without `about` it takes nothing.

    when: which events it is sent for; all, if not said.
    turn: the turn (`app.core.locks.take_turn`) that the task waits for: it need not be sent while another waits.
    """

    task: str
    queue: Callable[[Happened], str]
    about: Callable[[Happened], Any] | None = None
    when: Callable[[Happened], bool] | None = None
    turn: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """What goes to the broker."""

    task: str
    queue: str
    arguments: tuple[list[Any], ...]
    turn: str = ""


def _control(_: Happened) -> str:
    return queues.CONTROL


def _scheduling(_: Happened) -> str:
    return queues.SCHEDULING


def _node(event: Happened) -> str:
    return queues.node_queue(event.data["node_id"])


def _id(event: Happened) -> str:
    return str(event.subject_id)


def _id_and_fence(event: Happened) -> list[Any]:
    return [str(event.subject_id), event.data["fence"]]


def _is_awaited(event: Happened) -> bool:
    return bool(event.data.get("awaited", True))


def _owner(event: Happened) -> str:
    return str(event.data["owner_id"])


def _is_of_a_run(event: Happened) -> bool:
    return event.data.get("owner_kind") == OWNER


PLAN = To("tasks.scheduling.run_cycle", _scheduling, turn=LOCK)
ADVANCE = To("tasks.pipelines.advance_runs", _control, _owner, when=_is_of_a_run)
BEGIN = To("tasks.pipelines.advance_runs", _control, _id)
RELEASE = To("tasks.jobs.release_dependents", _control, _id, when=_is_awaited)
EMPTY = To("tasks.resources.empty_nodes", _control)
LAUNCH = To("tasks.node.launch_replicas", _node, _id_and_fence)
STOP = To("tasks.node.stop_replicas", _node, _id_and_fence)

REACTIONS: Mapping[str, Sequence[To]] = {
    "job.queued": [PLAN],
    "job.retrying": [PLAN],
    "job.succeeded": [PLAN, RELEASE, ADVANCE],
    "job.failed": [PLAN, RELEASE, ADVANCE],
    "job.cancelled": [PLAN, RELEASE, ADVANCE],
    "job.timed_out": [PLAN, RELEASE, ADVANCE],
    "job.lost": [PLAN, RELEASE, ADVANCE],
    "pipeline_run.queued": [BEGIN],
    "job.suspended": [PLAN],
    "replica.placed": [LAUNCH],
    "replica.stop_asked": [STOP],
    "replica.suspend_asked": [STOP],
    "replica.resume_asked": [STOP],
    "replica.checkpoint_asked": [STOP],
    "replica.gang_ready": [STOP],
    "node.joined": [PLAN],
    "node.ready": [PLAN],
    "node.lost": [PLAN],
    "node.changed": [PLAN],
    "node.draining": [EMPTY],
    "node.quarantined": [EMPTY],
    "topology.changed": [PLAN],
    "pool.created": [PLAN],
    "pool.changed": [PLAN],
    "pool.removed": [PLAN],
    "allocation.released": [PLAN],
    "reservation.active": [PLAN],
    "reservation.ended": [PLAN],
    "reservation.cancelled": [PLAN],
    "policy.changed": [PLAN],
    "quota.changed": [PLAN],
    "quota.burst_rested": [PLAN],
    "queue.open": [PLAN],
    "queue.changed": [PLAN],
}


def messages_for(events: Iterable[Happened]) -> list[Message]:
    """What must be sent because of `events`: one message a task and queue, split where it grows too long."""
    grouped: dict[tuple[To, str], list[Any]] = {}
    for event in events:
        for to in REACTIONS.get(event.kind, ()):
            if to.when is not None and not to.when(event):
                continue
            about = grouped.setdefault((to, to.queue(event)), [])
            if to.about is not None and (subject := to.about(event)) not in about[-1:]:
                about.append(subject)
    return [
        Message(to.task, queue, (part,) if part else (), to.turn)
        for (to, queue), about in grouped.items()
        for part in _parts(about)
    ]


def _parts(about: list[Any]) -> Iterable[list[Any]]:
    return [about[i : i + LARGEST_MESSAGE] for i in range(0, len(about), LARGEST_MESSAGE)] or [[]]
