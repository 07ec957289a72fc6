"""The node's one speaker: keeps the lease, obeys orders, launches, and ships what supervisors write."""

import logging
import os
import queue
import socket
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from threading import Event, Lock, Thread

from agent import clock, isolation, lease
from agent.backoff import Backoff
from agent.containers import enclosure, tidying
from agent.environments import Sources, keep_sources
from agent.executors import EXECUTORS
from agent.ground import Ground, Hooks
from agent.health.checks import Check, check_disk, check_memory, check_programs
from agent.health.devices import DeviceCheck
from agent.health.watch import HealthWatch, check_by_hook
from agent.hooks import note, noted, run_hook
from agent.launching import Launcher
from agent.layout import Home, ReplicaDir, lock_file, read_json, write_json
from agent.link import Link, Specs
from agent.ports import parse_ports
from agent.provisioning import Caches, Order, Provisioner
from agent.rendezvous import own_address
from agent.restoring import Restorer
from agent.settings import NodeSettings
from agent.shipper import Shipper
from agent.telemetry import Telemetry
from trellis.errors import Forbidden, NotFound, TrellisError, Unauthenticated
from trellis.settings import SettingsError
from trellis.units import parse_bytes
from trellis.vocabulary import StopReason
from trellis.wire import HookRun, Orders, ReplicaSpec, Stop, Welcome

_log = logging.getLogger(__name__)
_LAUNCH_LEASE_WAIT_S = 5.0
_REJOIN_EVERY_S = 5.0
_MAKE_WAY_S = 5.0
_LOOK_AGAIN_S = 0.01
_TAKEN_UP_AT_MOST = 5
MOST_HOOK_S = 600.0
LEAST_HEALTH_S = 0.1


