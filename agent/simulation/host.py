"""Many simulated nodes in one process: it speaks for each as a node's own daemon would, but for many at once."""

import json
import logging
import os
import queue
from collections.abc import Callable, Iterable, Sequence
from threading import Event, Thread

from agent import clock
from agent.backoff import Backoff
from agent.executors.simulated import SimulatedExecutor
from agent.layout import lock_file, read_json, write_json
from agent.link import Link
from agent.simulation.book import Book
from agent.simulation.nodes import Breakdowns, nodes_of
from agent.simulation.roster import Roster
from agent.simulation.settings import HostSettings
from agent.simulation.stage import Parcel, Stage
from trellis.errors import TrellisError, Unauthenticated
from trellis.settings import SettingsError
from trellis.simulation import HostPlan
from trellis.wire import unpack

_log = logging.getLogger(__name__)
BEAT_AT_ONCE = 250
"""Nodes whose heartbeats travel together."""
_LAUNCH_AT_ONCE = 500
_GATHER_S = 0.02
_LOOK_S = 0.5


class Host:
    """Lives in one Celery worker, which listens to the queues of all its nodes.

    Three threads: one beats, one fetches what to launch, one plays and ships.
    """

    def __init__(self, settings: HostSettings, link: Link) -> None:
        """Raises SettingsError for a plan that can't be read."""
        plan = read_plan(settings)
        self._home = settings.home.resolve()
        self._link = link
        self._nodes = nodes_of(plan)
        executor = SimulatedExecutor(plan.simulation)
        self._stage = Stage(self._nodes, executor, Book(self._home / "performances.jsonl", executor))
        self._roster = Roster(self._home / "nodes.json", self._nodes, link, settings.join_token)
        self._breakdowns = Breakdowns(plan.simulation, self._nodes)
        self._wanted: queue.SimpleQueue[tuple[str, tuple[str, int]] | None] = queue.SimpleQueue()
        self._asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._due: dict[str, float] = dict.fromkeys(self._nodes, 0.0)
        self._look = Event()
        self._stopping = Event()
        self._lock_fd: int | None = None
        self._threads = [
            Thread(target=target, name=target.__name__.strip("_"), daemon=True)
            for target in (self._beat, self._launch, self._play)
        ]

    @property
    def broker_url(self) -> str:
        """Where the nodes' queues are; known once they have joined."""
        return self._roster.broker_url

    @property
    def queues(self) -> Sequence[str]:
        """Those of all nodes; known once they have joined."""
        return list(self._roster.by_queue)

    def join(self, told: Callable[[int, int], None] = lambda _joined, _of: None) -> None:
        """Take the home and let all nodes join; `told` hears how many of how many have.

        Raises: SettingsError if another host has the home; what `Link.register_all` raises.
        """
        if self._lock_fd is None:
            self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock_fd = lock_file(self._home / "host.lock")
        if self._lock_fd is None:
            raise SettingsError(f"another host runs on {self._home}: stop it, or give this one another home")
        self._roster.join(told)

    def start(self) -> None:
        """Go on with what an earlier process played, and begin. The nodes have joined."""
        kept = read_json(self._home / "lease.json")
        self._stage.restore(0.0 if kept is None else kept["ends_at"])
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End. What is played goes on, until the leases run out or another process takes it up."""
        self._stopping.set()
        self._look.set()
        self._wanted.put(None)
        self._stage.wake()
        for thread in self._threads:
            thread.join()
        self._stage.close()
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def request_launch(self, queue_name: str, pairs: Iterable[tuple[str, int]]) -> None:
        """Start these (replica id, fence) on the node that listens to that queue, if they are still wanted."""
        name = self._roster.by_queue[queue_name]
        for replica_id, fence in pairs:
            self._wanted.put((name, (replica_id, fence)))

    def request_look(self, queue_name: str) -> None:
        """Send a heartbeat of the node that listens to that queue now, and obey the answer."""
        self._asked.put(self._roster.by_queue[queue_name])
        self._look.set()

    # Heartbeats

    def _beat(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            self._look.clear()
            for name in self._breakdowns.repair():
                self._nodes[name].broken = False
            for name in self._breakdowns.strike():
                _log.info("%s breaks", name)
                self._stage.break_down(name)
            names = self._late()
            try:
                for start in range(0, len(names), BEAT_AT_ONCE):
                    self._beat_once(names[start : start + BEAT_AT_ONCE])
            except (TrellisError, OSError) as error:
                _log.warning("no heartbeat: %s", error)
                if isinstance(error, Unauthenticated):
                    self._join_again(names)
                backoff.wait(self._stopping)
            else:
                backoff.reset()
                self._look.wait(min(_LOOK_S, self._roster.heartbeat_s / 4))

    def _late(self) -> list[str]:
        """Whose heartbeat is due, and those of whom a message asked."""
        now = clock.boottime()
        asked = []
        while not self._asked.empty():
            asked.append(self._asked.get())
        late = [name for name, at in self._due.items() if at <= now]
        return [name for name in dict.fromkeys([*asked, *late]) if not self._nodes[name].broken]

    def _beat_once(self, names: Sequence[str]) -> None:
        asked_at = clock.boottime()
        orders = self._link.heartbeats(self._stage.heartbeats(names))
        for number, (name, given) in enumerate(zip(names, orders, strict=True)):
            self._stage.obey(name, given, asked_at)
            # After the first, each has a moment of its own: they come a few at a time from then on.
            share = 1.0 if self._due[name] else (number + 1) / len(names)
            self._due[name] = asked_at + given.heartbeat_s * share
        # Of the node that was heard longest ago: another process must not think that a lease lasts longer.
        write_json(self._home / "lease.json", {"ends_at": self._stage.lease_ends_at()})

    def _join_again(self, names: Sequence[str]) -> None:
        try:
            self._roster.join_again(names)
        except TrellisError as error:
            _log.warning("could not join again: %s", error)

    # Launching

    def _launch(self) -> None:
        while not self._stopping.is_set():
            wanted = {key: name for name, key in self._next_wanted() if not self._stage.knows(name, key)}
            if not wanted:
                continue
            tokens = dict.fromkeys(self._nodes[name].token for name in wanted.values())
            try:
                specs = self._link.fetch_specs_of(tokens, wanted).specs
            except TrellisError as error:  # the next heartbeat's orders name what should run here and does not
                _log.warning("could not fetch what to launch: %s", error)
                continue
            for spec in specs:
                self._stage.begin(wanted[spec.replica_id, spec.fence], [spec])

    def _next_wanted(self) -> list[tuple[str, tuple[str, int]]]:
        """Wait for something to launch, and take what else is there."""
        first = self._wanted.get()
        wanted = [] if first is None else [first]
        while not self._wanted.empty() and len(wanted) < _LAUNCH_AT_ONCE:
            if (more := self._wanted.get()) is not None:
                wanted.append(more)
        return wanted

    # Playing

    def _play(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            self._stage.wait(_LOOK_S)
            if self._stopping.wait(_GATHER_S):
                return
            try:
                parcel = self._stage.pack()
            except OSError as error:  # a full disk; what was to be written down is written the next time
                _log.error("could not note what is played: %s", error)
                backoff.wait(self._stopping)
                continue
            if parcel.senders and not self._shipped(parcel):
                backoff.wait(self._stopping)
            else:
                backoff.reset()

    def _shipped(self, parcel: Parcel) -> bool:
        """Deliver it. What can't be is packed again; tokens that are not known are the beating thread's to renew."""
        try:
            self._stage.accept(parcel, self._link.ship_of(parcel.tokens, parcel.shipment))
        except (TrellisError, OSError) as error:
            _log.warning("could not ship: %s", error)
            self._stage.give_back(parcel.senders)
            return False
        return True


def read_plan(settings: HostSettings) -> HostPlan:
    """What the host is to play. Raises SettingsError for a file that can't be read."""
    try:
        return unpack(HostPlan, json.loads(settings.plan.read_text()))
    except (OSError, ValueError) as error:
        raise SettingsError(f"the plan {settings.plan} can't be read: {error}") from error
