"""What a replica goes on from is put in its place before it starts: two threads, outside every sandbox."""

import json
import logging
import os
import queue
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Event, Lock, Thread

from agent import trees
from agent.backoff import Backoff
from agent.checkpoint_folder import MARKER
from agent.ground import Ground
from agent.layout import RESTORED, RESTORED_FROM, Home, write_json
from agent.link import Link
from trellis.errors import Invalid, TrellisError, Unavailable
from trellis.stores.base import Store
from trellis.stores.manifests import Manifest, fetch_signed
from trellis.stores.packs import CorruptChunk, read_file
from trellis.stores.urls import open_existing, require_sign
from trellis.wire import ReplicaSpec, Restored, StoreSource

_log = logging.getLogger(__name__)
# So that a small one does not wait for a large one; more would only share the disk.
AT_ONCE = 2
# Its store or its signer lied, or it was altered: the one before it may be good.
_OF_NO_USE = (CorruptChunk, Invalid, FileNotFoundError, FileExistsError, NotADirectoryError)


class Restorer:
    """Restores into the node's own folder; a supervisor moves it to its replica, which no job could reach before."""

    def __init__(self, ground: Ground, link: Link, ready: Callable[[tuple[str, int]], None]) -> None:
        """`ready` is called, on one of these threads, with the id and fence of a replica that may start now."""
        self._home: Home = ground.home
        self._uid = ground.confinement.uid
        self._link = link
        self._ready = ready
        self._work: queue.SimpleQueue[ReplicaSpec | None] = queue.SimpleQueue()
        self._under_way: set[str] = set()
        self._waiting: set[str] = set()
        self._lock = Lock()
        self._stopping = Event()
        self._threads = [Thread(target=self._run, name="restores", daemon=True) for _ in range(AT_ONCE)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the present file; what is half restored is restored anew by the next daemon."""
        self._stopping.set()
        for _ in self._threads:
            self._work.put(None)
        for thread in self._threads:
            thread.join()

    def must_wait(self, spec: ReplicaSpec) -> bool:
        """Whether this replica is not to start yet; it is seen to that it may, soon."""
        if spec.checkpoint is None or not spec.checkpoint.restore:
            return False
        name = f"{spec.replica_id}.{spec.fence}"
        with self._lock:
            if name in self._under_way:
                return True
            if (self._home.restored / name).exists():
                return False
            self._under_way.add(name)
        self._work.put(spec)
        return True

    def drop(self, replica_id: str) -> None:
        """It is not to start after all."""
        for path in self._home.restored.glob(f"{replica_id}.*"):
            trees.remove(path)
        self._waiting -= {name for name in set(self._waiting) if name.startswith(f"{replica_id}.")}

    def _run(self) -> None:
        while (spec := self._work.get()) is not None and not self._stopping.is_set():
            name = f"{spec.replica_id}.{spec.fence}"
            try:
                self._restore(spec, name)
            except (OSError, TrellisError) as error:  # the next heartbeat's orders name it again
                _log.warning("could not restore what %s goes on from: %s", name, error)
                self._say(spec, name, _words(error))
                with suppress(OSError):
                    trees.remove(self._home.restored / f".{name}")
            finally:
                with self._lock:
                    self._under_way.discard(name)
            if (self._home.restored / name).exists():
                self._waiting.discard(name)
                self._ready((spec.replica_id, spec.fence))

    def _restore(self, spec: ReplicaSpec, name: str) -> None:
        """The newest that is good; an empty folder where none is. Raises OSError where the store can't be reached."""
        assert spec.checkpoint is not None
        plan = spec.checkpoint
        source = plan.source or StoreSource(plan.store_url, plan.public_key)
        store = open_existing(source.url)
        half = self._home.restored / f".{name}"  # nobody's but ours to enter, whose its folder may be by then
        folder = half / RESTORED
        faults: list[str] = []
        restored = named = ""
        for key in plan.restore:
            _make_empty(half)
            try:
                manifest = fetch_signed(store, key, source.public_key)
                self._write(store, manifest, str(folder))
            except _OF_NO_USE as error:
                require_sign(store, source.url)  # what is away is not damaged
                _log.warning("the checkpoint %s is of no use: %s", key, error)
                faults.append(f"{key} {_words(error)}")
            else:
                restored, named = key, f"{manifest.about.get('attempt')}/{manifest.about.get('step')}"
                break
        if not restored:
            _make_empty(half)
        self._give(str(folder))
        write_json(half / RESTORED_FROM, {"key": restored, "named": named, "faults": faults})
        self._tell(spec, Restored(spec.fence, restored, tuple(faults)))
        half.rename(self._home.restored / name)

    def _write(self, store: Store, manifest: Manifest, folder: str) -> None:
        if manifest.about.get("marked"):  # so that the job's folder counts as complete, and as one that says so
            note = {"step": manifest.about.get("step"), "metrics": manifest.about.get("metrics")}
            Path(folder, MARKER).write_text(json.dumps(note), encoding="utf-8")
        for file in manifest.files:
            path = os.path.join(folder, file.path)  # the manifest's own check: no path of it leads out
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            with open(path, "xb", buffering=0) as target:
                for part in read_file(store, file):
                    target.write(part)
                    if self._stopping.is_set():
                        raise InterruptedError("the node is being stopped")

    def _say(self, spec: ReplicaSpec, name: str, why: str) -> None:
        """Have it known once why a job that has its place does not start."""
        if name in self._waiting or self._stopping.is_set():
            return
        self._waiting.add(name)
        message = f"what it goes on from can't be read at present, and is tried again: {why}"
        with suppress(TrellisError):  # a word, no more
            self._link.checkpoint_failed(spec.replica_id, spec.fence, message)

    def _give(self, folder: str) -> None:
        """Make it the job's, when all is written: before, somebody else's link in it would be followed."""
        if self._uid is None:
            return
        for parent, _, files in os.walk(folder, topdown=False):
            for path in (*(os.path.join(parent, name) for name in files), parent):
                os.chown(path, self._uid, self._uid, follow_symlinks=False)

    def _tell(self, spec: ReplicaSpec, restored: Restored) -> None:
        backoff = Backoff()
        while not self._stopping.is_set():
            try:
                self._link.tell_restored(spec.replica_id, restored)
            except Unavailable:
                backoff.wait(self._stopping)
            else:
                return
        raise InterruptedError("the node is being stopped")


def _make_empty(half: Path) -> None:
    trees.remove(half)
    half.mkdir(mode=0o700)
    (half / RESTORED).mkdir(mode=0o700)


def _words(error: OSError | TrellisError) -> str:
    return str(error.detail if isinstance(error, TrellisError) and error.detail else error)[:500]