class Daemon:
    """Lives in the node's Celery worker. Supervisors outlive it; the next one takes them up."""

    def __init__(self, settings: NodeSettings, link: Link) -> None:
        """Raises SettingsError for a profile that is not known, and for an amount that is none."""
        self._settings = settings
        self._link = link
        self._home = Home(settings.home.resolve())
        self._caches = Caches(
            _bytes("TRELLIS_CODE_CACHE", settings.code_cache),
            _bytes("TRELLIS_ENVIRONMENT_CACHE", settings.environment_cache),
        )
        self._ports = _ports("TRELLIS_PORTS", settings.ports)
        self._telemetry = Telemetry(settings)
        self._shipper = Shipper(self._home, link, self._rejoin, self._take_up)
        self._taken_up: Counter[str] = Counter()
        self._wanted: queue.SimpleQueue[tuple[str, int] | ReplicaSpec | None] = queue.SimpleQueue()
        self._look = Event()
        self._leased = Event()
        self._stopping = Event()
        self._joining = Lock()
        self._joined_at = 0.0
        self._welcome: Welcome | None = None
        self._ground: Ground | None = None
        self._lock_fd: int | None = None
        self._provisioned = False
        self._health: HealthWatch | None = None
        self._threads = [
            Thread(target=target, name=target.__name__.strip("_"), daemon=True) for target in (self._beat, self._launch)
        ]

    def join(self) -> Welcome:
        """Take the home, find out what this machine is, and register it; the answer names the node's queue and broker.

        Raises: SettingsError if another daemon has the home, the isolation level can't be reached, the operator's program
        for it fails or there is no token that the control plane takes; Unavailable if it can't be reached.
        """
        ground = self._take_home()
        if self._welcome is None:
            self._provision(ground)
        self._welcome = self._register(ground)
        write_json(self._home.identity, {"node_id": self._welcome.node_id, "token": self._welcome.token})
        return self._welcome

    def start(self) -> None:
        """Begin; joins first if that was not done. Raises what `join` raises."""
        if self._welcome is None:
            self.join()
        self._reap(self._take_home())
        self._launcher = Launcher(self._take_home())
        self._launcher.warm()
        tidying.remove_orphans(self._take_home())
        self._provisioner = Provisioner(self._take_home(), self._link, self._caches, self._rejoin)
        self._provisioner.start()
        self._restorer = Restorer(self._take_home(), self._link, self._wanted.put)
        self._restorer.start()
        self._shipper.start()
        self._health = HealthWatch(self._checks(self._take_home()), self._settings.health_every_s)
        self._health.start()
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End. Supervisors and their jobs go on, until the lease runs out or another daemon takes them up."""
        self._stopping.set()
        self._look.set()
        self._leased.set()
        self._wanted.put(None)
        for thread in self._threads:
            thread.join()
        if self._health is not None:
            self._health.stop()
        self._provisioner.stop()
        self._restorer.stop()
        self._shipper.stop()
        self._launcher.close()
        if self._ground is not None:
            self._ground.cgroups.leave()
            enclosure.leave(self._ground.site.hierarchies, self._ground.home_path)
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def request_launch(self, pairs: Iterable[tuple[str, int]]) -> None:
        """Start these (replica id, fence) soon, if the control plane still wants them. Raises ValueError for no id."""
        for replica_id, fence in pairs:
            self._home.replica(replica_id, fence)
            self._wanted.put((replica_id, fence))

    def request_look(self) -> None:
        """Send a heartbeat now and obey the answer."""
        self._look.set()

    # Joining

    def _take_home(self) -> Ground:
        """Make the home ours, and find out once how far jobs can be kept in."""
        if self._ground is None:
            os.umask(0o022)  # the modes in our code are meant as written, whoever started the node
            self._home.create()
            self._lock_fd = lock_file(self._home.path / "daemon.lock")
            if self._lock_fd is None:
                raise SettingsError(f"another node runs on {self._home.path}: stop it, or give this one another home")
            keep_sources(self._home, Sources(self._settings.package_index, self._settings.package_links))
            ground = isolation.settle(self._settings, self._telemetry.devices())
            address = self._settings.address or own_address(self._settings.url)
            self._ground = replace(
                ground,
                slices=self._telemetry.slices(),
                address=address,
                ports=self._ports,
                hooks=hooks_of(self._settings),
            )
        return self._ground

    def _provision(self, ground: Ground) -> None:
        """Let the operator's program make the machine ready, once; where it fails the node does not join."""
        if not ground.hooks.join or self._provisioned:
            return
        ran = run_hook(ground.hooks.join, "join", ground.hooks, {})
        if ran.code:
            raise SettingsError(f"the program that makes this node ready {ran.why}")
        self._provisioned = True
        note(ground.home, HookRun("join", ok=True, output=ran.output))

    def _reap(self, ground: Ground) -> None:
        """End what an earlier agent started of which nothing is on record any more: nobody else will."""
        for name in ground.cgroups.reap([replica.path.name for replica in self._home.find_replicas()]):
            _log.warning("what was left of %s is ended: nothing is known of it here", name)

    def _register(self, ground: Ground) -> Welcome:
        description = self._telemetry.describe(ground)
        stored = read_json(self._home.identity) or {}
        tokens = [token for token in (stored.get("token"), self._settings.join_token) if token]
        refusal = "the node has no token: give it a join token"
        for token in tokens:
            try:
                return self._link.register(description, token)
            except (Unauthenticated, Forbidden, NotFound) as error:
                refusal = f"the control plane at {self._settings.url} does not take this node's token: {error}"
        raise SettingsError(refusal)

    def _rejoin(self) -> None:
        """The control plane no longer knows the node's token: come back, but do not hammer."""
        with self._joining:
            if clock.boottime() - self._joined_at < _REJOIN_EVERY_S:
                return
            self._joined_at = clock.boottime()
            try:
                self.join()
            except (TrellisError, SettingsError) as error:
                _log.warning("could not join again: %s", error)

    # Heartbeat

    def _beat(self) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            self._look.clear()
            try:
                heartbeat_s = self._beat_once()
            except (TrellisError, OSError) as error:
                _log.warning("no heartbeat: %s", error)
                if isinstance(error, Unauthenticated):
                    self._rejoin()
                backoff.wait(self._stopping)
            else:
                backoff.reset()
                self._look.wait(heartbeat_s)

    def _beat_once(self) -> float:
        asked_at = clock.boottime()
        told = noted(self._home)
        beat = self._telemetry.heartbeat(self._shipper.held())
        checkup = self._health.latest if self._health else None
        orders = self._link.heartbeat(replace(beat, at=clock.stamp(), checkup=checkup, hooks=tuple(told.values())))
        for path in told:
            path.unlink(missing_ok=True)
        lease.renew(self._home, asked_at, orders.lease_s)
        self._leased.set()
        self._obey(orders)
        return orders.heartbeat_s

    def _obey(self, orders: Orders) -> None:
        for stop in orders.stop:
            self._shipper.end(stop)
        for pause in orders.pause:
            self._shipper.pause(pause)
        self._shipper.save(orders.save)
        for world in orders.begin:
            self._shipper.begin(world)
        for spec in orders.launch:
            self._wanted.put(spec)
        self._launcher.warm()

    def _checks(self, ground: Ground) -> list[Check]:
        checks: list[Check] = [
            partial(check_disk, self._home.path), check_memory, partial(check_programs, ground.confinement),
        ]  # fmt: skip
        if states := self._telemetry.states():
            checks.append(DeviceCheck(states))
        if ground.hooks.health:
            checks.append(partial(check_by_hook, ground.hooks))
        return checks

    # Launching

    def _launch(self) -> None:
        self._leased.wait()
        while not self._stopping.is_set():
            wanted = self._next_wanted()
            specs = [want for want in wanted if isinstance(want, ReplicaSpec)]
            pairs = [want for want in wanted if isinstance(want, tuple)]
            # Whatever fails, the next heartbeat's orders name what should run here and does not.
            try:
                specs += self._fetch(pairs)
            except TrellisError as error:
                _log.warning("could not fetch what to launch: %s", error)
            try:
                self._launch_specs(specs)
            except (OSError, EOFError, ValueError) as error:
                _log.error("could not launch: %s", error)

    def _next_wanted(self) -> list[tuple[str, int] | ReplicaSpec]:
        """Wait for something to launch, and take all that is there."""
        first = self._wanted.get()
        wanted = [] if first is None else [first]
        while not self._wanted.empty():
            if (more := self._wanted.get()) is not None:
                wanted.append(more)
        return wanted

    def _fetch(self, pairs: list[tuple[str, int]]) -> tuple[ReplicaSpec, ...]:
        new = [pair for pair in dict.fromkeys(pairs) if not self._shipper.knows(self._home.replica(*pair))]
        found = self._link.fetch_specs(new) if new else Specs((), ())
        for replica_id in found.stale:
            self._restorer.drop(replica_id)
        return found.specs

    def _launch_specs(self, specs: list[ReplicaSpec]) -> None:
        """Launch those that never were: not even one that has ended and been forgotten runs a second time."""
        new = {self._home.replica(spec.replica_id, spec.fence): spec for spec in specs}
        new = {replica: spec for replica, spec in new.items() if not self._shipper.knows(replica)}
        new = {replica: spec for replica, spec in new.items() if self._make_way(spec.after)}
        new = {replica: spec for replica, spec in new.items() if not self._restorer.must_wait(spec)}
        if not new or not self._hold_lease():
            return
        failed = self._launcher.launch(list(new.values()))
        for replica, spec in new.items():
            if replica.replica_id in failed:
                _log.error("could not launch %s: %s", replica.path.name, failed[replica.replica_id])
            else:
                self._shipper.adopt(replica, saves=spec.checkpoint is not None)
                if spec.code:
                    self._provisioner.supply(Order.of(replica, spec.project_id, spec.code))

    def _take_up(self, replica: ReplicaDir) -> bool:
        """Have a replica that outlived its supervisor supervised again, unless that failed too often."""
        self._taken_up[replica.path.name] += 1
        if self._taken_up[replica.path.name] > _TAKEN_UP_AT_MOST:
            return False
        try:
            failed = self._launcher.take_up(replica)
        except (OSError, EOFError) as error:
            failed = {replica.path.name: str(error)}
        for name, why in failed.items():
            _log.error("could not take up %s: %s", name, why)
        return True  # where it failed, the next sweep tries again

    def _make_way(self, names: Iterable[str]) -> bool:
        """End what is suspended where something is to start, and wait a little for it and for what is stale to be gone.

        If not, the next heartbeat's orders name again what is to start.
        """
        suspended = [self._home.named(name) for name in names]
        for replica in suspended:
            self._shipper.end(Stop(replica.replica_id, replica.fence, StopReason.DISPLACED, 0))
        leaving = [*suspended, *self._shipper.leaving()]
        deadline = clock.boottime() + _MAKE_WAY_S
        while leaving := [replica for replica in leaving if _is_there(replica)]:
            if clock.boottime() > deadline or self._stopping.wait(_LOOK_AGAIN_S):
                return False
        return True

    def _hold_lease(self) -> bool:
        """Without a lease a supervisor would end at once what it is to start: ask for one, and wait a little."""
        if not lease.holds(self._home):
            self._leased.clear()
            self.request_look()
            self._leased.wait(_LAUNCH_LEASE_WAIT_S)
        return lease.holds(self._home) and not self._stopping.is_set()


