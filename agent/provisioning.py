"""What a replica needs from the control plane before it can start: its code. One thread, beside the daemon's others.

The replica's supervisor waits for it meanwhile, so that it can be cancelled, and is told by a file and a signal.
"""

import logging
import queue
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from threading import Event, Thread

from agent import environments, trees
from agent.backoff import Backoff
from agent.code_cache import CodeCache
from agent.ground import Ground
from agent.layout import ReplicaDir, read_json, write_json
from agent.link import Link
from trellis.bundles.manifest import BadManifest, Manifest
from trellis.bundles.parcels import BadParcel
from trellis.bundles.unfolding import WrongContent, unfold
from trellis.errors import TrellisError, Unauthenticated, Unavailable
from trellis.wire import Code

_log = logging.getLogger(__name__)
# How often what came was not what was announced, before we say so.
TRIES = 3


@dataclass(frozen=True, slots=True)
class Caches:
    """How much of what was fetched and built is kept, in bytes."""

    code_bytes: int
    environment_bytes: int


@dataclass(frozen=True, slots=True)
class Order:
    """A replica that waits for its code."""

    replica: ReplicaDir
    project_id: str
    digest: str
    tried: int = 0

    @classmethod
    def of(cls, replica: ReplicaDir, project_id: str, code: Code) -> "Order":
        """What the replica of a spec waits for."""
        return cls(replica, project_id, code.digest)


class Provisioner:
    """Fetches code, keeps it by content, and lays it out for replicas."""

    def __init__(self, ground: Ground, link: Link, caches: Caches, unknown: Callable[[], None]) -> None:
        """`unknown` is called when the control plane does not know this node's token."""
        self._ground = ground
        self._link = link
        self._unknown = unknown
        self._caches = caches
        self._cache = CodeCache(ground.home.code, caches.code_bytes)
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._stopping = Event()
        self._backoff = Backoff()
        self._thread = Thread(target=self._run, name="provisioner", daemon=True)

    def start(self) -> None:
        """Begin, with the replicas that an earlier daemon left waiting. Raises OSError."""
        self._cache.open()
        for replica in self._ground.home.find_replicas():
            if (wanted := read_json(replica.wanted)) and read_json(replica.supplied) is None:
                self._orders.put(Order(replica, wanted["project_id"], wanted["digest"]))
        self._thread.start()

    def stop(self) -> None:
        """End after the present piece of work; who still waits is found again at the next start."""
        self._stopping.set()
        self._orders.put(None)
        self._thread.join()

    def supply(self, order: Order) -> None:
        """Have a replica's code laid out."""
        self._orders.put(order)

    def _run(self) -> None:
        while (order := self._orders.get()) is not None and not self._stopping.is_set():
            if not order.replica.alive():
                continue
            try:
                self._attempt(order)
            except OSError as error:  # it is gone, or the disk is full: its supervisor loses patience by itself
                _log.error("could not tell %s about its code: %s", order.replica.path.name, error)

    def _attempt(self, order: Order) -> None:
        try:
            self._lay_out(order)
        except (Unavailable, Unauthenticated) as error:
            if isinstance(error, Unauthenticated):
                self._unknown()
            self._backoff.wait(self._stopping)
            self._orders.put(order)
        except (BadParcel, WrongContent) as error:
            if order.tried + 1 < TRIES:
                self._orders.put(replace(order, tried=order.tried + 1))
            else:
                self._tell(order, f"its code can't be fetched: {error}")
        except (TrellisError, BadManifest, OSError) as error:
            self._tell(order, f"its code can't be laid out: {error}")
        else:
            self._backoff.reset()
            self._tell(order, "")
            environments.trim(self._ground.home, self._caches.environment_bytes)

    def _tell(self, order: Order, fault: str) -> None:
        write_json(order.replica.supplied, {"fault": fault})
        order.replica.signal_supervisor(signal.SIGUSR1)

    def _lay_out(self, order: Order) -> None:
        manifest = self._manifest(order)
        project = order.project_id
        if missing := self._cache.lacks(project, manifest.blobs):
            for parcel in self._link.fetch_code(order.replica.replica_id, order.replica.fence, missing):
                self._cache.keep(project, parcel.digest, parcel.pieces)
            if still := self._cache.lacks(project, missing):
                raise BadParcel(f"{len(still)} of its files did not come, such as {still[0]}")
        part = order.replica.path / "code.part"
        trees.remove(part)
        try:
            unfold(manifest, part, lambda digest: self._cache.read(project, digest), self._ground.confinement.uid)
        except WrongContent as error:
            self._cache.discard(project, error.digest)
            raise
        part.rename(order.replica.code)
        self._cache.trim()

    def _manifest(self, order: Order) -> Manifest:
        known = self._cache.find_manifest(order.project_id, order.digest)
        if known is not None:
            return known
        manifest = self._link.fetch_manifest(order.replica.replica_id, order.replica.fence)
        manifest.check()
        if manifest.digest != order.digest:
            raise BadParcel(f"the manifest that came is {manifest.digest}, not {order.digest}")
        self._cache.keep_manifest(order.project_id, manifest)
        return manifest
