"""Everything that supervisors write, to the control plane: in order, none of it twice, none of it lost."""

import dataclasses
import logging
import select
import signal
from collections.abc import Callable, Iterable
from contextlib import suppress
from threading import Event, Lock, Thread
from time import monotonic

from agent import journal, pokes, verdicts
from agent.appending import drop_torn
from agent.backoff import Backoff
from agent.cargo import LOG_BYTES, METRIC_POINTS, Cargo, Load
from agent.checkpointing import Checkpointer
from agent.clock import stamp
from agent.executors import EXECUTORS
from agent.layout import Home, ReplicaDir, write_json
from agent.link import Link
from agent.uploads import Porter
from trellis.errors import TrellisError, Unauthenticated, Unavailable
from trellis.vocabulary import StopReason
from trellis.wire import Held, Pause, Receipt, Report, Save, Shipment, Stop, World, pack

_log = logging.getLogger(__name__)
SHIPMENT_BYTES = 2 * 1024 * 1024
# The first few shipments after a calm leave almost at once; where they keep coming, more travels in each.
_GATHER_S, _GATHER_BUSY_S, _AT_ONCE, _CALM_S = 0.005, 0.03, 8, 0.3
_SWEEP_S = 1.0
_ASIDE_S = 30.0
_REMEMBERED = 100_000