def _is_there(replica: ReplicaDir) -> bool:
    """Whether anything of a replica still runs: its supervisor, or what that left when it died."""
    return replica.alive() or any(executor.adopt(replica) for executor in EXECUTORS.values())


def _ports(name: str, text: str) -> tuple[int, int]:
    try:
        return parse_ports(text)
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from error


def hooks_of(settings: NodeSettings) -> Hooks:
    """The operator's programs. Raises SettingsError for one that can't be run."""
    said = {"on_join": settings.on_join, "prolog": settings.prolog, "epilog": settings.epilog,
            "health_check": settings.health_check}  # fmt: skip
    for name, program in said.items():
        if program and not (os.path.isabs(program) and os.access(program, os.X_OK)):
            raise SettingsError(f"TRELLIS_{name.upper()} must be the whole path of a program, not {program!r}")
    if not 0 < settings.hook_within_s <= MOST_HOOK_S:
        raise SettingsError(f"TRELLIS_HOOK_WITHIN_S must be above 0 and at most {MOST_HOOK_S:g}")
    if not LEAST_HEALTH_S <= settings.health_every_s <= MOST_HOOK_S:
        raise SettingsError(f"TRELLIS_HEALTH_EVERY_S must be from {LEAST_HEALTH_S:g} to {MOST_HOOK_S:g}")
    return Hooks(
        settings.on_join, settings.prolog, settings.epilog, settings.health_check, settings.hook_within_s,
        settings.name or socket.gethostname(),
    )  # fmt: skip


def _bytes(name: str, text: str) -> int:
    try:
        return parse_bytes(text)
    except ValueError as error:
        raise SettingsError(f"{name}: {error}") from error
