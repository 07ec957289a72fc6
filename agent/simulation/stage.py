"""All that a host plays at one time: who does what next, and what of it the control plane has yet to hear."""

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from threading import Condition

from agent import clock
from agent.executors.base import StartFailed
from agent.executors.simulated import Part, SimulatedExecutor
from agent.simulation.book import Book
from agent.simulation.nodes import SimulatedNode
from agent.simulation.performance import Key, Load, Performance
from trellis.vocabulary import StopReason
from trellis.wire import Heartbeat, Orders, Receipt, ReplicaSpec, Shipment

AT_ONCE = 300
"""Replicas in one shipment."""
MOST_BYTES = 1 << 20
_AGAIN_S = 0.2
_REMEMBERED = 200_000
_NEVER = float("inf")


@dataclass(frozen=True, slots=True)
class Parcel:
    """One shipment, the tokens of the nodes that it is of, and whose loads are in it."""

    tokens: tuple[str, ...]
    shipment: Shipment
    senders: tuple[Performance, ...]


class Stage:
    """Any thread may call; nobody waits for the control plane in here."""

    def __init__(self, nodes: Mapping[str, SimulatedNode], executor: SimulatedExecutor, book: Book) -> None:
        self._nodes, self._executor, self._book = nodes, executor, book
        self._turn = Condition()
        self._coming: list[tuple[float, Key]] = []
        self._due: dict[Key, float] = {}
        self._on: dict[Key, Performance] = {}
        self._noted: dict[Key, int] = {}
        self._settled: dict[Key, None] = {}

    def __len__(self) -> int:
        return len(self._on)

    def restore(self, lease_ends_at: float) -> None:
        """Go on with what an earlier process played, whose leases lasted until then (boot time)."""
        with self._turn:
            for performance in self._book.open():
                if performance.node in self._nodes:
                    self._noted[performance.key] = len(performance.reports)
                    self._enter(performance)
            for node in self._nodes.values():
                node.lease_ends_at = lease_ends_at
                self._cut_off(node)

    def close(self) -> None:
        """Let go of the book; what is played is in it."""
        with self._turn:
            self._book.close()

    def wake(self) -> None:
        """Whoever waits is to look again."""
        with self._turn:
            self._turn.notify_all()

    # What the control plane wants

    def knows(self, name: str, key: Key) -> bool:
        """Whether it was launched on that node: it may be played, or over and done with."""
        return key in self._nodes[name].performances or key in self._settled

    def begin(self, name: str, specs: Iterable[ReplicaSpec]) -> None:
        """Begin what never was: not even one that has ended and been forgotten is played a second time."""
        node = self._nodes[name]
        with self._turn:
            now, now_us = clock.boottime(), clock.micros()
            for spec in specs:
                if not (node.broken or node.lease_ends_at <= now or self.knows(name, (spec.replica_id, spec.fence))):
                    self._enter(self._begun(node, Part.of(spec), now, now_us))
            self._turn.notify_all()

    def obey(self, name: str, orders: Orders, asked_at: float) -> None:
        """Renew the lease of a node that asked at `asked_at`; end and begin what the answer says."""
        node = self._nodes[name]
        with self._turn:
            self._cut_off(node)
            node.lease_ends_at = asked_at + orders.lease_s
            for stop in orders.stop:
                if performance := node.performances.get((stop.replica_id, stop.fence)):
                    performance.wish(stop.reason, stop.grace_s, clock.boottime())
                    self._touch(performance.key)
            for pause in orders.pause:  # a play can't be held still: it ends, and its job begins anew
                performance = node.performances.get((pause.replica_id, pause.fence))
                if performance and pause.paused:
                    performance.wish(StopReason.DISPLACED, pause.checkpoint_s, clock.boottime())
                    self._touch(performance.key)
        if orders.launch:
            self.begin(name, orders.launch)

    def _cut_off(self, node: SimulatedNode) -> None:
        """What a lease that is over has ended stays ended, though the next one begins before anybody looked."""
        now = clock.boottime()
        if node.lease_ends_at <= now:
            for performance in node.performances.values():
                performance.advance(now, node.lease_ends_at)
                self._touch(performance.key)

    def heartbeats(self, names: Iterable[str]) -> dict[str, Heartbeat]:
        """Those of these nodes, by their tokens."""
        with self._turn:
            return {self._nodes[name].token: self._nodes[name].heartbeat() for name in names}

    def lease_ends_at(self) -> float:
        """The end of the first lease to end, of the nodes that are whole."""
        return min((node.lease_ends_at for node in self._nodes.values() if not node.broken), default=0.0)

    def break_down(self, name: str) -> None:
        """A node is gone, and all that was played there."""
        node = self._nodes[name]
        with self._turn:
            node.broken = True
            for performance in node.performances.values():
                performance.wish(StopReason.STALE, 0, clock.boottime())
                self._touch(performance.key)

    # Playing

    def wait(self, at_most_s: float) -> None:
        """Wait until something is due."""
        with self._turn:
            due_in_s = self._coming[0][0] - clock.boottime() if self._coming else _NEVER
            if due_in_s > 0:
                self._turn.wait(min(due_in_s, at_most_s))

    def pack(self) -> Parcel:
        """Play on until now; what is to be told of it, of AT_ONCE replicas at most.

        Raises: OSError when it can't be written down; then it is still to be told.
        """
        with self._turn:
            now, loads, left_bytes = clock.boottime(), dict[Key, Load](), MOST_BYTES
            played = []
            while self._coming and self._coming[0][0] <= now and len(loads) < AT_ONCE and left_bytes > 0:
                due_at, key = heapq.heappop(self._coming)
                if self._due.get(key) != due_at:
                    continue
                performance = self._on[key]
                node = self._nodes[performance.node]
                performance.advance(now, node.lease_ends_at)
                played.append(performance)
                if load := performance.load():
                    loads[key] = load
                    left_bytes -= load.size_bytes
                self._expect(performance)
            try:
                self._note(played)
            except OSError:
                for performance in played:
                    self._touch(performance.key)
                raise
            senders = tuple(self._on[key] for key in loads)
            tokens = {self._nodes[one.node].token: None for one in senders}
            return Parcel(tuple(tokens), _shipment(loads.values()), senders)

    def accept(self, parcel: Parcel, receipt: Receipt) -> None:
        """Note what the control plane has now; it no longer wants to hear of those that are stale."""
        with self._turn:
            stale = set(receipt.stale)
            for performance in parcel.senders:
                if performance.part.replica_id in stale:
                    performance.wish(StopReason.STALE, 0, clock.boottime())
                else:
                    performance.accept(receipt)
                self._expect(performance)
                if performance.load():  # there is more, or not all of it was taken
                    self._schedule(performance.key, clock.boottime() + _AGAIN_S)
            self._note(parcel.senders)

    def give_back(self, senders: Collection[Performance]) -> None:
        """It could not be delivered: it is due again."""
        with self._turn:
            for performance in senders:
                self._touch(performance.key)

    def _begun(self, node: SimulatedNode, part: Part, now: float, now_us: int) -> Performance:
        try:
            performance = Performance(self._executor, part, node.name, self._executor.start(part, now, now_us))
            performance.begin(now)
        except StartFailed as error:
            performance = Performance(self._executor, part, node.name, None)
            performance.fail_to_start(str(error), now_us)
        return performance

    def _enter(self, performance: Performance) -> None:
        self._on[performance.key] = performance
        self._nodes[performance.node].performances[performance.key] = performance
        self._touch(performance.key)

    def _touch(self, key: Key) -> None:
        """Whatever it is waiting for, look at it now."""
        if key in self._on:
            self._schedule(key, 0.0)
            self._turn.notify_all()

    def _expect(self, performance: Performance) -> None:
        """Look at it again when it next does something; at one that is over, never."""
        key = performance.key
        if performance.done:
            self._on.pop(key, None)
            self._due.pop(key, None)
            self._nodes[performance.node].performances.pop(key, None)
            self._settled[key] = None
            if len(self._settled) > _REMEMBERED:
                del self._settled[next(iter(self._settled))]
        elif key in self._on:
            self._schedule(key, performance.due_at(self._nodes[performance.node].lease_ends_at))

    def _schedule(self, key: Key, due_at: float) -> None:
        if due_at < _NEVER:
            self._due[key] = due_at
            heapq.heappush(self._coming, (due_at, key))

    def _note(self, performances: Sequence[Performance]) -> None:
        """Write down those that began or ended: before the control plane hears of it, and after it has heard all."""
        changed = [one for one in performances if one.done or self._noted.get(one.key) != len(one.reports)]
        if not changed:
            return
        self._book.note(changed, self._on.values())
        for one in changed:
            if one.done:
                self._noted.pop(one.key, None)
            else:
                self._noted[one.key] = len(one.reports)


def _shipment(loads: Collection[Load]) -> Shipment:
    return Shipment(
        logs=tuple(load.log for load in loads if load.log),
        metrics=tuple(point for load in loads for point in load.metrics),
        reports=tuple(report for load in loads for report in load.reports),
    )