class Shipper:
    """Two threads: one hears pokes, one ships. Only the second touches a replica's cargo."""

    def __init__(
        self, home: Home, link: Link, unknown: Callable[[], None], take_up: Callable[[ReplicaDir], bool]
    ) -> None:
        """`unknown` is called when the control plane does not know this node's token.

        `take_up` gives a replica another supervisor in place of one that died; it says whether that can be.
        """
        self._take_up = take_up
        self._home = home
        self._link = link
        self._unknown = unknown
        self._porter = Porter(home, link, self._artifacts_stored, unknown)
        self._checkpointer = Checkpointer(link, unknown, self._porter.store)
        self._cargos: dict[str, Cargo] = {}
        self._settled: dict[str, None] = {}
        self._touched: dict[str, None] = {}
        self._aside: dict[str, float] = {}
        self._lock = Lock()
        self._wake = Event()
        self._stopping = Event()
        self._shipments, self._shipped_at = 0, 0.0
        self._threads = [
            Thread(target=target, name=target.__name__.strip("_"), daemon=True) for target in (self._hear, self._run)
        ]

    def start(self) -> None:
        """Take up what an earlier daemon left, and begin."""
        self._poke_fd = pokes.listen(self._home.poke)
        for replica in self._home.find_replicas():
            self.adopt(replica)
        self._porter.start()
        self._checkpointer.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End; what is not shipped stays on disk."""
        self._stopping.set()
        self._wake.set()
        pokes.poke(self._home.poke)
        for thread in self._threads:
            thread.join()
        self._checkpointer.stop()
        self._porter.stop()
        for cargo in self._cargos.values():
            with suppress(OSError):  # a full disk: the next daemon sends it again
                cargo.save()

    def adopt(self, replica: ReplicaDir, *, saves: bool = False) -> None:
        """Ship for this replica from now on; `saves` is one that is about to save checkpoints."""
        name = replica.path.name
        with self._lock:
            if name not in self._cargos and name not in self._settled:
                self._cargos[name] = Cargo.resume(replica)
            self._touched[name] = None
        if saves or replica.plan.exists():
            self._checkpointer.watch(replica)
        self._wake.set()

    def knows(self, replica: ReplicaDir) -> bool:
        """Whether it was launched here: it may run, or be over and done with."""
        with self._lock:
            return replica.path.name in self._cargos or replica.path.name in self._settled

    def held(self) -> tuple[Held, ...]:
        """What this node has in hand."""
        with self._lock:
            cargos = [cargo for cargo in self._cargos.values() if not cargo.forgotten]
        return tuple(Held(cargo.replica.replica_id, cargo.replica.fence, cargo.state) for cargo in cargos)

    def leaving(self) -> list[ReplicaDir]:
        """What the control plane counts as gone, and is not yet."""
        with self._lock:
            forgotten = [cargo.replica for cargo in self._cargos.values() if cargo.forgotten]
        return [replica for replica in forgotten if replica.alive()]

    def save(self, wanted: Iterable[Save]) -> None:
        """Have these save a checkpoint soon."""
        self._checkpointer.ask(f"{one.replica_id}.{one.fence}" for one in wanted)

    def end(self, stop: Stop) -> None:
        """Have a replica's supervisor end it; one that is not here, or has ended, is left alone."""
        replica = self._home.replica(stop.replica_id, stop.fence)
        with self._lock:
            cargo = self._cargos.get(replica.path.name)
        if cargo is None:
            return
        try:
            write_json(replica.stop, {"reason": stop.reason, "grace_s": stop.grace_s})
        except OSError as error:  # a full disk, and it may be this one that fills it: it ends as where the node stops
            _log.error("could not note that %s is to end: %s", replica.path.name, error)
            replica.signal_supervisor(signal.SIGTERM)
            return
        if stop.reason is StopReason.STALE:  # not before the wish is safe: what is forgotten is not asked after again
            cargo.forgotten = True
        if not replica.signal_supervisor(signal.SIGUSR1):
            self._touch(replica.path.name)

    def pause(self, pause: Pause) -> None:
        """Have a replica's supervisor hold it still, or let it go on; one that is not here is left alone."""
        replica = self._home.replica(pause.replica_id, pause.fence)
        with self._lock:
            known = replica.path.name in self._cargos
        if known:
            with suppress(OSError):  # a full disk: it is asked for again, and the other orders must not wait for this
                write_json(replica.pause, {"paused": pause.paused, "checkpoint_s": pause.checkpoint_s})
            replica.signal_supervisor(signal.SIGUSR1)

    def begin(self, world: World) -> None:
        """Tell the supervisors of a gang that all of it is ready; those that are not here are left alone."""
        for name in world.ranks:
            replica = self._home.named(name)
            with self._lock:
                known = name in self._cargos
            if known and not replica.world.exists():
                with suppress(OSError):  # likewise
                    write_json(replica.world, pack(world))
                replica.signal_supervisor(signal.SIGUSR1)

    # Hearing

    def _hear(self) -> None:
        poller = select.poll()
        poller.register(self._poke_fd, select.POLLIN)
        while not self._stopping.is_set():
            poller.poll()
            names = pokes.drain(self._poke_fd).decode().split("\n")
            with self._lock:
                self._touched |= {name: None for name in names if name in self._cargos}
            self._wake.set()

    def _touch(self, *names: str) -> None:
        with self._lock:
            self._touched |= dict.fromkeys(names)
        self._wake.set()

    def _artifacts_stored(self, replica: ReplicaDir) -> None:
        with self._lock:
            cargo = self._cargos.get(replica.path.name)
        if cargo:
            cargo.ready = True
            self._touch(replica.path.name)

    # Shipping

    def _run(self) -> None:
        swept_at = monotonic()
        while not self._stopping.is_set():
            self._wake.wait(_SWEEP_S if self._cargos else None)
            if self._stopping.wait(self._pace()):
                return
            self._wake.clear()
            try:
                if monotonic() - swept_at >= _SWEEP_S:
                    swept_at = monotonic()
                    self._sweep()
                self._ship_touched()
            except OSError as error:  # a full disk; nothing is lost, the sweep comes by again
                _log.error("could not note what was shipped: %s", error)

    def _pace(self) -> float:
        """For how long to gather before the next shipment."""
        now = monotonic()
        self._shipments = 1 if now - self._shipped_at > _CALM_S else self._shipments + 1
        self._shipped_at = now
        return _GATHER_S if self._shipments <= _AT_ONCE else _GATHER_BUSY_S

    def _sweep(self) -> None:
        """Pokes may be lost, and a supervisor that was killed sends none.

        How far each replica is gets written down here and not at every shipment: a file is dear, most replicas are
        done before, and what is sent again after a crash is known there.
        """
        for name, cargo in list(self._cargos.items()):
            with suppress(OSError):  # a full disk: the next daemon sends again what is not noted
                cargo.save()
            if not cargo.ended and not cargo.forgotten and not cargo.replica.alive():
                self._bury(cargo)
            self._touch(name)

    def _bury(self, cargo: Cargo) -> None:
        """Its supervisor is gone. If it did not say how it ended, end what it left and say so for it."""
        entries = journal.read(cargo.replica.journal, 0)
        if entries and entries[-1].ended:
            return
        if cargo.replica.spec.exists() and self._take_up(cargo.replica):
            return
        self._end_leftovers(cargo.replica)
        replica, verdict = cargo.replica, verdicts.SUPERVISOR_GONE
        for path in (replica.log, replica.metrics):
            drop_torn(path)  # its end is told when they are there to the last byte
        book = journal.Journal.resume(replica.journal)
        report = Report(replica.replica_id, replica.fence, 0, verdict.state, stamp(), verdict.cause)
        book.append(dataclasses.replace(report, message=verdict.message))
        book.close()

    def _end_leftovers(self, replica: ReplicaDir) -> None:
        for executor in EXECUTORS.values():
            if running := executor.adopt(replica):
                executor.signal(running, signal.SIGKILL)

    def _ship_touched(self) -> None:
        with self._lock:
            names, self._touched = self._touched, {}
        loads = self._gather(names)
        if loads and not self._send(loads):
            self._touch(*loads)
        for name in names:
            self._settle(name)

    def _gather(self, names: dict[str, None]) -> dict[str, Load]:
        """Loads for one shipment; what does not fit stays touched."""
        loads: dict[str, Load] = {}
        ids: set[str] = set()
        left = SHIPMENT_BYTES
        for name in names:
            cargo = self._cargos.get(name)
            if cargo is None or cargo.forgotten or self._aside.get(name, 0.0) > monotonic():
                continue
            # A receipt speaks of replica ids: two fences of one replica can't share it.
            if left <= 0 or cargo.replica.replica_id in ids:
                self._touch(name)
                continue
            try:
                load = cargo.next_load()
            except (OSError, ValueError) as error:
                self._set_aside(name, f"can't be read: {error}")
                continue
            if load:
                loads[name] = load
                ids.add(cargo.replica.replica_id)
                left -= load.size_bytes
            if cargo.ended and not cargo.ready and not cargo.storing:
                cargo.storing = True
                # What it saved last first: its artifacts' being stored lets its end be told.
                store = self._checkpointer.finish if cargo.replica.plan.exists() else self._porter.store
                store(cargo.replica)
        return loads

    def _send(self, loads: dict[str, Load]) -> bool:
        """Ship these until the control plane has answered; False if it refused them together."""
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                receipt = self._link.ship(_pack(loads))
            except (Unavailable, Unauthenticated) as error:
                if isinstance(error, Unauthenticated):
                    self._unknown()
                backoff.wait(self._stopping)
            except TrellisError as error:
                return self._refused(loads, error)
            else:
                self._accept(loads, receipt)
                return True
        return False

    def _refused(self, loads: dict[str, Load], error: TrellisError) -> bool:
        """One load that can't be taken must not hold up the others."""
        if len(loads) > 1:
            sent = [self._send({name: load}) for name, load in loads.items()]
            return all(sent)
        (name,) = loads
        self._set_aside(name, f"is refused by the control plane: {error}")
        return True

    def _set_aside(self, name: str, why: str) -> None:
        _log.error("what %s reports %s; trying again in %d s", name, why, _ASIDE_S)
        self._aside[name] = monotonic() + _ASIDE_S

    def _accept(self, loads: dict[str, Load], receipt: Receipt) -> None:
        for name, load in loads.items():
            cargo = self._cargos[name]
            if cargo.replica.replica_id in receipt.stale:
                self.end(Stop(cargo.replica.replica_id, cargo.replica.fence, StopReason.STALE, 0))
                continue
            is_full = len(load.metrics) == METRIC_POINTS or (load.log and len(load.log.text) > LOG_BYTES // 2)
            if cargo.accept(receipt, load) and is_full:
                self._touch(name)  # there may be more

    def _settle(self, name: str) -> None:
        """Forget a replica that is done."""
        cargo = self._cargos.get(name)
        if cargo is not None and cargo.done and not cargo.replica.alive():
            with self._lock:
                del self._cargos[name]
                self._settled[name] = None
                if len(self._settled) > _REMEMBERED:
                    del self._settled[next(iter(self._settled))]
            self._aside.pop(name, None)
            if cargo.replica.container.exists():  # nobody was there to let go of it
                self._end_leftovers(cargo.replica)
            self._porter.remove(cargo.replica)


def _pack(loads: dict[str, Load]) -> Shipment:
    return Shipment(
        logs=tuple(load.log for load in loads.values() if load.log),
        metrics=tuple(point for load in loads.values() for point in load.points),
        reports=tuple(report for load in loads.values() for report in load.told),
    )
